"""Self-improvement within a run: successes become data, failures leave nothing, stops change none.

Jobs run in this process here, after a trip through pickle; one slow test has them in processes of
their own.
"""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from generalist.acting.agent import Agent
from generalist.errors import GeneralistError, UsageError
from generalist.shards.reader import TaskData
from generalist.training.data import improvement_root, open_data
from generalist.training.loop import TrainingInterrupted, train
from generalist.training.rounds import improvement, jobs
from generalist.windows.mixture import open_mixture
from tests.training.conftest import recipe_for
from tests.training.runs import assert_bitwise_equal

CARTPOLE, GOTO = "gym/CartPole-v1", "babyai/GoToLocal"
MODEL = {"form": "compact", "hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2}
TASKS = {
    CARTPOLE: {"episodes": 4, "attempts": 2, "least_return": 12, "max_steps": 40},
    GOTO: {"episodes": 6, "max_steps": 20},  # not in the data
}
IMPROVEMENT = {"tasks": TASKS, "rounds": 2, "begin": 0.5, "hindsight": True, "temperature": 9}
EACH_STEP = {"every_steps": 1, "every_minutes": None, "keep": 9}


class Here(Executor):
    """Runs a job in this process, as a pickled one would arrive in another."""

    def submit(self, function, *arguments):
        done: Future = Future()
        try:
            done.set_result(function(*pickle.loads(pickle.dumps(arguments))))
        except Exception as error:
            done.set_exception(error)
        return done


@contextmanager
def here(processes):
    yield Here()


@pytest.fixture(autouse=True)
def jobs_here(monkeypatch, request):
    if "slow" not in request.keywords:
        monkeypatch.setattr(jobs, "process_pool", here)


@pytest.fixture(scope="module")
def improved(shards, tmp_path_factory):
    """Makes the recipe of a run that improves, in a folder of its own."""
    root = tmp_path_factory.mktemp("improved")
    count = iter(range(99))

    def make(**sections):
        given = {"model": MODEL, "improvement": IMPROVEMENT, "checkpoint": EACH_STEP}
        folder = root / str(next(count))
        return recipe_for(shards, **{**given, "output_dir": folder, **sections})

    return make


@pytest.fixture(scope="module")
def whole(improved) -> Path:
    """A run with its two rounds; read-only."""
    recipe = improved()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "process_pool", here)
        train(recipe)
    return recipe.output_dir


def outcome(run: Path, number: int, task: str) -> dict[str, int]:
    path = run / "improvement" / f"round-{number}" / task / "outcome.json"
    return json.loads(path.read_text())


def kept(run: Path, number: int, task: str) -> list[dict]:
    folder = run / "improvement" / f"round-{number}" / task
    return list(TaskData(folder).records) if (folder / "dataset.json").exists() else []


def test_what_is_kept_becomes_data_and_every_attempt_is_reported(whole):
    for number in (1, 2):
        counts, records = outcome(whole, number, CARTPOLE), kept(whole, number, CARTPOLE)
        assert counts["attempts"] == 8 and counts["kept"] == counts["solved"] == len(records)
        assert all(record["return"] >= 12 and record["source"] == "improvement"
                   for record in records)  # fmt: skip
        there = [record["source"] for record in kept(whole, number, GOTO)]
        counts = outcome(whole, number, GOTO)
        assert there.count("improvement") == counts["kept"]
        assert there.count("hindsight") == counts["hindsight"]
    assert kept(whole, 1, CARTPOLE) and kept(whole, 1, GOTO)
    seeds = [{record["seed"] for record in kept(whole, n, GOTO)} for n in (1, 2)]
    assert not seeds[0] & seeds[1]
    rows = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    rows = [row for row in rows if f"improvement/attempts/{GOTO}" in row]
    for number, row in enumerate(rows, 1):
        counts = outcome(whole, number, GOTO)
        assert row[f"improvement/success/{GOTO}"] == counts["successes"] / 6
        assert row[f"improvement/hindsight/{GOTO}"] == counts["hindsight"]
    assert len(rows) == 2


def test_a_task_without_demonstrations_is_known_to_the_checkpoint(whole):
    agent = Agent.from_pretrained(whole / "checkpoint", task=GOTO)
    assert agent.form and GOTO in agent.layouts and agent.environments[GOTO]["options"] == {}
    facts = json.loads((whole / "checkpoint/generalist/training.json").read_text())
    assert sorted(facts["tasks"]) == sorted([CARTPOLE, "gym/Pendulum-v1", GOTO])
    assert facts["labels_seen"][GOTO] > 0 and GOTO not in facts["experts"]


