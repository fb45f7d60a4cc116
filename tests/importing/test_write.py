"""An import that was interrupted continues: nothing twice, nothing lost, the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from generalist.errors import GeneralistError, UsageError
from generalist.importing.lerobot import LeRobotSource
from generalist.importing.source import Load, Recording
from generalist.importing.spaces import infer_spaces
from generalist.importing.write import import_source
from generalist.shards.index import INDEX
from generalist.shards.manifest import Manifest
from generalist.shards.reader import TaskData
from tests.importing.conftest import assert_same
from tests.importing.recorded import PENDULUM, lerobot_folder, played

EPISODES = 12
SHARD_TOKENS = 600  # about three episodes


class Stopping(LeRobotSource):
    """A source that is interrupted before an episode, in one of several ways."""

    at = 0
    error: type[BaseException] = KeyboardInterrupt

    def recordings(self, first: int) -> Iterator[Load]:
        for number, load in enumerate(super().recordings(first), first):
            if number == self.at:
                raise self.error("stopped")
            yield load


@pytest.fixture(scope="module")
def robot(tmp_path_factory) -> Path:
    return lerobot_folder(tmp_path_factory.mktemp("robot"), played(PENDULUM, EPISODES), 4)


def bytes_below(root: Path) -> dict[str, bytes]:
    """All files but the index, which whoever opens the folder first makes from the others."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != INDEX)
    return {path.name: path.read_bytes() for path in files}


def run(source: LeRobotSource, out: Path, processor: str, **options) -> None:
    import_source(source, "robot/p", out, processor=processor, progress=False,
                  shard_tokens=SHARD_TOKENS, **options)  # fmt: skip


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_anywhere_the_bytes_are_the_same(
    robot: Path, tmp_path: Path, processor: str, error: type[BaseException]
) -> None:
    run(LeRobotSource(robot), tmp_path / "whole", processor)
    assert len(Manifest.read(tmp_path / "whole/robot/p").shards) >= 3
    for at in (0, 3, 4, 8, 11):
        source = Stopping(robot)
        source.at, source.error = at, error
        with pytest.raises(error):
            run(source, tmp_path / "parts", processor)
        kept = TaskData(tmp_path / "parts/robot/p").records
        assert len(kept) <= at
    run(LeRobotSource(robot), tmp_path / "parts", processor)
    assert bytes_below(tmp_path / "parts") == bytes_below(tmp_path / "whole")
    assert_same(tmp_path / "parts/robot/p", processor, played(PENDULUM, EPISODES))


KILLED = """
import os, signal, sys
from pathlib import Path
from generalist.importing import write
from generalist.importing.lerobot import LeRobotSource
from tests.importing.test_write import run

class Killing(LeRobotSource):
    def recordings(self, first):
        for number, load in enumerate(super().recordings(first), first):
            if number == int(sys.argv[4]):
                os.kill(os.getpid(), signal.SIGKILL)
            yield load

run(Killing(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


def test_killed_it_continues(robot: Path, tmp_path: Path, processor: str) -> None:
    run(LeRobotSource(robot), tmp_path / "whole", processor)
    arguments = [str(robot), str(tmp_path / "parts"), processor, "8"]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert ended.returncode == -signal.SIGKILL
    there = len(TaskData(tmp_path / "parts/robot/p").records)
    assert 0 < there <= 8
    run(LeRobotSource(robot), tmp_path / "parts", processor)
    assert bytes_below(tmp_path / "parts") == bytes_below(tmp_path / "whole")


def test_a_second_import_adds_nothing_and_another_source_is_refused(
    robot: Path, tmp_path: Path, processor: str
) -> None:
    run(LeRobotSource(robot), tmp_path / "out", processor)
    before = bytes_below(tmp_path / "out")
    run(LeRobotSource(robot), tmp_path / "out", processor)
    assert bytes_below(tmp_path / "out") == before
    other = lerobot_folder(tmp_path / "other", played(PENDULUM, 2))
    with pytest.raises(GeneralistError, match="was made with dataset .* now it is 'other'"):
        run(LeRobotSource(other), tmp_path / "out", processor)


@pytest.mark.parametrize("task", ["Pendulum", "a/../b", "../x", "/x", "a//b", "a/", "a/.", "."])
def test_a_task_is_a_family_and_a_name(robot: Path, tmp_path: Path, task: str) -> None:
    with pytest.raises(UsageError, match="family/Name"):
        import_source(LeRobotSource(robot), task, tmp_path)


def test_inferred_spaces_hold_the_data() -> None:
    """Whatever the dtypes: each value is within the space that was made for it."""
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_):
        for shape in ((), (3,), (2, 2)):
            values = rng.integers(0, 2 if dtype is np.bool_ else 200, (20, *shape)).astype(dtype)
            parts = [values[:10], values[10:]]
            loads = [
                Load(partial(Recording, {"a": {"b": part}, "a/b": part}, part, np.zeros(10)))
                for part in parts
            ]
            observation, action = infer_spaces(enumerate(loads))
            assert set(observation.spaces) == {"a", "a/b"}, "a slash belongs to the name"
            for value in values:
                assert np.all(value == 0) or observation["a/b"].contains(_scalar(value))
                assert observation["a"]["b"] == observation["a/b"]
                assert action == observation["a/b"]


def _scalar(value: np.ndarray) -> object:
    if value.dtype == np.bool_:
        return value.astype(np.int8) if value.ndim else np.int64(value)
    return value
