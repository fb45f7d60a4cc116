"""Pools of processes: what is started in each, and what becomes of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from generalist.processes import process_pool, usable_cpus

_greeting = ""


def greet(greeting: str) -> None:
    global _greeting
    _greeting = greeting


def greeting_after_ctrl_c() -> tuple[int, str]:
    os.kill(os.getpid(), signal.SIGINT)
    return os.getpid(), _greeting


def sleep_once_begun(begun: Path) -> None:
    begun.touch()
    time.sleep(600)


def test_each_process_is_prepared_and_leaves_ctrl_c_to_its_parent() -> None:
    with process_pool(1, greet, ("hello",)) as pool:
        process, greeting = pool.submit(greeting_after_ctrl_c).result()
    assert greeting == "hello" and process != os.getpid()


def test_left_by_an_error_it_ends_what_is_running(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt), process_pool(1) as pool:
        pool.submit(sleep_once_begun, tmp_path / "begun")
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        (process,) = set(multiprocessing.active_children()) - before
        raise KeyboardInterrupt
    process.join(timeout=60)  # the job itself would take ten minutes
    assert process.exitcode == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone can bind a process")
def test_only_cpus_that_may_be_used_are_counted() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert usable_cpus() == len(allowed)
