"""Two real tasks that a checkpoint was not trained on, in every way, and again after a stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from generalist.cli.main import main
from generalist.envs import get_task, matching_names
from generalist.errors import GeneralistError, UsageError
from generalist.evaluation import heldout
from generalist.evaluation.heldout import FINE_TUNED, FROM_SCRATCH, WAYS, evaluate_heldout
from generalist.evaluation.suite import HeldOut, Suite, load_suite
from generalist.shards.reader import TaskData
from generalist.shards.shards import EncodedEpisode, append_episodes
from generalist.specs import list_specs
from generalist.training.loop import train
from generalist.training.recipe import load_recipe
from generalist.windows.patterns import HELDOUT, heldout_tasks
from generalist.windows.spec import dataset_spec, load_dataset_spec
from tests.conftest import TinyRun
from tests.evaluation.test_suite import parse
from tests.heldout import TASKS, save_heldout_suite


@pytest.fixture
def suite_path(tmp_path: Path) -> Path:
    return save_heldout_suite(tmp_path)


@pytest.mark.slow
def test_every_task_is_measured_in_every_way_and_nothing_is_done_twice(
    tiny_run: TinyRun, suite_path: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_run.checkpoint, checkpoint)
    out, result = tmp_path / "out", tmp_path / "result.json"
    command = ["evaluate", str(suite_path), "--checkpoint", str(checkpoint), "--out", str(out),
               "--json", str(result), "--workers", "0"]  # fmt: skip
    real, trained = heldout.train, []

    def stops_at_the_third(recipe):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(str(recipe.output_dir.relative_to(out)))
        return real(recipe)

    monkeypatch.setattr(heldout, "train", stops_at_the_third)
    assert main(command) == 130
    monkeypatch.setattr(heldout, "train", lambda recipe: trained.append("") or real(recipe))
    assert main(command) == 0
    assert [name.split("/")[0] for name in trained] == ["fine-tuned", "fine-tuned", "", ""]

    report = json.loads(result.read_text())
    assert report["demonstrations"] == dict.fromkeys(TASKS, 3) and report["steps"] == 3
    for task in TASKS:
        ways = report["scores"][task]
        assert list(ways) == list(WAYS) and not report["skipped"]
        assert [ways[way]["episodes"] for way in WAYS] == [2, 1, 2, 2, 2, 2, 2]
        for way in (WAYS[0], *WAYS[2:]):
            low, high = ways[way]["interval"]
            assert low <= ways[way]["mean"] <= high
            # 20 steps are no whole episode: there is no reference for them
            assert ways[way]["normalized"] is None
    text = parse(out / "report.html").text
    assert all(task in text for task in TASKS) and "from-scratch" in text
    printed = capsys.readouterr().out
    assert all(way in printed for way in WAYS)

    facts = [
        json.loads((folder / "generalist" / "training.json").read_text())
        for folder in out.rglob("checkpoint")
    ]
    assert len(facts) == 4 and all(each["steps"] == 3 for each in facts)
    assert sorted(each["tasks"][0] for each in facts) == sorted(2 * TASKS)


@pytest.mark.slow
def test_the_trained_agents_are_asked_for_a_return(
    tiny_run: TinyRun, suite_path: Path, tmp_path: Path, capsys
) -> None:
    settings = ["model.form=compact", "returns={show: 0.5}", "data.labels=false"]
    settings += ["schedule.steps=3", f"output_dir={tmp_path / 'run'}"]
    checkpoint, result = train(load_recipe(tiny_run.recipe, settings)), tmp_path / "result.json"
    command = ["evaluate", str(suite_path), "--checkpoint", str(checkpoint), "--workers", "0",
               "--json", str(result), "--wanted-return", "expert"]  # fmt: skip
    assert main(command) == 0
    report = json.loads(result.read_text())
    assert report["wanted_return"] == "expert:kappa=10"
    acrobot, car = TASKS
    for way in (FINE_TUNED, FROM_SCRATCH):
        assert report["scores"][car][way]["episodes"] == 2
        # Cut after 60 steps, each episode of Acrobot returns the same.
        assert "asked for" in report["skipped"][acrobot][way]
    runs = tmp_path / "run" / "heldout" / "heldout"
    settings = [
        json.loads(path.read_text())["settings"]
        for path in runs.glob("*/*/**/results/gym-MountainCarContinuous-v0.json")
    ]
    assert [each["wanted_return"] for each in settings] == 2 * ["expert:kappa=10"]
    assert "expert:kappa=10" in parse(runs / "report.html").text


def test_who_cannot_be_asked_is_not_trained_for_it(
    tiny_run: TinyRun, suite_path: Path, tmp_path: Path
) -> None:
    suite, out = load_suite(suite_path), tmp_path / "out"
    for wanted, reason in (("expert", "no section `returns`"), ("best", "A wanted return is")):
        with pytest.raises(UsageError, match=reason):
            evaluate_heldout(tiny_run.checkpoint, suite, out, wanted_return=wanted)
    assert not out.exists()


def test_the_short_runs_are_neither_scored_nor_corrected_on_the_way(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    own = tmp_path / "generalist" / "recipe.yaml"
    own.parent.mkdir()
    rows = (tiny_run.checkpoint / "generalist" / "recipe.yaml").read_text()
    recipe = yaml.safe_load(rows)
    recipe["evaluation"] = {"tasks": ["gym/*"], "every_minutes": 1}
    recipe["corrections"] = {"tasks": {"gym/CartPole-v1": {"episodes": 1}}}
    recipe["data"] |= {"labels": False, "instruction_dropout": 0.3}
    own.write_text(yaml.safe_dump(recipe))
    held_out = HeldOut(data="heldout", steps=3)
    short = heldout._recipe(tmp_path, None, heldout=held_out, data=tmp_path, run=tmp_path)
    assert short.schedule.steps == 3 and short.schedule.minutes is None
    assert short.evaluation.tasks == [] and short.corrections.tasks == {}
    assert short.data.labels is False, "labels would tell what the checkpoint had to go without"
    assert short.data.instruction_dropout == 0.3


@pytest.mark.slow
def test_demonstrations_that_were_added_are_trained_on(tiny_run: TinyRun, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_run.data / "gym/CartPole-v1", data)
    settings = [f"data.root={data}", f"output_dir={run}", "schedule.steps=1", "cores=1"]
    recipe = load_recipe(tiny_run.recipe, settings)
    final = heldout._trained(recipe)
    written = (final / "config.json").stat().st_ino
    assert heldout._trained(recipe) == final
    assert (final / "config.json").stat().st_ino == written, "what was finished is not done again"
    episode = EncodedEpisode(TaskData(data).tokens(0), TaskData(data).rewards(0), None, {})
    append_episodes(data, [episode])
    heldout._trained(recipe)
    (saved,) = (run / "checkpoints").glob("step-*")
    marks = json.loads((saved / "data.json").read_text())["tasks"]
    assert marks == [["gym/CartPole-v1", TaskData(data).fingerprint]]


def test_what_was_reinforced_or_adapted_learns_from_the_demonstrations(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    stored = (tiny_run.checkpoint / "generalist" / "recipe.yaml").read_text()
    recipe = yaml.safe_load(stored)
    recipe["reinforcement"] = {"tasks": {"gym/CartPole-v1": {}}}
    recipe["model"]["lora"] = {"rank": 4}
    (tmp_path / "generalist").mkdir()
    (tmp_path / "generalist" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    given = {"heldout": HeldOut(data="heldout"), "data": tmp_path, "run": tmp_path}
    scratch, tuned = (heldout._recipe(tmp_path, start, **given) for start in (None, tmp_path))
    assert scratch.reinforcement is tuned.reinforcement is None
    assert scratch.model.lora is None and tuned.model.lora.rank == 4


def test_a_task_it_was_trained_on_is_not_held_out(
    tiny_run: TinyRun, suite_path: Path, tmp_path: Path
) -> None:
    suite = load_suite(suite_path)
    suite.tasks[0].task = "gym/CartPole-v1"
    with pytest.raises(GeneralistError, match="trained on gym/CartPole-v1"):
        evaluate_heldout(tiny_run.checkpoint, suite, tmp_path / "out")
    suite.tasks[0].task = "dmc/reacher-hard"
    with pytest.raises(UsageError, match="dmc/reacher-hard, of which .* says no demonstrations"):
        evaluate_heldout(tiny_run.checkpoint, suite, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"asked": [50]}, "ask by --wanted-return"),
        ({"tasks": [{"task": "babyai/GoToLocal", "instruction": "none"}]}, "leave out babyai/GoTo"),
    ],
)
def test_what_its_report_does_not_show_is_not_measured(given: dict, words: str) -> None:
    suite = {"tasks": ["gym/Acrobot-v1"], "heldout": {"data": "heldout"}}
    with pytest.raises(ValueError, match=words):
        Suite.model_validate(suite | given)


def test_no_shipped_mixture_trains_on_what_is_held_out() -> None:
    held = set(heldout_tasks())
    assert len(held) >= 3 and all(get_task(task).default_expert for task in held)
    assert {each.task for each in load_suite(HELDOUT).tasks} == held
    mixtures = []
    for name in set(list_specs("datasets")) - {HELDOUT}:
        tasks = {task.task for task in load_dataset_spec(name).tasks}
        if len({task.partition("/")[0] for task in tasks}) > 1:
            mixtures.append(name)
            assert not held & tasks, name
    assert {"quickstart", "laptop", "catalogue"} <= set(mixtures)
    family = next(iter(held)).partition("/")[0]
    everything = dataset_spec({"tasks": [{"task": f"{family}/*", "episodes": 1}]})
    found = {task.task for task in everything.tasks}
    assert found == set(matching_names(f"{family}/*")) - held


def test_transfer_is_measured_in_games_that_were_left_out_on_a_hundredth_of_the_data() -> None:
    trained, left_out = load_dataset_spec("mgdt").tasks, load_dataset_spec("transfer").tasks
    assert not {each.task for each in trained} & {each.task for each in left_out}
    for name, tasks in (("mgdt", trained), ("transfer", left_out)):
        cut = {each.task: each.max_steps for each in tasks}
        assert {each.task: each.max_steps for each in load_suite(name).tasks} == cut
    assert load_suite("transfer").heldout.data == "transfer"
    assert len({each.episodes for each in left_out}) == 1
    share = left_out[0].episodes / sum(each.episodes for each in trained)
    assert share == pytest.approx(0.01, rel=0.05)


def test_patterns_of_a_suite_stand_for_what_was_trained_on_unless_zero_shot_is_asked() -> None:
    entries = [{"task": "gym/*", "episodes": 3}, {"task": "gym/CartPole-v1", "episodes": 7}]
    suite = Suite.model_validate({"tasks": entries})
    trained = ["gym/CartPole-v1", "gym/Pendulum-v1"]

    def tasks(suite: Suite) -> dict[str, int | None]:
        return {each.task: each.episodes for each in suite.for_checkpoint(trained).tasks}

    assert tasks(suite) == {"gym/Pendulum-v1": 3, "gym/CartPole-v1": 7}
    suite.zero_shot = True
    everything = dict.fromkeys(matching_names("gym/*"), 3) | {"gym/CartPole-v1": 7}
    assert tasks(suite) == everything and len(everything) > 4
    suite.zero_shot, suite.tasks = False, suite.tasks[:1]
    with pytest.raises(GeneralistError, match="none of the suite's tasks.*--zero-shot"):
        suite.for_checkpoint(["dmc/reacher-easy"])
