"""Ctrl-C in the middle of anything: exit code 130, nothing lost, the same command continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from generalist.cli.main import main
from tests.conftest import TinyRun

pytestmark = pytest.mark.timeout(600)
PATIENCE_SECONDS = 240


def start(*arguments: object) -> subprocess.Popen:
    """The command in a process of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "generalist", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def interrupt(process: subprocess.Popen, ready: Callable[[], bool]) -> str:
    """Press Ctrl-C (it goes to the whole group) once `ready`; returns what was said on stderr."""
    began = time.monotonic()
    try:
        while not ready():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() - began < PATIENCE_SECONDS
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        if process.poll() is None:  # a failed test leaves nothing running
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    return said


def records(folder: Path) -> list[dict]:
    from generalist.shards.reader import TaskData

    return TaskData(folder).records


@pytest.mark.parametrize("workers", [0, 2])
def test_collect_goes_on_where_it_was_interrupted(workers, tmp_path):
    spec, data = tmp_path / "spec.yaml", tmp_path / "data"
    tasks = [
        {"task": "gym/CartPole-v1", "episodes": 20, "max_steps": 50},
        {"task": "gym/Pendulum-v1", "episodes": 5000},
    ]
    spec.write_text(yaml.safe_dump({"tasks": tasks}))
    command = ["collect", spec, "--out", data, "--workers", workers]
    pendulum = data / "gym" / "Pendulum-v1"
    # The folder of the second task is made when its first episode is written.
    said = interrupt(start(*command), lambda: (pendulum / ".lock").exists())
    assert "same command again to continue" in said
    assert len(records(data / "gym" / "CartPole-v1")) == 20
    kept = len(records(pendulum)) if (pendulum / "dataset.json").exists() else 0
    assert kept < 5000

    tasks[1]["episodes"] = kept + 5
    spec.write_text(yaml.safe_dump({"tasks": tasks}))
    report = tmp_path / "report.json"
    assert main([*map(str, command[:-1]), "0", "--json", str(report)]) == 0
    added = {task: each["added"] for task, each in json.loads(report.read_text())["tasks"].items()}
    assert added == {"gym/CartPole-v1": 0, "gym/Pendulum-v1": 5}
    assert [record["seed"] for record in records(pendulum)] == list(range(kept + 5))
    assert main(["validate", str(data)]) == 0


def test_train_goes_on_where_it_was_interrupted(tiny_run: TinyRun, tmp_path):
    run = tmp_path / "run"
    command = ["train", tiny_run.recipe, f"data.root={tiny_run.data}", f"output_dir={run}",
               "schedule.steps=1000000", "log_every=1", "cores=1"]  # fmt: skip
    log = run / "log.jsonl"

    def steps() -> list[int]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line)["step"] for line in lines]

    said = interrupt(start(*command), lambda: len(steps()) >= 3)
    assert "same command" in said
    stopped = steps()[-1]
    saved = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert saved[-1] == f"step-{stopped:08d}"
    assert not (run / "checkpoint").exists()

    interrupt(start(*command), lambda: len(steps()) >= stopped + 2)
    assert steps() == list(range(1, steps()[-1] + 1)), "no step was lost or done twice"
