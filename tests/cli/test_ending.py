"""Ctrl-C and SIGTERM at any moment of any long command: all its processes are gone in time.

Each command is small enough to be run to its end afterwards: then it continues where it stopped,
or says that it begins anew.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import TinyRun
from tests.importing.recorded import PENDULUM, lerobot_folder, played

LIMIT_SECONDS = 5.0
PATIENCE_SECONDS = 300
TIMES = 20  # each signal, in the slow test
BOTH = (signal.SIGINT, signal.SIGTERM)
pytestmark = pytest.mark.timeout(3600)


@dataclass
class Command:
    """A long command.

    begun: whether its work is under way, for the fast test. finished: whether it is all done.
    continues: whether the same command goes on where it was interrupted.
    """

    arguments: list[str]
    begun: Callable[[str], bool]
    finished: Callable[[], bool]
    continues: bool = True


def limit() -> float:
    """Five seconds of a machine that has a CPU for each process that wants one."""
    return LIMIT_SECONDS * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


@contextmanager
def running(arguments: list[str], said: Path) -> Iterator[subprocess.Popen]:
    """The command in a session of its own, as a shell starts it; what it says goes to a file."""
    with open(said, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "generalist", *arguments],
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:  # a failed test leaves nothing running
        for each in members(process.pid):
            each.kill()
        process.wait()


def members(session: int) -> list[psutil.Process]:
    """The living processes of a session."""
    found = []
    for each in psutil.process_iter():
        try:
            if os.getsid(each.pid) == session and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def end(process: subprocess.Popen, number: signal.Signals, said: Path, allowed: float) -> None:
    """Send the signal as a terminal or an administrator does, and see that all is gone in time.

    Args:
        allowed: seconds until then.
    """
    began = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal sends it to all
    else:
        process.send_signal(number)
    while process.poll() is None or members(process.pid):
        late = time.monotonic() - began > allowed
        assert not late, f"{[each.cmdline() for each in members(process.pid)]}\n{said.read_text()}"
        time.sleep(0.02)


def wait_for(process: subprocess.Popen, ready: Callable[[str], bool], said: Path) -> None:
    began = time.monotonic()
    while not ready(said.read_text()):
        assert process.poll() is None, said.read_text()
        assert time.monotonic() - began < PATIENCE_SECONDS, said.read_text()
        time.sleep(0.05)


def any_below(folder: Path, pattern: str) -> Callable[[str], bool]:
    return lambda said: any(folder.rglob(pattern))


def collecting(folder: Path, run: TinyRun) -> Command:
    tasks = [{"task": "gym/CartPole-v1", "episodes": 400, "max_steps": 50},
             {"task": "gym/LunarLander-v3", "episodes": 30}]  # fmt: skip
    (folder / "spec.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    out = folder / "data"
    command = ["collect", str(folder / "spec.yaml"), "--out", str(out), "--workers", "2"]
    return Command(command, any_below(out, ".lock"), lambda: len(episodes(out)) == 430)


def episodes(root: Path) -> list[dict]:
    from generalist.shards.reader import TaskData

    folders = [path.parent for path in root.rglob("dataset.json")]
    return [record for folder in folders for record in TaskData(folder).records]


def training(folder: Path, run: TinyRun) -> Command:
    out = folder / "run"
    command = ["train", str(run.recipe), f"data.root={run.data}", f"output_dir={out}",
               "schedule.steps=300", "log_every=1", "cores=2"]  # fmt: skip
    return Command(command, any_below(out, "log.jsonl"), (out / "checkpoint").exists)


def correcting(folder: Path, run: TinyRun) -> Command:
    out = folder / "dagger"
    command = ["dagger", "gym/CartPole-v1", "--checkpoint", str(run.checkpoint), "--data",
               str(run.data), "--out", str(out), "--episodes", "40", "--rounds", "1",
               "schedule.steps=2", "schedule.warmup_steps=1"]  # fmt: skip
    return Command(command, any_below(out / "corrections", "*"), (out / "checkpoint").exists)


def acting(folder: Path, run: TinyRun) -> Command:
    films = folder / "films"
    command = ["rollout", "gym", "LunarLander-v3", "--checkpoint", str(run.checkpoint),
               "--episodes", "30", "--envs", "2", "--video", str(films),
               "--json", str(folder / "scores.json")]  # fmt: skip
    done = (folder / "scores.json").exists
    return Command(command, any_below(films, "*.mp4"), done, continues=False)


def evaluating(folder: Path, run: TinyRun) -> Command:
    tasks = [{"task": task, "episodes": 20} for task in
             ("gym/CartPole-v1", "gym/Pendulum-v1", "gym/LunarLander-v3")]  # fmt: skip
    (folder / "suite.yaml").write_text(yaml.safe_dump({"tasks": tasks, "zero_shot": True}))
    out = folder / "evaluation"
    command = ["evaluate", str(folder / "suite.yaml"), "--checkpoint", str(run.checkpoint),
               "--out", str(out), "--workers", "2"]  # fmt: skip
    return Command(command, any_below(out, "*.mp4"), lambda: any(out.rglob("report.html")))


def importing(folder: Path, run: TinyRun) -> Command:
    robot = lerobot_folder(folder / "robot", played(PENDULUM, 20) * 100)
    out = folder / "imported"
    command = ["import", "lerobot", str(robot), "--task", "robot/p", "--out", str(out)]
    return Command(command, any_below(out, ".lock"), lambda: len(episodes(out)) == 2000)


def learning(folder: Path, run: TinyRun) -> Command:
    out = folder / "expert"
    command = ["expert", "train", "gym/CartPole-v1", "--steps", "6000", "--episodes", "5",
               "--out", str(out)]  # fmt: skip
    done = any_below(out, "*.safetensors")
    return Command(command, lambda said: "%|" in said, lambda: done(""), continues=False)


def text_tokenizer(folder: Path, run: TinyRun) -> Command:
    out = folder / "text"
    command = ["tokenizer", "train", "text", "--out", str(out), "--vocabulary-size", "12000"]
    made = time.monotonic()  # it shows no sign of what it does
    begun = lambda said: time.monotonic() - made > 4.0  # noqa: E731
    return Command(command, begun, (out / "tokenizer.json").exists, continues=False)


def frame_tokenizer(folder: Path, run: TinyRun) -> Command:
    out = folder / "frames"
    command = ["tokenizer", "train", "frames", "--out", str(out), "--task", "atari/Pong",
               "--frames-per-task", "300", "--steps", "30"]  # fmt: skip
    done = any_below(out, "*.safetensors")
    return Command(command, lambda said: "%|" in said, lambda: done(""), continues=False)


def quickstart(folder: Path, run: TinyRun) -> Command:
    out = folder / "quickstart"
    command = ["quickstart", "--smoke", "--output", str(out), "--workers", "2"]
    done = any_below(out, "report.html")
    return Command(command, any_below(out, "dataset.json"), lambda: done(""))


COMMANDS = {
    "collect": collecting,
    "train": training,
    "dagger": correcting,
    "rollout": acting,
    "evaluate": evaluating,
    "import": importing,
    "expert train": learning,
    "tokenizer train text": text_tokenizer,
    "tokenizer train frames": frame_tokenizer,
    "quickstart": quickstart,
}


def check_what_is_said(command: Command, said: str) -> None:
    """One sentence on how to go on, and nothing that looks like a crash."""
    assert "Traceback" not in said, said
    forced = "what had not ended after" in said
    again = "again to continue" if command.continues else "begins anew"
    scored = "episodes are scored" in said  # of a rollout
    assert again in said or "same command" in said or scored or forced, said


# A pool, helpers, films, and another library's loop; the others in the slow tests.
FAST = ("collect", "train", "rollout", "expert train")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in COMMANDS]
)
def test_once_it_has_begun(name: str, tiny_run: TinyRun, tmp_path: Path) -> None:
    command = COMMANDS[name](tmp_path, tiny_run)
    said = tmp_path / "said.txt"
    number = BOTH[list(COMMANDS).index(name) % 2]
    with running(command.arguments, said) as process:
        wait_for(process, command.begun, said)
        # Other tests run beside this one, so only the slow test says how many seconds it may take.
        end(process, number, said, PATIENCE_SECONDS)
        assert process.returncode == 130, said.read_text()
        check_what_is_said(command, said.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH, ids=lambda number: number.name)
@pytest.mark.parametrize("name", COMMANDS)
def test_at_any_moment(
    name: str, number: signal.Signals, tiny_run: TinyRun, tmp_path: Path
) -> None:
    """Twenty times, each somewhere in what the command takes; then it is run to its end."""
    (tmp_path / "measured").mkdir()
    (tmp_path / "interrupted").mkdir()
    said = tmp_path / "said.txt"
    measured = COMMANDS[name](tmp_path / "measured", tiny_run)
    began = time.monotonic()
    with running(measured.arguments, said) as process:
        assert process.wait(PATIENCE_SECONDS) == 0, said.read_text()
    takes = time.monotonic() - began
    assert measured.finished()

    command = COMMANDS[name](tmp_path / "interrupted", tiny_run)
    moments = random.Random(0)
    for _ in range(TIMES):
        with running(command.arguments, said) as process:
            try:
                process.wait(moments.uniform(0.0, 0.9 * takes))
            except subprocess.TimeoutExpired:
                end(process, number, said, limit())
                # At once is before the command has heard of anything; then it has done nothing.
                assert process.returncode in (130, -number, 0), said.read_text()
            else:
                assert process.returncode == 0, said.read_text()  # it had less left to do
    with running(command.arguments, said) as process:
        assert process.wait(PATIENCE_SECONDS) == 0, said.read_text()
    assert command.finished()