def test_a_stop_in_a_round_changes_no_weight(improved, whole, monkeypatch):
    recipe = improved()
    real, calls = improvement.play_jobs, []

    def stopped(find, *arguments, tell, stop, **options):
        """In each round the first task ends, then the run is stopped as it plays the second."""
        calls.append(1)

        def told(job, result):
            tell(job, result)
            if len(calls) % 2 and job.task == CARTPOLE:
                stop.raised = True

        return real(find, *arguments, tell=told, stop=stop, **options)

    monkeypatch.setattr(improvement, "play_jobs", stopped)
    for _ in range(2):
        with pytest.raises(TrainingInterrupted, match="same command continues"):
            train(recipe)
        # As if it had been killed while it wrote the second task's shards.
        for root in recipe.output_dir.glob("improvement/round-*"):
            (root / GOTO / "outcome.json").unlink(missing_ok=True)
        monkeypatch.setattr(improvement, "play_jobs", stopped)
    train(recipe)
    assert_bitwise_equal(whole, recipe.output_dir)
    assert [kept(recipe.output_dir, n, GOTO) for n in (1, 2)] == [
        kept(whole, n, GOTO) for n in (1, 2)
    ]


def test_without_a_success_the_run_is_the_one_without_improvement(improved):
    """Nothing of a failed attempt gets in; and no success is no error."""
    wanted = {CARTPOLE: {"episodes": 2, "least_return": 1e6, "max_steps": 15}}
    vain = improved(improvement={"tasks": wanted, "rounds": 2})
    train(vain)
    assert [outcome(vain.output_dir, n, CARTPOLE)["kept"] for n in (1, 2)] == [0, 0]
    assert not list(vain.output_dir.glob("improvement/**/*.tar"))
    plain = improved(improvement={})
    train(plain)
    assert_bitwise_equal(vain.output_dir, plain.output_dir)


def test_a_checkpoint_is_continued_in_another_folder_with_its_attempts(improved, whole, tmp_path):
    fourth = tmp_path / "whole" / "checkpoints" / "step-00000004"  # after the first round of two
    shutil.copytree(whole, tmp_path / "whole")
    assert json.loads((fourth / "state.json").read_text())["improvements"] == 1
    again = improved()
    train(again, resume_from=fourth)
    assert_bitwise_equal(whole, again.output_dir)
    shutil.rmtree(tmp_path / "whole" / "improvement")
    with pytest.raises(GeneralistError, match="trained on attempts that are missing: round 1 in"):
        train(improved(), resume_from=fourth)


def test_corrections_and_improvement_go_together_and_experts_stay_out_of_what_is_not_shown(
    improved,
):
    both = improved(
        corrections={"tasks": {"*": {"episodes": 1, "max_steps": 20}}, "rounds": 2, "begin": 0.5}
    )
    train(both)
    state = json.loads((both.output_dir / "checkpoints/step-00000006/state.json").read_text())
    assert (state["rounds"], state["improvements"]) == (2, 2)
    corrected = {path.parent.name for path in both.output_dir.glob("corrections/**/dataset.json")}
    assert corrected == {"CartPole-v1", "Pendulum-v1"}
    opened = open_data(both, 2, 2)
    of_cartpole = [i for i, task in enumerate(opened.task_names) if task == CARTPOLE]
    improvements = sum(bool(kept(both.output_dir, n, CARTPOLE)) for n in (1, 2))
    assert len(of_cartpole) == 1 + 2 + improvements
    assert opened.undemonstrated == {GOTO} and opened.headers[GOTO].collection == {"options": {}}


def test_other_options_propose_what_the_data_do_not_show(improved):
    recipe = improved(
        improvement={"tasks": {GOTO: {"episodes": 2, "options": {"max_steps": 7}}}, "rounds": 1}
    )
    train(recipe)
    assert outcome(recipe.output_dir, 1, GOTO)["steps"] <= 14
    header = open_data(recipe).headers[GOTO]
    assert header.collection["options"] == {"max_steps": 7}


