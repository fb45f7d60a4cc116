"""Two processes that meet over gloo, each a rank, for what one process cannot show."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from torch import distributed

LIMIT_SECONDS = 3.0  # after which a rank that waits in a collective gives up
WAIT_SECONDS = 240.0  # for an answer


def on_two_ranks(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(rank, *arguments)` returns on each of two ranks; an exception as its text.

    `work` is a function of a module. Collectives have a time limit of three seconds.
    """
    port = _free_port()
    context = get_context("spawn")
    pipes, processes = [], []
    for rank in range(2):
        mine, theirs = context.Pipe()
        process = context.Process(target=_be_rank, args=(rank, port, theirs, work, arguments))
        process.start()
        pipes.append(mine)
        processes.append(process)
        theirs.close()
    try:
        return [pipe.recv() if pipe.poll(WAIT_SECONDS) else "no answer" for pipe in pipes]
    finally:
        for process in processes:
            process.join(timeout=20)
            process.kill()


def _be_rank(
    rank: int, port: int, answer: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    limit = timedelta(seconds=LIMIT_SECONDS)
    distributed.init_process_group("gloo", rank=rank, world_size=2, timeout=limit)
    try:
        answer.send(work(rank, *arguments))
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}")
    distributed.barrier()  # the store of rank 0 must not end before rank 1 has


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
