"""`collect`: play every task of a dataset spec, several processes side by side.

The processes play and encode. This process writes in the order of the seeds, so the bytes on disk
do not depend on the number of processes. Interrupted at any point, the same call continues: seeds
that are in the manifest are not played again.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generalist.collecting.pools import Pool, open_pool
from generalist.collecting.worker import CollectJob, CollectResult, TaskOpening
from generalist.errors import GeneralistError, UsageError, needing
from generalist.shards.files import DiskFull, write_json
from generalist.shards.manifest import DatasetHeader, Manifest
from generalist.shards.shards import ShardWriter
from generalist.tokenization.layout import Layout
from generalist.tokenization.use import CodeUse
from generalist.windows.spec import DatasetSpec, TaskSpec, load_dataset_spec

DOCUMENTS_PER_JOB = 64
FAILURES = "failures.json"
OnProgress = Callable[[str, int, int], None]


@dataclass
class TaskOutcome:
    """The outcome of one task in this call.

    Attributes:
        episodes: how many the folder holds, those of earlier calls included.
        added: how many this call has added.
        rejected: seeds left out for good: a return below the spec's `min_return`, an empty
            document.
        failures: one sentence for each episode that failed. They also stand in failures.json beside
            the shards until the next call, which tries them again.
        losses: one sentence for each field whose ids, in the added episodes, say too little.
    """

    episodes: int = 0
    added: int = 0
    rejected: int = 0
    failures: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Number of failures."""
        return len(self.failures)


@dataclass
class CollectReport:
    """The outcome of each task, and how long the call took, in seconds."""

    tasks: dict[str, TaskOutcome] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failures(self) -> list[str]:
        """One sentence for each episode that failed, with task and seed."""
        return [failure for outcome in self.tasks.values() for failure in outcome.failures]

    @property
    def losses(self) -> list[str]:
        """One sentence a field whose ids say too little of its values, with the task."""
        return [
            f"{task}: {loss}" for task, outcome in self.tasks.items() for loss in outcome.losses
        ]


@dataclass
class _Plan:
    """The seeds of a task that are still to be played.

    Attributes:
        spec, task: the dataset, and the task of it.
        folder: of the task's shards.
        done: seeds that are not played again, when this was planned.
        episodes_there, shards_there: how many the folder held then.
        documents: how many a document task has; None until that is known.
        before: layout whose backgrounds are taken: the folder's, of a new one that of another
            dataset; None where there is neither.
        layout: of a timestep; None until the task was opened.
        opening: what a worker says of the task; None until it was opened.
    """

    spec: DatasetSpec
    task: TaskSpec
    folder: Path
    done: set[int] = field(default_factory=set)
    episodes_there: int = 0
    shards_there: int = 0
    documents: int | None = None
    before: Layout | None = None
    layout: Layout | None = None
    opening: TaskOpening | None = None

    @classmethod
    def make(
        cls, spec: DatasetSpec, task: TaskSpec, root: Path, fingerprints: Any, like: Path | None
    ) -> _Plan:
        folder = root / task.task
        if not (folder / "dataset.json").exists():
            other = None if like is None else like / task.task
            if other is None or not (other / "dataset.json").exists():
                return cls(spec, task, folder)
            return cls(spec, task, folder, before=DatasetHeader.read(other).parts(other)[0])
        header = DatasetHeader.read(folder)
        header.check(folder, *fingerprints)
        _check_same(folder, header.collection, spec.collection_of(task))
        manifest = Manifest.read(folder)
        return cls(
            spec,
            task,
            folder,
            done=_seeds_done(folder, manifest),
            episodes_there=manifest.counts()["episodes"],
            shards_there=len(manifest.shards),
            documents=header.collection.get("documents"),
            before=header.parts(folder)[0],
        )

    @property
    def finished(self) -> bool:
        """True where it is known without opening the task that nothing is left to do."""
        known = not self.task.is_document or self.documents is not None
        return known and not any(True for _ in self.jobs())

    def jobs(self) -> Iterator[CollectJob]:
        """The jobs that are left, in the order of the seeds."""
        if self.task.is_document:
            there = self.documents or 0
            numbers = range(min(there, self.task.episodes or there))
            left = (number for number in numbers if number not in self.done)
            while batch := tuple(itertools.islice(left, DOCUMENTS_PER_JOB)):
                yield CollectJob(self.task, batch[0], documents=batch)
            return
        for index in range(self.task.episodes or 0):
            seed = self.spec.first_seed + index
            if seed not in self.done:
                noise, delay = self.spec.noise_of(self.task, index), self.task.delay_of(index)
                yield CollectJob(self.task, seed, noise, delay, layout=self.layout)


