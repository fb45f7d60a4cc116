"""The jobs of a round: what the model acts in, shared by all ranks, side by side on each.

1. The main process says which jobs there are.
2. Each rank takes the next job that nobody has, as long as it has a process free for it. On a GPU
   these processes act on the rank's own, else on a core each.
3. What came of a job is left for all ranks, which look for it now and then. So nobody waits inside
   the communication library, and all go on, fail or stop together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.errors import GeneralistError
from generalist.processes import process_pool, usable_cpus
from generalist.training.ranks import Board, Problem, Ranks
from generalist.training.strategies.launch import StopSignal

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

POLL_SECONDS = 0.2
PROCESSES_ON_A_GPU = 4  # each has a model and a context of CUDA of its own there
STOPPED = "stopped"


@dataclass(frozen=True)
class Job:
    """Episodes of one task, which a process acts with a model that it loads.

    Attributes:
        task: which.
        play: a function of a module, or a partial one; it gets the agent, and what it returns is
            the outcome of the job, which travels to all ranks.
    """

    task: str
    play: Callable[[Agent], Any]


def play_jobs(
    find: Callable[[], Sequence[Job]],
    checkpoint: Path,
    *,
    ranks: Ranks,
    processes: int,
    stop: StopSignal,
    tell: Callable[[Job, Any], None],
) -> bool:
    """Play jobs on all ranks, which call this together.

    Args:
        find: which jobs there are; asked on the main process.
        checkpoint: what acts, in a folder that all ranks see.
        ranks: those of the run.
        processes: how many this rank runs side by side.
        stop: where it is raised on one rank, all stop.
        tell: called on all ranks with each job and its outcome, a Problem where the job failed. It
            may raise a GeneralistError, which then ends the round on all.

    Returns:
        False on all ranks where one was stopped before it knew the last outcome.
    """
    jobs = ranks.on_main(find)
    board = ranks.board()
    unknown, read = list(range(len(jobs))), 0
    try:
        with process_pool(min(processes, len(jobs))) as pool:
            mine = _Share(
                jobs, board, pool,
                processes=processes, checkpoint=checkpoint, device=str(ranks.device),
            )  # fmt: skip
            while unknown:
                mine.take()
                mine.post_what_ended()
                if stop.raised:
                    board.post(STOPPED, True)
                if board.posted() == read:
                    continue
                read = board.posted()
                if board.has(STOPPED):
                    raise _Stopped
                for number in [number for number in unknown if board.has(str(number))]:
                    unknown.remove(number)
                    tell(jobs[number], board.read(str(number)))
    except _Stopped:
        complete = False
    else:
        complete = True
    # One rank may have seen the last outcome before another was asked to stop.
    return all(ranks.gather(complete))


def processes_for(ranks: Ranks, cores: int | None) -> int:
    """How many processes of this rank act side by side.

    cores: what the recipe gives a run; all of the machine's if it says nothing. Ranks of one
        machine share them.
    """
    share = (cores or usable_cpus()) // int(os.environ.get("LOCAL_WORLD_SIZE", ranks.count))
    return max(1, share if ranks.device.type == "cpu" else min(share, PROCESSES_ON_A_GPU))


class _Share:
    """What one rank plays of the jobs."""

    _jobs: Sequence[Job]
    _board: Board
    _pool: ProcessPoolExecutor
    _processes: int
    _checkpoint: Path
    _device: str
    _running: dict[Future[Any], int]  # which job
    _more: bool  # whether there may be jobs that nobody has

    def __init__(
        self,
        jobs: Sequence[Job],
        board: Board,
        pool: ProcessPoolExecutor,
        *,
        processes: int,
        checkpoint: Path,
        device: str,
    ) -> None:
        self._jobs, self._board, self._pool = jobs, board, pool
        self._processes, self._checkpoint, self._device = processes, checkpoint, device
        self._running, self._more = {}, True

    def take(self) -> None:
        """Begin jobs that no rank has, as many as there is room for."""
        while self._more and len(self._running) < self._processes:
            number = self._board.take()
            self._more = number < len(self._jobs)
            if self._more:
                self._running[self._begin(self._jobs[number])] = number

    def post_what_ended(self) -> None:
        """Wait a moment, and leave the outcomes of what has ended in it."""
        if not self._running:
            time.sleep(POLL_SECONDS)
            return
        for ended in wait(self._running, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done:
            number = self._running.pop(ended)
            try:
                outcome = ended.result()
            except BrokenProcessPool:
                outcome = Problem(
                    "A process in which the model acted ended before it was done; perhaps memory "
                    "ran out."
                )
            self._board.post(str(number), outcome)

    def _begin(self, job: Job) -> Future[Any]:
        try:
            return self._pool.submit(_act, job, self._checkpoint, self._device)
        except BrokenProcessPool as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed


class _Stopped(Exception):
    """The run was asked to stop while jobs were running."""


def _act(job: Job, checkpoint: Path, device: str) -> Any:
    """Play a job in this process."""
    import torch
    from transformers.utils import logging

    from generalist.acting.agent import Agent

    torch.set_num_threads(1)
    logging.disable_progress_bar()  # of a second of loading weights, in the middle of the run's own
    try:
        return job.play(Agent.from_pretrained(checkpoint, task=job.task, device=device))
    except GeneralistError as error:
        return Problem.of(error)
