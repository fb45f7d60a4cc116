"""The jobs of a round: episodes of tasks, shared between all ranks, in parallel on each.

1. The main process lists the jobs.
2. Each rank takes the next free job whenever it has an idle process. On a GPU these processes act
   on the rank's GPU, else on a core each.
3. Each rank posts the outcomes of its jobs to all ranks, which poll for them. So no rank waits in
   the communication library, and all ranks go on, fail or stop together.
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
PROCESSES_ON_A_GPU = 4  # each has its own model and CUDA context
STOPPED = "stopped"


@dataclass(frozen=True)
class Job:
    """Episodes of one task, for a process that loads the model.

    Attributes:
        task: name of the task.
        play: plays the episodes with the agent, and returns the outcome for all ranks. It must be
            picklable: a function of a module, or a partial of one.
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
        find: lists the jobs; called on the main process.
        checkpoint: folder of the checkpoint that acts; all ranks see it.
        ranks: the processes of the run.
        processes: number of processes that this rank runs in parallel.
        stop: once it is raised on one rank, all ranks stop.
        tell: is called on all ranks with each job and its outcome, or a Problem where the job
            failed. It may raise a GeneralistError, which ends the round on all ranks.

    Returns:
        False on all ranks if one was stopped before it knew the last outcome.

    Raises:
        GeneralistError: `find` or `tell` raised it.
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
    """The number of processes of this rank that act in parallel.

    Args:
        ranks: the processes of the run.
        cores: the recipe's `cores`; None: all of the machine. The ranks of a machine share them.
    """
    share = (cores or usable_cpus()) // int(os.environ.get("LOCAL_WORLD_SIZE", ranks.count))
    return max(1, share if ranks.device.type == "cpu" else min(share, PROCESSES_ON_A_GPU))


class _Share:
    """The jobs that one rank plays."""

    _jobs: Sequence[Job]
    _board: Board
    _pool: ProcessPoolExecutor
    _processes: int
    _checkpoint: Path
    _device: str
    _running: dict[Future[Any], int]  # number of the job
    _more: bool  # whether there may be free jobs

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
        """Begin free jobs, one for each idle process."""
        while self._more and len(self._running) < self._processes:
            number = self._board.take()
            self._more = number < len(self._jobs)
            if self._more:
                self._running[self._begin(self._jobs[number])] = number

    def post_what_ended(self) -> None:
        """Wait at most POLL_SECONDS, and post the outcomes of the jobs that have ended."""
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
