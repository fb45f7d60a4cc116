"""`generalist evaluate` goes on: after tasks that raise, processes that die, and Ctrl-C."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from generalist.acting.agent import Agent
from generalist.cli.main import main
from generalist.evaluation.measure import evaluate, training_facts, weights_fingerprint
from generalist.evaluation.report import write_report
from generalist.evaluation.suite import Suite, load_suite
from tests.conftest import TinyRun
from tests.evaluation.test_suite import SUITE, modified, parse

CARTPOLE = "gym/CartPole-v1"
OWN_ENVIRONMENTS = """
import os
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Brittle(CartPoleEnv):
    def step(self, action):
        if not os.path.exists({mended!r}):
            raise RuntimeError("the motor is broken")
        return super().step(action)

class Deadly(CartPoleEnv):
    def step(self, action):
        if not os.path.exists({mended!r}):
            os._exit(3)
        return super().step(action)

gymnasium.register("Brittle-v0", entry_point=Brittle, max_episode_steps=9)
gymnasium.register("Deadly-v0", entry_point=Deadly, max_episode_steps=9)
"""
BRITTLE, DEADLY = "gym/shaky:Brittle-v0", "gym/shaky:Deadly-v0"


@pytest.fixture
def checkpoint(tiny_run: TinyRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.checkpoint, tmp_path / "run" / "checkpoint"))


@pytest.fixture
def mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Environments of one's own that fail, until this file is there."""
    path = tmp_path / "mended"
    (tmp_path / "shaky.py").write_text(OWN_ENVIRONMENTS.format(mended=str(path)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shaky", raising=False)
    return path


def save_suite(folder: Path, name: str = "my", **fields) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**SUITE, "prompted_episodes": 0, **fields}))
    return path


def command(suite: Path, checkpoint: Path, *more: object) -> list[str]:
    return ["evaluate", str(suite), "--checkpoint", str(checkpoint), *map(str, more)]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_task_that_raises_costs_itself_alone(
    checkpoint: Path, mended: Path, tmp_path: Path, workers: int, capsys
) -> None:
    suite, out = save_suite(tmp_path, tasks=[BRITTLE, CARTPOLE], zero_shot=True), tmp_path / "out"
    words = command(suite, checkpoint, "--out", out, "--workers", workers)
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "1 of 2 results are missing" in printed.err and "the motor is broken" in printed.err
    assert "Missing: " + BRITTLE in printed.out.replace("\n", "")
    report = json.loads((out / "report.json").read_text())
    assert [score["task"] for score in report["scores"]] == [CARTPOLE]
    (failed,) = report["failed"]
    assert failed["task"] == BRITTLE and "the motor is broken" in failed["failed"]
    page = parse(out / "report.html").text
    assert f"Missing: {BRITTLE}" in page and "the motor is broken" in page
    (traceback,) = (out / "errors").iterdir()
    assert "RuntimeError: the motor is broken" in traceback.read_text()

    before = modified(out)
    assert list(before) == ["gym-CartPole-v1.json"]
    mended.touch()
    assert main(words) == 0  # what failed is tried again, the rest is there
    report = json.loads((out / "report.json").read_text())
    assert len(report["scores"]) == 2 and report["failed"] == []
    assert modified(out)["gym-CartPole-v1.json"] == before["gym-CartPole-v1.json"]


@pytest.mark.slow
def test_a_process_that_dies_costs_its_task_alone(
    tiny_run: TinyRun, mended: Path, tmp_path: Path
) -> None:
    names = [DEADLY, CARTPOLE, "gym/Acrobot-v1", "gym/MountainCar-v0"]
    tasks = [{"task": name, "max_steps": 30} for name in names]
    suite = Suite.model_validate({**SUITE, "prompted_episodes": 0, "tasks": tasks})
    found = evaluate(tiny_run.checkpoint, suite, tmp_path / "out", progress=False, workers=2)
    assert [result["task"] for result in found.results] == names
    assert [result["task"] for result in found.failed] == [DEADLY]
    assert "died" in found.failed[0]["failed"] and len(found.rollouts) == 3
    report = write_report(found, tmp_path / "out")
    assert len(report["failed"]) == 1 and "died" in parse(tmp_path / "out" / "report.html").text


