"""Collection on a real Ray of two workers writes the bytes that collection here writes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from generalist.collecting.collect import collect
from generalist.errors import GeneralistError, MissingPackageError, UsageError
from generalist.shards.reader import TaskData
from tests.collecting.test_collect import TOY, bytes_below, classic, processor, toy

__all__ = ["processor"]


def ray_players() -> list[int]:
    """Processes of this test's Ray that play or have played."""
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # one that was killed
            if "ray::run_on_ray" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def waited_for_players() -> list[int]:
    """The players as soon as there are any: Ray may just be about to start them."""
    end = time.monotonic() + 60
    while not (found := ray_players()):
        assert time.monotonic() < end, "Ray started no player"
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_ray_writes_the_same_bytes_also_where_workers_are_killed(
    tmp_path: Path, processor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    killed: list[int] = []

    def kill_players(task: str, done: int, total: int) -> None:
        if done in (5, 25):
            killed.append(len(players := waited_for_players()))
            for pid in players[: len(killed)]:  # one, then both
                os.kill(pid, signal.SIGKILL)

    spec = toy(60, options={"seconds": 0.05})
    collect(spec, tmp_path / "here", 0, progress=False, processor=processor)
    report = collect(
        spec, tmp_path / "ray", 2, progress=False, on_progress=kill_players,
        processor=processor, ray="local",
    )  # fmt: skip
    assert len(killed) == 2 and min(killed) >= 1
    assert report.tasks[TOY].added == 60 and not report.failures
    assert bytes_below(tmp_path / "ray") == bytes_below(tmp_path / "here")

    spec = classic(4)
    collect(spec, tmp_path / "here2", 0, progress=False, processor=processor)
    collect(spec, tmp_path / "ray2", 2, progress=False, processor=processor, ray="local")
    assert bytes_below(tmp_path / "ray2") == bytes_below(tmp_path / "here2")
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_job_that_ends_every_ray_worker_is_an_error_that_keeps_what_was_played(
    tmp_path: Path, processor: str
) -> None:
    spec = toy(30, options={"dies_at": 20})
    with pytest.raises(GeneralistError, match="A collecting process ended while playing"):
        collect(spec, tmp_path, 2, progress=False, processor=processor, ray="local")
    seeds = [record["seed"] for record in TaskData(tmp_path / TOY).records]
    assert seeds == list(range(20))


def test_a_cluster_that_is_not_there_or_not_asked_well(tmp_path: Path, processor: str) -> None:
    with pytest.raises(GeneralistError, match="'127.0.0.1:1' cannot be reached"):
        collect(toy(1), tmp_path, progress=False, processor=processor, ray="127.0.0.1:1")
    with pytest.raises(UsageError, match="leave workers out"):
        collect(toy(1), tmp_path, 2, progress=False, processor=processor, ray="127.0.0.1:1")


def test_without_the_extra_it_is_named(
    tmp_path: Path, processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"\[ray\]"):
        collect(toy(1), tmp_path, progress=False, processor=processor, ray="local")
