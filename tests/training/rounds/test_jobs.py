"""Jobs of a round: shared by all ranks, however long they take; failures and a stop reach all."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from generalist.errors import UsageError
from generalist.training.ranks import Problem, Ranks
from generalist.training.rounds import jobs as module
from generalist.training.rounds.jobs import Job, play_jobs, processes_for
from generalist.training.strategies.launch import StopSignal
from tests.conftest import TinyRun
from tests.training.two_ranks import LIMIT_SECONDS, on_two_ranks

TASK = "gym/CartPole-v1"


def play(agent, *, number: int, seconds: float = 0.0) -> tuple[int, int, str, str]:
    time.sleep(seconds)
    return number, os.getppid(), agent.task, str(agent.model.device)


def fail(agent) -> None:
    raise UsageError("there is no such expert")


def die(agent) -> None:
    os._exit(9)


def played(checkpoint: Path, jobs: list[Job], stop: StopSignal | None = None):
    """Whether all jobs were played, and what was told of them, in the order in which they ended."""
    told = []

    def tell(job: Job, outcome: object) -> None:
        assert job.task == TASK
        told.append(outcome)

    ranks = Ranks(Accelerator(cpu=True))
    complete = play_jobs(
        lambda: jobs, checkpoint, ranks=ranks, processes=1, stop=stop or StopSignal(), tell=tell
    )
    return complete, told, ranks


@pytest.fixture
def checkpoint(tiny_run: TinyRun) -> Path:
    return tiny_run.checkpoint


def test_what_fails_is_told_and_the_rest_is_played(checkpoint):
    jobs = [Job(TASK, partial(play, number=0)), Job(TASK, fail), Job(TASK, partial(play, number=2))]
    complete, told, _ = played(checkpoint, jobs)
    assert complete and told == [
        (0, os.getpid(), TASK, "cpu"),
        Problem("there is no such expert", wrong_use=True),
        (2, os.getpid(), TASK, "cpu"),
    ]


def test_a_process_that_ends_is_told_and_no_job_is_waited_for(checkpoint):
    complete, told, _ = played(checkpoint, [Job(TASK, die), Job(TASK, partial(play, number=1))])
    assert complete and len(told) == 2
    assert all("ended before it was done" in outcome.message for outcome in told)


def share(rank: int, checkpoint: Path) -> dict[str, object]:
    jobs = [Job(TASK, partial(play, number=n, seconds=LIMIT_SECONDS * 2 * n)) for n in range(2)]
    complete, told, ranks = played(checkpoint, jobs)
    found: dict[str, object] = {"complete": complete, "told": told, "sum": ranks.sum([1.0])}

    # A stop on one rank ends the round on both, in the middle of what they do.
    stop = StopSignal()
    stop.raised = rank == 1
    began = time.monotonic()
    endless = Job(TASK, partial(play, number=0, seconds=300))
    found["stopped"] = not played(checkpoint, [endless], stop)[0]
    found["seconds"] = time.monotonic() - began
    found["pid"] = os.getpid()
    return found


@pytest.mark.slow
def test_two_ranks_share_the_jobs_and_wait_longer_than_collectives_do(checkpoint):
    one, other = on_two_ranks(share, checkpoint)
    assert one["complete"] and other["complete"]
    assert one["told"] == other["told"] and [number for number, *_ in one["told"]] == [0, 1]
    assert {parent for _, parent, *_ in one["told"]} == {one["pid"], other["pid"]}
    assert one["sum"] == other["sum"] == [2.0], "the ranks went on apart"
    assert one["stopped"] and other["stopped"] and max(one["seconds"], other["seconds"]) < 60


@pytest.mark.parametrize(
    ("cpus", "cores", "local", "device", "expected"),
    [
        (16, None, 1, "cpu", 16),
        (16, None, 8, "cpu", 2),
        (16, 4, 1, "cpu", 4),
        (2, None, 8, "cpu", 1),
        (16, None, 1, "cuda", 4),
        (16, None, 8, "cuda", 2),
    ],
)
def test_ranks_of_a_machine_share_its_cores(monkeypatch, cpus, cores, local, device, expected):
    monkeypatch.setattr(module, "usable_cpus", lambda: cpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    ranks = Ranks(Accelerator(cpu=True))
    ranks.device = torch.device(device)
    assert processes_for(ranks, cores) == expected
