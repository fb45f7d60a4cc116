"""The main job in its shortest form: every stage once, and each can be taken up again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from generalist.cli.main import main

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    dataset, suite = tmp_path / "dataset.yaml", tmp_path / "suite.yaml"
    tasks = [{"task": "gym/CartPole-v1", "episodes": 3}, {"task": "text/pydoc"}]
    dataset.write_text(yaml.safe_dump({"tasks": tasks}))
    suite.write_text(yaml.safe_dump({"tasks": ["gym/CartPole-v1"]}))
    return ["quickstart", "--smoke", "--output", str(tmp_path / "run"), "--workers", "0",
            "--dataset", str(dataset), "--suite", str(suite)]  # fmt: skip


def times(folder: Path) -> dict[str, int]:
    """When each file below was written, the report aside, which is made from the results."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in files
        if path.name not in ("report.html", "report.json", "README.md", "spec.yaml")
    }


def test_quickstart_passes_every_station_and_can_be_repeated(command, tmp_path, capsys):
    assert main(command) == 0
    printed = capsys.readouterr().out
    for words in ("1/3 collect", "2/3 train", "3/3 evaluate", "gym/CartPole-v1", "report.html"):
        assert words in printed
    run = tmp_path / "run"
    assert (run / "checkpoint" / "model.safetensors").exists()
    report = json.loads(next((run / "evaluation").glob("*/report.json")).read_text())
    assert [score["task"] for score in report["scores"]] == ["gym/CartPole-v1"]

    before = times(run)
    assert main(command) == 0
    assert times(run) == before, "nothing is collected, trained or measured twice"

    # A change of the recipe is not taken for the run that is there.
    assert main([*command, "optimizer.lr=0.5"]) == 1
    assert "optimizer.lr" in capsys.readouterr().err
    assert times(run) == before


@pytest.mark.slow
def test_the_shipped_quickstart_passes_every_station(tmp_path):
    assert main(["quickstart", "--smoke", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "evaluation" / "quickstart" / "report.json").read_text())
    played = {score["task"] for score in report["scores"]}
    told = [score["instruction"] for score in report["scores"] if "babyai" in score["task"]]
    assert len(played) == 9 and len(report["texts"]) == 1
    assert told == ["own", "none", "shuffled"]