def _seeds_done(folder: Path, manifest: Manifest) -> set[int]:
    """Seeds (of documents: numbers) that need not be played: written, or left out for good."""
    played = {r["seed"] for r in manifest.records(folder) if r.get("source") == "expert"}
    return played | {int(seed) for seed in manifest.rejected}


def _check_same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to mix episodes of two ways of collecting in one folder."""
    learned = {"documents"}  # of the task, when it was opened
    for key in sorted(wanted.keys() | found.keys() - learned):
        if found.get(key) != wanted.get(key):
            raise GeneralistError(
                f"{folder} was collected with {key} {found.get(key)!r}, the spec now says "
                f"{wanted.get(key)!r}; choose another folder, or delete this one to collect it "
                "again."
            )


def collect(
    spec: DatasetSpec | str | Path,
    root: str | Path,
    workers: int | None = None,
    *,
    progress: bool = True,
    on_progress: OnProgress | None = None,
    processor: str | None = None,
    like: str | Path | None = None,
    ray: str | None = None,
) -> CollectReport:
    """Play the episodes of a spec that are not yet below `root`, and store the spec there.

    Each task has its own folder. Ctrl-C keeps the episodes that were played so far.

    Args:
        spec: tasks, episodes, noise and weights; or its name or path, as `generalist collect`
            takes it.
        root: folder of the dataset, made where it does not exist.
        workers: processes; None takes one a CPU, 0 plays in this process.
        progress: show a bar on stderr.
        on_progress: called with (task, episodes done, episodes in all) after each episode.
        processor: folder of the processor to encode with; by default what the spec says.
        like: folder of another dataset, whose backgrounds of frames are taken in place of new ones,
            so that both go into one mixture.
        ray: address of a Ray cluster that plays in place of processes here; see `open_pool`.

    Returns:
        The outcome of each task; an episode that fails is counted and reported there.

    Raises:
        GeneralistError: a task cannot be collected at all, or its folder is damaged or was
            collected in another way.
        UsageError: the spec is wrong.
    """
    from generalist.tokenization.processor import load_processor

    began = time.monotonic()
    if not isinstance(spec, DatasetSpec):
        spec = load_dataset_spec(spec)
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    loaded = load_processor(processor or spec.processor)
    fingerprints = loaded.vocabulary.fingerprint, loaded.fingerprint
    other = None if like is None else Path(like)
    plans = [_Plan.make(spec, task, root, fingerprints, other) for task in spec.tasks]
    report = CollectReport({p.task.task: TaskOutcome(p.episodes_there) for p in plans})
    open_plans = [plan for plan in plans if not plan.finished]
    if open_plans:
        with open_pool(loaded, workers, ray=ray) as pool:
            _open(open_plans, pool)
            spec.write(root)
            _run(open_plans, pool, report, _Bar(open_plans, progress, on_progress))
    else:
        spec.write(root)  # the weights may have changed
    report.seconds = time.monotonic() - began
    return report


def _open(plans: list[_Plan], pool: Pool) -> None:
    """Learn the header of every task before any is played, so that mistakes show at once."""
    try:
        openings = [pool.open(p.task, p.spec.collection_of(p.task), p.before) for p in plans]
        with needing("Writing shards"):
            import webdataset  # noqa: F401 - takes seconds, and now this process only waits

        for plan, opening in zip(plans, openings, strict=True):
            plan.opening = opening.result()
            if plan.opening.failure is not None:
                kind = UsageError if plan.opening.usage else GeneralistError
                raise kind(plan.opening.failure)
            plan.documents = plan.opening.documents
            assert plan.opening.header is not None
            plan.layout = plan.opening.header.parts(plan.folder)[0]
    except pool.lost as error:
        raise GeneralistError(
            "The collecting processes did not start, or ended while opening the tasks, perhaps "
            "for lack of memory: try fewer workers. A script that calls collect has to do so "
            'below `if __name__ == "__main__":`.'
        ) from error


def _run(plans: list[_Plan], pool: Pool, report: CollectReport, bar: _Bar) -> None:
    """Play all jobs and write the results task by task."""
    jobs = ((plan, job) for plan in plans for job in plan.jobs())
    results = _in_order(jobs, pool)
    empty = []
    with contextlib.closing(bar):
        for plan in plans:
            outcome = report.tasks[plan.task.task]
            total = sum(1 for _ in plan.jobs())
            if not total:
                continue
            assert plan.opening is not None and plan.opening.header is not None
            sizes = {"block_tokens": plan.spec.block_tokens, "shard_tokens": plan.spec.shard_tokens}
            use = CodeUse()
            with ShardWriter(plan.folder, plan.opening.header, **sizes) as writer:
                elsewhere: set[int] = set()  # done by another process since the jobs were planned
                if len(writer.manifest.shards) > plan.shards_there:
                    elsewhere = _seeds_done(plan.folder, writer.manifest)
                for _ in range(total):
                    job, result = next(results)
                    _write(writer, result, outcome, elsewhere=elsewhere)
                    use.add(result.use)
                    bar.advance(plan.task.task, job.episodes)
                outcome.episodes = writer.episodes_written
            outcome.losses = use.losses()
            _note_failures(plan.folder, outcome.failures)
            if not outcome.episodes:
                reason = f" The first failure: {outcome.failures[0]}" if outcome.failures else ""
                empty.append(f"No episode of {plan.task.task} could be kept.{reason}")
    if empty:  # said when all that can be had is there
        raise GeneralistError(" ".join(empty))


def _note_failures(folder: Path, failures: list[str]) -> None:
    path = folder / FAILURES
    if failures:
        write_json(path, failures)
    else:
        path.unlink(missing_ok=True)


def _write(
    writer: ShardWriter, result: CollectResult, outcome: TaskOutcome, *, elsewhere: set[int]
) -> None:
    """Keep what a job yielded, but for what another process has written."""
    outcome.failures += result.failures
    for seed, reason in result.rejections.items():
        outcome.rejected += 1
        writer.reject(seed, reason)
    for episode in result.episodes:
        if episode.record["seed"] in elsewhere:
            continue
        try:
            writer.add(episode)
        except DiskFull:
            raise
        except GeneralistError as error:
            outcome.failures.append(str(error))
        else:
            outcome.added += 1


def _in_order(
    jobs: Iterable[tuple[_Plan, CollectJob]], pool: Pool
) -> Iterator[tuple[CollectJob, CollectResult]]:
    """Results in the order of the jobs, with a bounded number of them under way."""
    waiting: deque[tuple[CollectJob, Future[CollectResult]]] = deque()
    remaining = iter(jobs)
    while True:
        try:
            while len(waiting) < pool.jobs_ahead and (entry := next(remaining, None)) is not None:
                job = entry[1]
                waiting.append((job, pool.run(job)))
            if not waiting:
                return
            job, future = waiting.popleft()
            result = future.result()
        except pool.lost as error:
            raise GeneralistError(
                f"A collecting process ended while playing {job.task.task} (seed {job.seed} or "
                "near it), perhaps for lack of memory; what was finished is kept. Run the same "
                "command again, perhaps with fewer workers."
            ) from error
        yield job, result


class _Bar:
    """Progress over all episodes of a call."""

    def __init__(self, plans: list[_Plan], show: bool, on_progress: OnProgress | None) -> None:
        self._plans, self._show, self._on_progress = plans, show, on_progress
        self._bar: Any = None
        self._done = self._total = 0

    def advance(self, task: str, episodes: int) -> None:
        """Count episodes that were played."""
        from tqdm import tqdm

        if self._bar is None:  # only now are all tasks open, and the number of documents known
            jobs = (job for plan in self._plans for job in plan.jobs())
            self._total = sum(job.episodes for job in jobs)
            self._bar = tqdm(total=self._total, unit="episode", disable=not self._show)
        self._done += episodes
        self._bar.set_description(task, refresh=False)
        self._bar.update(episodes)
        if self._on_progress is not None:
            self._on_progress(task, self._done, self._total)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
