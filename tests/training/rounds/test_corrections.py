"""DAgger within a run: rounds grow the data, and survive interruptions like the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from generalist.errors import GeneralistError, UsageError
from generalist.shards.reader import TaskData
from generalist.training.checkpoint import list_checkpoints
from generalist.training.data import corrections_root, open_data
from generalist.training.loop import TrainingInterrupted, train
from generalist.training.rounds import corrections
from generalist.windows.mixture import corrections_below, open_mixture
from tests.dataset_folders import control_layout, write_task
from tests.training.conftest import recipe_for
from tests.training.runs import Counting, assert_bitwise_equal, replaced

CORRECTIONS = {
    "tasks": {"gym/Pendulum-v1": {"episodes": 2, "max_steps": 30}},
    "rounds": 2,
    "begin": 0.5,
}


EACH_STEP = {"every_steps": 1, "every_minutes": None, "keep": 9}


@pytest.fixture(scope="module")
def whole(shards, data, tmp_path_factory) -> Path:
    """A run with its two rounds and a checkpoint of each step; read-only."""
    run = tmp_path_factory.mktemp("corrected") / "whole"
    train(recipe_for(shards, corrections=CORRECTIONS, checkpoint=EACH_STEP, output_dir=run), data)
    return run


def played(run: Path, number: int) -> TaskData:
    return TaskData(run / "corrections" / f"round-{number}" / "gym/Pendulum-v1")


def test_rounds_are_played_trained_on_and_survive_a_stop_bitwise(
    make_recipe, data, whole, tmp_path
):
    for number in (1, 2):
        shards = played(whole, number)
        assert [record["source"] for record in shards.records] == ["dagger"] * 2
        assert list(shards.episodes["steps"]) == [30, 30]
        assert all(shards.labels(i) is not None for i in range(2))
    facts = json.loads((whole / "checkpoint/generalist/training.json").read_text())
    assert sorted(facts["tasks"]) == sorted(data.task_names), "a task is named once"
    seeds = [{record["seed"] for record in played(whole, n).records} for n in (1, 2)]
    assert not seeds[0] & seeds[1]

    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    # Stopped before the first round, and as the second begins.
    cut = make_recipe(corrections=CORRECTIONS, output_dir=tmp_path / "cut")
    with pytest.raises(TrainingInterrupted):
        train(cut, replaced(data, Counting(data.windows, at=4, action=terminate)))
    real, calls = corrections.play_jobs, []

    def stopped(*arguments, stop, **options):
        calls.append(len(calls))
        stop.raised = calls[-1] == 1
        return real(*arguments, stop=stop, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corrections, "play_jobs", stopped)
        with pytest.raises(TrainingInterrupted, match="same command continues"):
            train(cut, data)
    assert calls == [0, 1]
    newest = list_checkpoints(tmp_path / "cut" / "checkpoints")[0]
    assert json.loads((newest / "state.json").read_text())["rounds"] == 1
    train(cut, data)
    assert_bitwise_equal(whole, tmp_path / "cut")


def test_a_checkpoint_is_continued_in_another_folder_with_its_corrections(
    make_recipe, data, whole, tmp_path
):
    options = {"corrections": CORRECTIONS, "checkpoint": EACH_STEP}
    shutil.copytree(whole, tmp_path / "whole")
    fourth = tmp_path / "whole" / "checkpoints" / "step-00000004"  # after the first round of two
    assert json.loads((fourth / "state.json").read_text())["rounds"] == 1
    train(make_recipe(**options, output_dir=tmp_path / "again"), data, resume_from=fourth)
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "again")
    assert [len(played(tmp_path / "again", number)) for number in (1, 2)] == [2, 2]

    # A folder in which another run has been corrected is left as it is.
    other = tmp_path / "other" / "corrections" / "round-1" / "gym"
    other.mkdir(parents=True)
    with pytest.raises(UsageError, match="holds other corrections.*another output_dir"):
        train(make_recipe(**options, output_dir=tmp_path / "other"), data, resume_from=fourth)
    shutil.rmtree(tmp_path / "whole" / "corrections")
    with pytest.raises(GeneralistError, match="corrections that are missing: round 1 in"):
        train(make_recipe(**options, output_dir=tmp_path / "new"), data, resume_from=fourth)


def test_a_round_that_other_weights_began_is_played_anew(tmp_path):
    """Shards of a run whose checkpoints are gone are no corrections of this one."""
    for name, weights in (("a", b"1"), ("b", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    folder = tmp_path / "round-1"
    assert not corrections.forget_other_weights(folder, tmp_path / "a")
    (folder / "played").touch()
    assert not corrections.forget_other_weights(folder, tmp_path / "a")
    assert (folder / "played").exists()
    assert corrections.forget_other_weights(folder, tmp_path / "b")
    assert not (folder / "played").exists()
    (tmp_path / "b" / "generalist").mkdir()
    (tmp_path / "b" / "generalist" / "embedders.safetensors").write_bytes(b"3")
    assert corrections.forget_other_weights(folder, tmp_path / "b"), "they are weights too"


def test_corrections_get_their_share_of_a_task(make_recipe, data, whole):
    recipe = make_recipe(corrections=CORRECTIONS | {"share": 0.25}, output_dir=whole)
    opened = open_data(recipe, 2)
    assert len(opened.task_names) == 4 and set(opened.task_names) == set(data.task_names)
    mixture = open_mixture(recipe.data.root)
    before = dict(zip((task.task for task in mixture.tasks), mixture.weights, strict=True))
    roots = [corrections_root(recipe, n) for n in (0, 1)]
    mixture.add_corrections(corrections_below(roots), 0.25)
    weights = [
        weight
        for task, weight in zip(mixture.tasks, mixture.weights, strict=True)
        if task.task == "gym/Pendulum-v1"
    ]
    whole = before["gym/Pendulum-v1"]
    assert weights == pytest.approx([0.75 * whole, 0.125 * whole, 0.125 * whole])


def test_corrections_of_an_earlier_run_are_learned_from_the_start(make_recipe, shards, whole):
    """All of them: `min_expert_share` chooses among demonstrations alone."""
    recipe = make_recipe(corrections={"earlier": [whole / "corrections"]})
    recipe.data.min_expert_share = 1.0
    opened = open_data(recipe)
    assert opened.task_names.count("gym/Pendulum-v1") == 3
    demonstrations, *earlier = [
        fingerprint for task, fingerprint in opened.shards if task == "gym/Pendulum-v1"
    ]
    assert earlier == [played(whole, number).fingerprint for number in (1, 2)]
    assert demonstrations != TaskData(shards["root"] / "gym/Pendulum-v1").fingerprint
    both = recipe.model_copy(update={"output_dir": whole})
    again = open_data(both, rounds=1)  # with a round of the run's own
    assert again.task_names.count("gym/Pendulum-v1") == 4
    assert again.facts() == opened.facts(), "what a resumed run must find unchanged"


def test_corrections_of_an_earlier_run_that_do_not_fit_are_refused(make_recipe, whole, tmp_path):
    recipe = make_recipe()
    write_task(tmp_path / "other", "gym/Other-v0", control_layout(), [10])
    write_task(tmp_path / "strange", "gym/Pendulum-v1", control_layout(), [10])
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("nowhere", "which is no folder.*OUTPUT_DIR/corrections"),
        ("empty", "holds no dataset"),
        ("other", "processor"),
        ("strange", "processor"),
    ):
        recipe.corrections.earlier = [tmp_path / name]
        with pytest.raises(GeneralistError, match=message):
            open_data(recipe)
    recipe.corrections.earlier = [whole / "corrections"]
    recipe.data.weights = {"gym/Pendulum-v1": 0}
    with pytest.raises(UsageError, match="corrections of gym/Pendulum-v1 alone"):
        open_data(recipe)


def test_a_task_that_the_data_do_not_hold_is_named_and_left_out(make_recipe, data, tmp_path):
    wrong = {"tasks": {"gym/Pendulum-v2": {"episodes": 1}}}
    with pytest.warns(UserWarning, match="did you mean 'gym/Pendulum-v1'"):
        train(make_recipe(corrections=wrong), data)
    assert not (tmp_path / "run" / "corrections").exists()


def test_patterns_stand_for_tasks_and_a_name_comes_before_them(make_recipe, data):
    tasks = {
        "gym/P*": {"episodes": 3},
        "gym/*": {"episodes": 2},
        "gym/CartPole-v1": {"episodes": 1},
    }
    found = corrections.corrected_tasks(make_recipe(corrections={"tasks": tasks}), data)
    assert {task: wanted.episodes for task, wanted in found.items()} == {
        **dict.fromkeys([task for task in data.headers if task.startswith("gym/")], 2),
        "gym/Pendulum-v1": 3,
        "gym/CartPole-v1": 1,
    }
    with pytest.warns(UserWarning, match="dmc"):
        assert not corrections.corrected_tasks(
            make_recipe(corrections={"tasks": {"dmc/*": {"episodes": 1}}}), data
        )
