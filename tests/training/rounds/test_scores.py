"""Scores on the way: logged when due, and nothing that is trained depends on them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.errors import UsageError
from generalist.evaluation.report import training_log
from generalist.seeds import RUN_SCORES_SEED
from generalist.training.checkpoint import RunState
from generalist.training.loop import TrainingInterrupted, train
from generalist.training.recipe import load_recipe
from generalist.training.rounds.scores import Scores, evaluated_tasks, mean_score
from tests.training.runs import Counting, assert_bitwise_equal, replaced

EVALUATION = {"tasks": ["gym/CartPole*"], "episodes": 2, "every_steps": 6}


def scores(run: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    key = "score/gym/CartPole-v1"
    return [(row["step"], row[key]) for row in rows if key in row]


def test_scores_are_those_of_the_model_and_change_nothing(make_recipe, data, tmp_path):
    train(make_recipe(output_dir=tmp_path / "without"), data)
    recipe = make_recipe(evaluation=EVALUATION, output_dir=tmp_path / "with")
    final = train(recipe, data)
    assert_bitwise_equal(tmp_path / "without", tmp_path / "with")
    found = scores(tmp_path / "with")
    assert [step for step, _ in found] == [6]
    agent = Agent.from_pretrained(final, task="gym/CartPole-v1")
    last = rollout(agent, episodes=2, seed=RUN_SCORES_SEED, progress=False)
    assert found[-1][1] == last.mean
    rows = training_log(final)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"loss", "score/gym/CartPole-v1", "normalized_score/gym/CartPole-v1"} <= set(rows[-1])


@pytest.mark.slow
def test_a_run_that_is_stopped_between_scores_comes_to_the_same(make_recipe, data, tmp_path):
    often = {**EVALUATION, "every_steps": 2}
    train(make_recipe(evaluation=often, output_dir=tmp_path / "whole"), data)

    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    cut = make_recipe(evaluation=often, output_dir=tmp_path / "cut")
    with pytest.raises(TrainingInterrupted):
        train(cut, replaced(data, Counting(data.windows, at=14, action=terminate)))
    train(cut, data)
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "cut")
    whole, found = scores(tmp_path / "whole"), scores(tmp_path / "cut")
    assert [step for step, _ in whole] == [2, 4, 6]
    # The signal comes while step 3 or 4 is taken: it may meet the scores of step 4, and no others.
    assert found in (whole, [whole[0], whole[2]])


def test_what_is_due_is_counted_from_where_the_run_stands(make_recipe, data):
    """Scores that were due before a run was stopped are not due again as it goes on."""
    often = {"tasks": ["gym/*"], "every_minutes": 1, "every_steps": 100}
    scores = Scores(make_recipe(evaluation=often), data)
    asked = [(5, 70), (6, 75), (6, 119), (6, 120), (7, 130), (9, 250), (9, 251), (100, 252)]
    due = [scores.due(RunState(step=step, elapsed_seconds=seconds)) for step, seconds in asked]
    assert due == [False, False, False, True, False, True, False, True]
    resumed = Scores(make_recipe(evaluation=often), data)
    due = [resumed.due(RunState(step=step, elapsed_seconds=252)) for step in (100, 101, 199, 200)]
    assert due == [False, False, False, True]
    assert not Scores(make_recipe(evaluation={}), data).due(RunState())


def test_what_matches_nothing_is_named(make_recipe, data):
    wrong = make_recipe(evaluation={**EVALUATION, "tasks": ["gym/Pendulum-v2", "gym/*"]})
    with pytest.warns(UserWarning, match="did you mean 'gym/Pendulum-v1'"):
        assert sorted(evaluated_tasks(wrong, data)) == sorted(data.task_names)


def test_tasks_without_a_cadence_are_a_mistake():
    with pytest.raises(UsageError, match="every_minutes or every_steps"):
        load_recipe("quickstart", ["evaluation.tasks=[gym/CartPole-v1]"])


def test_the_best_model_is_kept(make_recipe, data, tmp_path):
    often = {**EVALUATION, "every_steps": 2, "keep_best": True}
    recipe = make_recipe(evaluation=often)
    train(recipe, data)
    found = scores(recipe.output_dir)
    note = json.loads((recipe.output_dir / "best.json").read_text())
    best = max(score for _, score in found)
    assert note["step"] == min(step for step, score in found if score == best)
    agent = Agent.from_pretrained(recipe.output_dir / "best", task="gym/CartPole-v1")
    again = rollout(agent, episodes=2, seed=RUN_SCORES_SEED, progress=False)
    assert again.mean == best


def test_what_best_means():
    row = {"score/a": 3.0, "score/b": 1.0, "normalized_score/a": 0.5}
    assert mean_score(row, 2) is None
    assert mean_score(row | {"normalized_score/b": 0.1}, 2) == pytest.approx(0.3)
    assert mean_score({"score/a": 3.0}, 1) == 3.0
