"""Pools of processes: what is started in each, and what becomes of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from generalist.processes import PATIENCE_SECONDS, process_pool, usable_cpus

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
    assert process.exitcode == -signal.SIGKILL


def draw_and_sleep(begun: Path) -> None:
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    import pygame

    pygame.display.init()  # with which SDL asks for SIGTERM
    pygame.display.set_mode((8, 8))
    sleep_once_begun(begun)


def start_another_and_sleep(begun: Path) -> None:
    """As ViZDoom's engine is started: it does not notice that nobody talks to it any more."""
    subprocess.Popen(["sh", "-c", "sleep 600 & wait"])
    sleep_once_begun(begun)


def hold_the_interpreter(begun: Path) -> None:
    begun.touch()
    sum(range(10**14))  # no other thread of the process runs meanwhile


def fail() -> None:
    raise ValueError("a fault in a worker")


@pytest.mark.parametrize(
    "job",
    [sleep_once_begun, draw_and_sleep, start_another_and_sleep, hold_the_interpreter],
)
@pytest.mark.parametrize("by", ["an interruption", "a fault in a worker"])
def test_whatever_a_process_does_it_ends_in_time(tmp_path: Path, job: Any, by: str) -> None:
    before = set(multiprocessing.active_children())
    others = set(psutil.Process().children(recursive=True))  # of other tests in this process
    with pytest.raises((KeyboardInterrupt, ValueError)), process_pool(2) as pool:
        pool.submit(job, tmp_path / "begun")
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        children = psutil.Process().children(recursive=True)
        children = [each for each in children if each not in others]
        started = [each for each in children if "resource_tracker" not in str(each.cmdline())]
        if by == "an interruption":
            began = time.monotonic()
            raise KeyboardInterrupt
        fault = pool.submit(fail)
        fault.exception()
        began = time.monotonic()
        fault.result()
    assert time.monotonic() - began < limit()
    assert not set(multiprocessing.active_children()) - before
    assert not psutil.wait_procs(started, timeout=limit())[1]


PARENT = """
import sys, time
from pathlib import Path
from generalist.processes import process_pool
from tests.test_processes import draw_and_sleep

if __name__ == "__main__":
    with process_pool(2) as pool:
        for name in "ab":
            pool.submit(draw_and_sleep, Path(sys.argv[1], name))
        time.sleep(600)
"""


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """Also where that is killed, and can tell them nothing."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, script, tmp_path], env=environment)
    while not all((tmp_path / name).exists() for name in "ab"):
        time.sleep(0.05)
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs(children, timeout=limit())[1]


STUBBORN = """
import sys, time
from generalist.processes import ending_in_time

with ending_in_time(130):
    if sys.argv[1] == "obedient":
        print("begun", flush=True)
        time.sleep(600)
    while True:
        try:
            print("begun", flush=True)
            time.sleep(600)
        except KeyboardInterrupt:
            pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["obedient", "stubborn"])
def test_a_command_ends_in_time_whatever_it_does(number: signal.Signals, kind: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, kind],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    began = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    took = time.monotonic() - began
    assert took < limit()
    if kind == "obedient":
        assert "KeyboardInterrupt" in said and took < PATIENCE_SECONDS
    else:
        assert process.returncode == 130 and "what had not ended" in said


def limit() -> float:
    """Five seconds of a machine that has a CPU for each process that wants one."""
    return 5.0 * max(1.0, os.getloadavg()[0] / usable_cpus())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone can bind a process")
def test_only_cpus_that_may_be_used_are_counted() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert usable_cpus() == len(allowed)