@pytest.mark.slow
def test_ctrl_c_ends_it_and_the_same_command_continues(checkpoint: Path, tmp_path: Path) -> None:
    fields = {"tasks": [{"task": "gym/*", "max_steps": 40}], "zero_shot": True, "episodes": 1}
    suite, out = save_suite(tmp_path, **fields), tmp_path / "out"
    words = [sys.executable, "-m", "generalist", *command(suite, checkpoint, "--out", out)]
    words += ["--workers", "2"]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(list((out / "results").glob("*.json"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    before = modified(out)
    assert not (out / "report.json").exists() and len(before) >= 3
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("from before") == len(before)
    after = modified(out)
    assert {name: after[name] for name in before} == before and len(after) > len(before)


def test_a_second_suite_has_a_folder_of_its_own_and_the_card_keeps_both(
    checkpoint: Path, tmp_path: Path, capsys
) -> None:
    one = save_suite(tmp_path, "one", tasks=[CARTPOLE])
    two = save_suite(tmp_path, "two", tasks=[CARTPOLE, "gym/Pendulum-v1"], episodes=3)
    for suite in (one, two, one):
        assert main(command(suite, checkpoint, "--workers", 1)) == 0
    reports = checkpoint.parent / "evaluation"
    assert sorted(path.name for path in reports.iterdir()) == ["one", "two"]
    for name, tasks in (("one", 1), ("two", 2)):
        report = json.loads((reports / name / "report.json").read_text())
        assert report["suite"] == name and len(report["scores"]) == tasks
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (checkpoint / "README.md").read_text().splitlines()
        if line.startswith("| gym/")
    ]
    # Tests before this one may have left the rows of their suites on the card.
    mine = [(row[0], row[1], row[5]) for row in rows if row[1] in ("one", "two")]
    assert mine == [
        (CARTPOLE, "one", "2"), (CARTPOLE, "two", "3"), ("gym/Pendulum-v1", "two", "3"),
    ]  # fmt: skip
    capsys.readouterr()
    assert main(command(two, checkpoint, "--out", reports / "one")) == 2
    assert "holds the report of the suite 'one'" in capsys.readouterr().err
    assert json.loads((reports / "one" / "report.json").read_text())["suite"] == "one"


def test_another_checkpoint_of_the_run_has_a_folder_of_its_own(checkpoint: Path, tmp_path) -> None:
    other = Path(shutil.copytree(checkpoint, checkpoint.with_name("half-way")))
    suite = save_suite(tmp_path, "one", tasks=[CARTPOLE])
    for folder in (checkpoint, other):
        assert main(command(suite, folder)) == 0
    reports = checkpoint.parent / "evaluation"
    found = {path.relative_to(reports).as_posix() for path in reports.rglob("report.json")}
    assert found == {"one/report.json", "half-way/one/report.json"}


def test_a_checkpoint_that_an_agent_saved_is_evaluated(tiny_run: TinyRun, tmp_path: Path) -> None:
    """It has no facts of its training, or some of them only."""
    saved = tmp_path / "saved"
    Agent.from_pretrained(tiny_run.checkpoint, task=CARTPOLE).save_pretrained(saved)
    suite = save_suite(tmp_path, tasks=[CARTPOLE])
    result = tmp_path / "result.json"
    assert main(command(suite, saved, "--json", result)) == 0
    assert json.loads(result.read_text())["scores"][0]["episodes"] == 2


def test_facts_of_training_that_are_missing_are_left_out(tiny_run, tmp_path) -> None:
    suite = Suite.model_validate({**SUITE, "prompted_episodes": 0, "tasks": [CARTPOLE]})
    checkpoint = Path(shutil.copytree(tiny_run.checkpoint, tmp_path / "run" / "checkpoint"))
    found = evaluate(checkpoint, suite, tmp_path / "out", progress=False)
    for facts in ({}, {"window_tokens": 128}, {"parameters": {}}, {"minutes": 1.0}, {"tokens": 5}):
        (checkpoint / "generalist" / "training.json").write_text(json.dumps(facts))
        assert write_report(found, tmp_path / "out")["training"] == facts
        parse(tmp_path / "out" / "report.html")


def test_each_row_has_the_instruction_it_names(
    checkpoint: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    task = {"task": "babyai/GoToLocal", "max_steps": 3}
    tasks = [task, *({**task, "instruction": which} for which in ("none", "shuffled"))]
    fields = {"episodes": 4, "zero_shot": True, "envs": 1}
    suite, out = save_suite(tmp_path, tasks=tasks, **fields), tmp_path / "out"
    told: list[object] = []
    begin = Agent.begin

    def heard(self, slots, seeds, infos):
        told.extend(info.get("instruction") for info in infos)
        begin(self, slots, seeds, infos)

    monkeypatch.setattr(Agent, "begin", heard)
    assert main(command(suite, checkpoint, "--out", out, "--workers", "1")) == 0
    own, none, shuffled = told[:4], told[4:8], told[8:]
    assert all(isinstance(each, str) for each in own) and none == [None] * 4
    assert len(shuffled) == 4 and all(a != b for a, b in zip(own, shuffled, strict=True))

    report = json.loads((out / "report.json").read_text())
    rows = [(row["task"], row["instruction"]) for row in report["scores"]]
    assert rows == [("babyai/GoToLocal", which) for which in ("own", "none", "shuffled")]
    assert sorted(modified(out)) == [
        "babyai-GoToLocal.json", "babyai-GoToLocal.none.json", "babyai-GoToLocal.shuffled.json",
    ]  # fmt: skip
    page, card = parse(out / "report.html").text, (checkpoint / "README.md").read_text()
    for text in (page, card, capsys.readouterr().out):
        for which in ("none", "shuffled"):
            assert f"babyai/GoToLocal ({which} instruction)" in text


def test_a_task_without_an_instruction_has_no_row_for_none(tiny_run, tmp_path) -> None:
    tasks = [{"task": CARTPOLE, "instruction": "none"}, CARTPOLE]
    suite = Suite.model_validate({**SUITE, "prompted_episodes": 0, "tasks": tasks})
    found = evaluate(tiny_run.checkpoint, suite, tmp_path, progress=False, workers=1)
    assert len(found.rollouts) == 1 and "no instruction" in found.failed[0]["failed"]


@pytest.mark.parametrize("name", ["quickstart", "laptop"])
def test_the_language_task_is_shipped_with_all_three_rows(name: str) -> None:
    entries = [each for each in load_suite(name).tasks if each.task == "babyai/GoToLocal"]
    assert [each.instruction for each in entries] == ["own", "none", "shuffled"]
    assert len({each.episodes for each in entries}) == 1


def test_an_option_that_changes_the_task_leaves_it_without_a_normalised_score(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    def scored(**options):
        tasks = [{"task": "gym/Pendulum-v1", "options": options}]
        suite = Suite.model_validate({**SUITE, "prompted_episodes": 0, "tasks": tasks})
        found = evaluate(tiny_run.checkpoint, suite, tmp_path, progress=False)
        return found.scores()[0]

    assert scored(g=2.0).normalized is None and "made with g 2.0" in scored(g=2.0).excluded
    assert scored(max_steps=200).normalized is not None  # that is the task's own limit


def test_who_made_the_data_and_who_normalises_are_both_named(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    assert training_facts(tiny_run.checkpoint)["experts"] == {
        CARTPOLE: "lqr", "gym/Pendulum-v1": "swing-up",
    }  # fmt: skip
    tasks = [CARTPOLE, {"task": "gym/LunarLander-v3"}]
    suite = Suite.model_validate({**SUITE, "prompted_episodes": 0, "tasks": tasks})
    found = evaluate(tiny_run.checkpoint, suite, tmp_path, progress=False, workers=1)
    found.teachers["gym/LunarLander-v3"] = "steady"
    report = write_report(found, tmp_path)
    cartpole, lander = report["scores"]
    assert cartpole["teacher"] == cartpole["expert"]["name"] == "lqr"
    assert lander["expert"]["name"] == "heuristic" and lander["teacher"] == "steady"
    assert lander["teacher_score"]["episodes"] >= 5
    assert lander["normalized_by_teacher"] != lander["normalized"]
    page = parse(tmp_path / "report.html")
    for words in ("heuristic", "steady", "lqr", "data by", "1 is the data's expert"):
        assert words in page.text


def test_nothing_a_checkpoint_names_is_imported(checkpoint: Path, tmp_path, monkeypatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    suite = Suite.model_validate({**SUITE, "prompted_episodes": 0, "tasks": [CARTPOLE]})
    found = evaluate(checkpoint, suite, tmp_path / "out", progress=False)
    found.teachers[CARTPOLE] = "evil:Expert"
    assert write_report(found, tmp_path / "out")["scores"][0]["teacher"] == "evil:Expert"
    assert "evil" not in sys.modules


def test_what_acting_reads_is_part_of_the_fingerprint(checkpoint: Path) -> None:
    before = weights_fingerprint(checkpoint)
    (checkpoint / "README.md").write_text("other words")
    assert weights_fingerprint(checkpoint) == before
    facts = checkpoint / "generalist" / "training.json"
    facts.write_text(facts.read_text().replace('"window_tokens"', '"window"'))
    assert weights_fingerprint(checkpoint) != before


def test_the_device_and_the_dtype_are_chosen(checkpoint: Path, tmp_path: Path, capsys) -> None:
    suite, out = save_suite(tmp_path, tasks=[CARTPOLE]), tmp_path / "out"
    words = command(suite, checkpoint, "--out", out)
    assert main([*words, "--device", "cpu"]) == 0
    before = modified(out)
    assert main([*words, "--device", "cpu", "--dtype", "bfloat16"]) == 0
    assert modified(out) != before
    assert json.loads(next((out / "results").iterdir()).read_text())["settings"]["dtype"] == (
        "bfloat16"
    )
    capsys.readouterr()
    assert main([*words, "--device", "nowhere"]) == 2
    assert "--device nowhere" in capsys.readouterr().err
