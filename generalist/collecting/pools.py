"""Pools that play the jobs of `collect`: this process, several beside it, or a Ray cluster.

A job's result depends on the job alone, so any process may play it, and another one may play it
again where a process was lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Protocol

from generalist.clusters import joined
from generalist.collecting.worker import (
    CollectJob,
    CollectResult,
    TaskOpening,
    Worker,
    open_in_process,
    run_in_process,
    single_threaded,
    start_process,
)
from generalist.errors import UsageError
from generalist.processes import process_pool, usable_cpus
from generalist.windows.spec import TaskSpec

if TYPE_CHECKING:
    from generalist.tokenization.layout import Layout
    from generalist.tokenization.processor import GeneralistProcessor

_JOBS_AHEAD = 16  # a process; bounds what waits in memory behind a slow episode
_RETRIES = 3  # of a job whose Ray worker was lost; one that kills every worker is not tried forever


class Pool(Protocol):
    """Processes that play jobs.

    Attributes:
        jobs_ahead: how many jobs may be under way at once.
        lost: kinds of error that a future raises where the process that played has ended.
    """

    jobs_ahead: int
    lost: tuple[type[BaseException], ...]

    def open(
        self, task: TaskSpec, collection: dict[str, Any], before: Layout | None
    ) -> Future[TaskOpening]:
        """`Worker.open`, somewhere."""

    def run(self, job: CollectJob) -> Future[CollectResult]:
        """`Worker.run`, somewhere."""


def open_pool(
    processor: GeneralistProcessor, workers: int | None = None, *, ray: str | None = None
) -> contextlib.AbstractContextManager[Pool]:
    """A pool, which ends at once when its context is left by an error.

    Args:
        processor: encodes the episodes.
        workers: processes; None takes one a CPU, 0 plays in this process.
        ray: address of a Ray cluster, `auto` for the one running here, `local` for one of its own
            with `workers` processes.

    Raises:
        GeneralistError: the Ray cluster cannot be reached.
        UsageError: workers are given for a cluster that has its own.
        MissingPackageError: Ray is not installed.
    """
    if ray is not None:
        return _on_ray(processor, ray, workers)
    workers = usable_cpus() if workers is None else workers
    return _in_processes(processor, workers) if workers > 0 else _here(processor)


class _Here:
    """Jobs are played when they are handed in."""

    jobs_ahead = 1
    lost: tuple[type[BaseException], ...] = ()

    def __init__(self, processor: GeneralistProcessor) -> None:
        self._worker = Worker(processor)

    def open(
        self, task: TaskSpec, collection: dict[str, Any], before: Layout | None
    ) -> Future[TaskOpening]:
        return _done(self._worker.open(task, collection, before))

    def run(self, job: CollectJob) -> Future[CollectResult]:
        return _done(self._worker.run(job))


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


@contextlib.contextmanager
def _here(processor: GeneralistProcessor) -> Iterator[Pool]:
    yield _Here(processor)


class _Processes:
    """Jobs are played by processes of this machine."""

    lost: tuple[type[BaseException], ...] = (BrokenProcessPool, BrokenPipeError)

    def __init__(self, executor: ProcessPoolExecutor, workers: int) -> None:
        self._executor, self.jobs_ahead = executor, _JOBS_AHEAD * workers

    def open(
        self, task: TaskSpec, collection: dict[str, Any], before: Layout | None
    ) -> Future[TaskOpening]:
        return self._executor.submit(open_in_process, task, collection, before)

    def run(self, job: CollectJob) -> Future[CollectResult]:
        return self._executor.submit(run_in_process, job)


@contextlib.contextmanager
def _in_processes(processor: GeneralistProcessor, workers: int) -> Iterator[Pool]:
    preload = ("torch", "generalist.collecting.worker")
    with process_pool(workers, start_process, (processor,), preload=preload) as executor:
        yield _Processes(executor, workers)


class _Ray:
    """Jobs are played by a Ray cluster, and again where a worker of it was lost."""

    def __init__(self, processor: GeneralistProcessor, cpus: int) -> None:
        import ray

        self.jobs_ahead = _JOBS_AHEAD * cpus
        self.lost: tuple[type[BaseException], ...] = (ray.exceptions.RayError,)
        # In a list, Ray hands on the reference, and a process fetches the processor once.
        self._processor = [ray.put(processor)]
        options = ray.remote(num_cpus=1, max_retries=_RETRIES)
        self._open, self._run = options(open_on_ray), options(run_on_ray)

    def open(
        self, task: TaskSpec, collection: dict[str, Any], before: Layout | None
    ) -> Future[TaskOpening]:
        return self._open.remote(self._processor, task, collection, before).future()

    def run(self, job: CollectJob) -> Future[CollectResult]:
        return self._run.remote(self._processor, job).future()


@contextlib.contextmanager
def _on_ray(processor: GeneralistProcessor, address: str, workers: int | None) -> Iterator[Pool]:
    own = address == "local"
    if workers is not None and not own:
        raise UsageError(
            f"The Ray cluster {address} has the workers it has; leave workers out, or say "
            "`local` for a Ray of your own."
        )
    if workers == 0:
        raise UsageError("Ray needs at least 1 worker, got 0.")
    with joined(address, processes=workers, purpose="Collecting on a Ray cluster") as cpus:
        yield _Ray(processor, cpus)


_on_ray_worker: Worker | None = None  # of this process, which serves one collection


def _worker(processor: list[Any]) -> Worker:
    global _on_ray_worker
    if _on_ray_worker is None:
        import ray

        single_threaded()
        _on_ray_worker = Worker(ray.get(processor[0]))
    return _on_ray_worker


def run_on_ray(processor: list[Any], job: CollectJob) -> CollectResult:
    """`Worker.run` of a Ray process."""
    return _worker(processor).run(job)


def open_on_ray(
    processor: list[Any], task: TaskSpec, collection: dict[str, Any], before: Layout | None
) -> TaskOpening:
    """`Worker.open` of a Ray process."""
    return _worker(processor).open(task, collection, before)
