"""Rows of every instruction: from an episode's end into results, report and table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from generalist.cli.main import main
from generalist.evaluation.instruction_rows import HEAD, cells, language_rows
from generalist.evaluation.intervals import success_interval
from generalist.evaluation.reading import reading_of
from generalist.evaluation.suite import Suite, load_suite
from tests.conftest import TinyRun
from tests.evaluation.test_suite import SUITE, parse

TASK = "babyai/GoToLocal"


def test_a_list_of_instructions_makes_a_row_of_each() -> None:
    suite = Suite.model_validate({"tasks": [{"task": TASK, "instruction": ["own", "none"]}]})
    assert [each.label for each in suite.tasks] == [TASK, f"{TASK} (none instruction)"]
    for name in ("quickstart", "laptop", "babyai", "catalogue", "all"):
        told = {each.instruction for each in load_suite(name).tasks if "babyai" in each.task}
        assert told == {"own", "none", "shuffled"}, name


def test_the_share_is_of_the_missions_that_decide() -> None:
    result = {"returns": [0.5, 0.0, 0.7], "named_first": [True, None, False], "instruction": "own"}
    found = reading_of(result)
    assert (found.missions, found.named_first) == (2, 0.5)
    assert found.named_first_interval == success_interval(1, 2)
    assert found.mean_return == pytest.approx(0.4)
    assert reading_of({**result, "named_first": [None] * 3}).named_first is None


def test_report_and_table_show_each_row_and_what_cannot_be_shuffled(
    tiny_run: TinyRun, tmp_path: Path, capsys
) -> None:
    suite, out, result = tmp_path / "my.yaml", tmp_path / "out", tmp_path / "result.json"
    every = ["own", "none", "shuffled"]
    tasks = [
        {"task": TASK, "instruction": every},
        {"task": "babyai/GoToRedBallNoDists", "instruction": "shuffled"},
        "gym/CartPole-v1",
    ]
    short = {"episodes": 2, "prompted_episodes": 0}
    suite.write_text(yaml.safe_dump({**SUITE, **short, "tasks": tasks}))
    command = ["evaluate", str(suite), "--checkpoint", str(tiny_run.checkpoint), "--out", str(out)]
    assert main([*command, "--json", str(result), "--workers", "1"]) == 0
    printed = capsys.readouterr()
    report = json.loads(result.read_text())
    assert [each["instruction"] for each in report["scores"]] == [*every, "own"]
    for row, rollout in zip(report["scores"], report["rollouts"], strict=True):
        told = [each for each in rollout["named_first"] if each is not None]
        reading = row["reading"]
        assert reading["mean_return"] == pytest.approx(sum(rollout["returns"]) / 2)
        if row["task"] == TASK:
            assert len(told) == 2 and reading["named_first"] == pytest.approx(sum(told) / 2)
        else:
            assert told == [] and reading["named_first"] is None
    (skipped,) = report["skipped"]
    assert (
        skipped["task"] == "babyai/GoToRedBallNoDists"
        and "nothing to shuffle" in skipped["skipped"]
    )
    assert "first thing right" in printed.err and "Is the instruction read?" in printed.out
    page = parse(out / "report.html").text
    assert "Is the instruction read?" in page and "first thing right" in page


def test_only_tasks_with_an_instruction_are_shown() -> None:
    from generalist.evaluation.scores import TaskScore

    reading = reading_of({"returns": [1.0], "named_first": [None]})
    score = TaskScore("gym/A", [1.0], 1.0, None, None, [0], reading=reading)
    other = TaskScore("gym/B", [1.0], 1.0, None, None, [0], reading=reading, instruction="none")
    own = TaskScore("gym/B", [1.0], 1.0, None, None, [0], reading=reading)
    assert language_rows([score, other, own]) == [other, own]
    assert len(cells(own)) == len(HEAD)
    assert TaskScore.from_dict(own.to_dict()) == own