def test_the_models_own_value_judges_where_it_has_one(improved):
    """The environment would call every attempt a success, and is not asked."""
    task = "gym/Pendulum-v1"  # in its data returns differ
    wanted = {task: {"episodes": 3, "least_return": -1e9, "max_steps": 5}}
    for least in (0.0, 1.0):
        section = {"tasks": wanted, "rounds": 1, "judge": "value", "least_value": least}
        recipe = improved(improvement=section, returns={})
        train(recipe)
        counts = outcome(recipe.output_dir, 1, task)
        assert counts["agreed"] == counts["successes"] == counts["kept"]
        terms = improvement._terms(recipe, open_data(recipe), task, recipe.improvement.tasks[task])
        levels = open_data(recipe).returns[task].levels
        assert terms.least_value == pytest.approx(levels[-1 if least else 0][0])
        assert not terms.named_first


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"tasks": {CARTPOLE: {"episodes": 1}}}, "return is a success: least_return"),
        (
            {"tasks": {GOTO: {"episodes": 1, "attempts": 3}}, "temperature": 0},
            "3 attempts at temperature 0, which are all the same",
        ),
        ({"tasks": {GOTO: {"episodes": 1}}, "judge": "value"}, "learns no value of babyai/GoTo"),
        ({"tasks": {"babyai/GoToLocl": {"episodes": 1}}}, "GoToLocal"),
        ({"tasks": {"text/pydoc": {"episodes": 1}}}, "text/pydoc, which is text and has no act"),
        (
            {"tasks": {GOTO: {"episodes": 1, "options": {"colour": "red"}}}},
            "does not take this option",
        ),
    ],
)
def test_wrong_use_is_one_sentence(improved, section, message):
    recipe = improved(improvement=section)
    with pytest.raises(UsageError, match=message) as caught:
        improvement.Improvement(recipe, open_data(recipe))
    assert "\n" not in str(caught.value)


def test_a_pattern_that_no_task_of_the_data_fits_is_warned_of(improved):
    recipe = improved(improvement={"tasks": {"dmc/*": {"episodes": 1}}})
    with pytest.warns(UserWarning, match="improvement.tasks names 'dmc/\\*'"):
        train(recipe)
    assert not (recipe.output_dir / "improvement").exists()


def test_patterns_stand_for_tasks_of_the_data_and_names_for_any(improved):
    tasks = {"gym/*": {"episodes": 2, "least_return": 0}, **TASKS}
    recipe = improved(improvement={"tasks": tasks})
    found = improvement.improved_tasks(recipe, open_data(recipe))
    assert {task: wanted.episodes for task, wanted in found.items()} == {
        "gym/Pendulum-v1": 2,
        CARTPOLE: 4,
        GOTO: 6,
    }


def test_shares_are_capped(improved, whole):
    """A share of a task's tokens, and of all for new tasks; less where there is little to share."""
    recipe = improved(output_dir=whole)
    roots = [improvement_root(recipe, number) for number in range(2)]
    for share, boost in ((0.3, 1e6), (0.9, 1.0)):
        mixture = open_mixture(recipe.data.root)
        shown, held = len(mixture.tasks), sum(mixture.weights)
        mixture.add_attempts(roots, share, boost)
        assert len(mixture.tasks) > shown and sum(mixture.weights) == pytest.approx(held)
        weights = np.array(mixture.weights) / held
        tokens = np.array([data.episodes["length"].sum() for data in mixture.tasks])
        new = np.array([data.task == GOTO for data in mixture.tasks])
        cartpole = np.array([data.task == CARTPOLE for data in mixture.tasks])
        own = np.arange(len(weights)) >= shown
        part = weights[own & cartpole].sum() / weights[cartpole].sum()
        if boost > 1:
            assert weights[new].sum() == pytest.approx(share) and part == pytest.approx(share)
        else:
            assert weights[new].sum() == pytest.approx(tokens[new].sum() / tokens.sum())
            assert part == pytest.approx(tokens[own & cartpole].sum() / tokens[cartpole].sum())
        rates = weights[new] / tokens[new]
        assert rates == pytest.approx(np.full(len(rates), rates[0]))


@pytest.mark.slow
def test_jobs_in_processes_of_their_own_give_the_same(improved, whole):
    recipe = improved(cores=2)
    train(recipe)
    for number in (1, 2):
        assert outcome(recipe.output_dir, number, GOTO) == outcome(whole, number, GOTO)
