"""Work in several processes side by side, none of which outlives it, and commands that end in time.

A process of a pool watches a pipe whose other end only its parent has. So it ends with its parent,
however that ends, and no library in it can catch what ends it. It is a process group of its own, so
that what it has started itself, such as the engine of a game, ends with it.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.context import (
    ForkServerContext,
    ForkServerProcess,
    SpawnContext,
    SpawnProcess,
)
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

GRACE_SECONDS = 1.0
"""What the processes of a pool have to end by themselves before they are killed."""
PATIENCE_SECONDS = 4.0
"""What a command has to end by itself after Ctrl-C or SIGTERM."""


def usable_cpus() -> int:
    """CPUs this process may run on, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def process_pool(
    workers: int,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
    *,
    preload: Iterable[str] = (),
) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes. Left by an error, it ends them in the middle of what they do.

    Args:
        workers: How many processes, at least one.
        start: Called with `arguments` in each process before its first job.
        arguments: What `start` is called with; they have to be picklable.
        preload: Modules that are imported once for all, in a server that the processes fork from.
    """
    others = set(multiprocessing.active_children())
    context: Any = _ForkServer() if preload else _Spawn()
    if preload:
        context.set_forkserver_preload(list(preload))
    alive, ours = context.Pipe(duplex=False)
    beginning = (alive, start, arguments)
    pool = ProcessPoolExecutor(max(1, workers), context, _begin, beginning)
    try:
        yield pool
    except BaseException:
        ours.close()  # tells them all
        pool.shutdown(wait=False, cancel_futures=True)
        _see_end(set(multiprocessing.active_children()) - others)
        raise
    else:
        pool.shutdown()
    finally:
        alive.close()
        ours.close()


@contextlib.contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started here never hear Ctrl-C, which a terminal sends to all.

    They inherit it from their first instruction on. Here it is heard right afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _SpawnProcess(SpawnProcess):
    def start(self) -> None:
        with deaf_to_ctrl_c():
            super().start()


class _ForkServerProcess(ForkServerProcess):
    def start(self) -> None:
        with deaf_to_ctrl_c():  # the server too, which the first one starts
            super().start()


class _Spawn(SpawnContext):
    Process = _SpawnProcess


class _ForkServer(ForkServerContext):
    Process = _ForkServerProcess


def _see_end(processes: Iterable[BaseProcess]) -> None:
    """Wait for processes to end, and kill those that do not in time."""
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        _join(process, deadline)
        if process.is_alive() and process.pid:  # in a call that lets no other thread run
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()  # where it has not come to be a group yet
            _join(process, time.monotonic() + GRACE_SECONDS)


def _join(process: BaseProcess, deadline: float) -> None:
    """Wait until a process has ended and is known to have.

    The pool's own thread waits for it too. Where that one hears of the end, `join` returns here
    before the process says that it is not alive.
    """
    process.join(max(0.0, deadline - time.monotonic()))
    while process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)


def _begin(
    alive: Connection, start: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    os.setpgrp()
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent(alive: Connection) -> None:
    wait([alive])  # nothing is ever sent: it becomes readable when the other end closes
    os.killpg(0, signal.SIGKILL)  # at once: it cannot start anything meanwhile


@contextlib.contextmanager
def ending_in_time(code: int) -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into KeyboardInterrupt, and end the process if that does not.

    For the main thread of a command. `PATIENCE_SECONDS` after the first signal the process ends
    with exit code `code`, whatever it does, what it has started too.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    timers: list[threading.Timer] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not timers:
            timer = threading.Timer(PATIENCE_SECONDS, _end_all, (code,))
            timer.daemon = True
            timer.start()
            timers.append(timer)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_all(code: int) -> None:
    with contextlib.suppress(Exception):
        for pid in _descendants(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        seconds = f"{PATIENCE_SECONDS:g} s"
        print(f"\nInterrupted; what had not ended after {seconds} was ended.", file=sys.stderr)
        sys.stderr.flush()
    os._exit(code)


def _descendants(pid: int) -> list[int]:
    """What a process has started, and what these have, but for Python's own helpers (Linux)."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if b"multiprocessing" in (folder / "cmdline").read_bytes():
                continue  # they end with this one, and tidy up
            # `pid (name) state parent ...`, and the name may hold anything
            said = (folder / "stat").read_text(errors="replace")
            children.setdefault(int(said.rpartition(")")[2].split()[1]), []).append(
                int(folder.name)
            )
    found = list(children.get(pid, ()))
    for child in found:  # grows as it goes
        found += children.get(child, ())
    return found


def exit_at_once(code: int) -> NoReturn:
    """Exit with what was registered for it done, but without taking every module apart.

    That takes seconds once torch is loaded.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
