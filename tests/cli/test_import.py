"""`generalist import`: from a published dataset to shards, and on to training and a look inside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from generalist.cli.main import main
from generalist.shards.reader import TaskData
from tests.importing.recorded import (
    CARTPOLE,
    PENDULUM,
    episode_rows,
    lerobot_folder,
    played,
    step_rows,
)

MODEL = ["model.hidden_size=32", "model.intermediate_size=64", "model.layers=2", "model.heads=2"]
SHORT = ["data.window_tokens=128", "data.rows_per_step=4", "schedule.steps=3", "precision=fp32"]


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """CartPole as steps, with columns of the owner's names."""
    import datasets

    path = tmp_path / "cart.parquet"
    datasets.Dataset.from_dict(step_rows(played(CARTPOLE, 6))).to_parquet(path)
    return path


def columns() -> list[str]:
    return ["--observation", "seen", "--action", "pushed", "--reward", "points",
            "--episode-column", "number"]  # fmt: skip


def test_imported_episodes_are_trained_on_inspected_and_validated(
    parquet: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, report = tmp_path / "data", tmp_path / "report.json"
    command = ["import", "hub", str(parquet), "--task", CARTPOLE, *columns(), "--out", str(out)]
    assert main([*command, "--json", str(report)]) == 0
    assert json.loads(report.read_text())["added"] == 6
    assert main([*command, "--json", str(report)]) == 0
    assert json.loads(report.read_text())["added"] == 0
    notes = tmp_path / "notes.txt"
    notes.write_text("A document of one's own. " * 40)
    assert main(["import", "text", str(notes), "--task", "text/notes", "--out", str(out)]) == 0
    assert main(["validate", str(out)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(out), "--task", CARTPOLE, "--episode", "0", "--steps", "1"]) == 0
    shown = capsys.readouterr().out
    assert "source import" in shown and "observation[0]" in shown and "target" in shown
    run = tmp_path / "run"
    recipe = ["train", "quickstart", f"data.root={out}", f"output_dir={run}", "trackers=[]"]
    assert main([*recipe, "corrections.tasks={}", "model.architecture=qwen3", *MODEL, *SHORT]) == 0
    assert (run / "checkpoint" / "model.safetensors").exists()


def test_lerobot_and_jat_by_command(tmp_path: Path) -> None:
    import datasets

    out, recorded = tmp_path / "data", played(PENDULUM, 3)
    robot = lerobot_folder(tmp_path / "robot", recorded)
    command = ["import", "lerobot", str(robot), "--task", "robot/pendulum", "--out", str(out)]
    assert main(command) == 0
    datasets.Dataset.from_dict(episode_rows(recorded)).save_to_disk(tmp_path / "jat")
    command = ["import", "hub", str(tmp_path / "jat"), "--task", PENDULUM, "--out", str(out)]
    assert main([*command, "--episodes", "2"]) == 0
    assert len(TaskData(out / "robot/pendulum")) == 3 and len(TaskData(out / PENDULUM)) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["minari", "{here}"], 2, "is not a Minari dataset"),
        (["hub", "{parquet}", "--task", CARTPOLE], 2, "there are seen, pushed, points, number"),
        (["hub", "{parquet}", "--task", "Cart", *columns()], 2, "A task is written family/Name"),
        (["hub", "{here}/none.parquet", "--task", CARTPOLE], 2, "is no file or folder here"),
        (["hub", "{parquet}", "--task", PENDULUM, *columns()], 1, "episode 0: gym/Pendulum-v1"),
        (["lerobot", "{here}", "--task", "robot/p"], 2, "has no meta/info.json"),
        (["text", "{parquet}", "--task", "own/notes"], 2, "text/NAME"),
        (["text", "{parquet}", "--task", "text/notes"], 2, "no column 'text'; it has seen"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], code: int, words: str, parquet: Path, tmp_path: Path, capsys
) -> None:
    filled = [each.format(here=tmp_path, parquet=parquet) for each in arguments]
    assert main(["import", *filled, "--out", str(tmp_path / "data")]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1 and words in said[0]


def test_what_is_left_out_is_said_with_its_reason(tmp_path: Path, capsys) -> None:
    out, notes, report = tmp_path / "data", tmp_path / "notes", tmp_path / "report.json"
    notes.mkdir()
    (notes / "a.txt").write_text("A note.\n")
    (notes / "b.txt").write_bytes("Ümlaut".encode("latin-1"))
    command = ["import", "text", str(notes), "--task", "text/notes", "--out", str(out)]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "b.txt is not UTF-8 text" in said and "--skip-bad" in said
    assert main([*command, "--skip-bad", "--json", str(report)]) == 0
    said = capsys.readouterr().err
    assert "1 episodes left out" in said and "episode 1: " in said and "b.txt" in said
    facts = json.loads(report.read_text())
    assert (facts["episodes"], facts["left_out"], len(facts["reasons"])) == (1, 1, 1)


def test_a_name_may_have_a_namespace(parquet: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    task = "gym/ALE/Own-v5"
    command = ["import", "hub", str(parquet), "--task", task, *columns(), "--out", str(out)]
    assert main(command) == 0
    assert len(TaskData(out / task)) == 6
    assert main(["validate", str(out)]) == 0
    assert main(["inspect", str(out), "--task", task, "--episode", "0", "--steps", "1"]) == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (None, "cut short")],
)
def test_a_file_that_is_no_parquet_is_no_fault_of_ours(
    parquet: Path, tmp_path: Path, capsys, content: bytes | None, words: str
) -> None:
    parquet.write_bytes(parquet.read_bytes()[:-9] if content is None else content)
    for kind, task in (("hub", CARTPOLE), ("text", "text/own")):
        command = ["import", kind, str(parquet), "--task", task, "--out", str(tmp_path / "data")]
        assert main(command) == 1
        said = capsys.readouterr().err
        assert parquet.name in said and words in said and "fault of" not in said


@pytest.mark.slow
def test_without_a_network_the_command_says_so(tmp_path: Path) -> None:
    """A real attempt, with all of the package's retries, at a server that is not there."""
    import os
    import subprocess
    import sys

    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    for arguments in (
        ["hub", "jat-project/jat-dataset", "--config", "mujoco-ant", "--task", "jat/ant"],
        ["minari", "mujoco/hopper/expert-v0"],
    ):
        result = subprocess.run(
            [sys.executable, "-m", "generalist", "import", *arguments],
            capture_output=True, text=True, timeout=300,
            env={**environment, "MINARI_DATASETS_PATH": str(tmp_path)},
        )  # fmt: skip
        assert result.returncode == 1, result.stderr
        said = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(said) == 1 and "cannot be reached" in said[0]
        assert "Traceback" not in result.stderr
