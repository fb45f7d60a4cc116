"""A checkpoint through a suite: several tasks at a time, one file a result.

    OUT/results/gym-CartPole-v1.json             unprompted: what `rollout` returns, and how it ran
    OUT/results/gym-CartPole-v1.prompted.json    with demonstrations at the head of the window
    OUT/results/text-pydoc.json                  bits per byte
    OUT/videos/*.mp4

A result is written when its task is done, so the same evaluation continues after an interruption;
a result of other weights or settings is measured anew. Each task is acted in by one process with
one thread: small models gain nothing from threads, and an episode comes out the same.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from generalist.envs import get_task, is_document_task
from generalist.errors import GeneralistError, MissingPackageError, UsageError
from generalist.evaluation.suite import Evaluation, Job, Result, Suite, jobs, load_suite
from generalist.processes import process_pool, usable_cpus
from generalist.shards.files import read_json, write_json

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

RESULTS, VIDEOS = "results", "videos"
OnResult = Callable[[int, int, Result, bool], None]


def evaluate(
    checkpoint: str | Path,
    suite: Suite | str | Path,
    out: str | Path,
    name: str = "",
    on_result: OnResult | None = None,
    progress: bool = True,
    workers: int | None = None,
) -> Evaluation:
    """Measure a checkpoint in every task of a suite, and keep each result below `out`.

    suite: or its name or path, as `generalist evaluate` takes it.
    on_result: called with (number, of how many, result, whether it was there already).
    workers: processes; None takes one a CPU, up to 1 acts in this process.
    Patterns of the suite stand for tasks the checkpoint was trained on, unless the suite says
    otherwise. Raises KeyboardInterrupt when interrupted; what was finished by then is kept.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if not isinstance(suite, Suite):
        name, suite = name or Path(suite).stem, load_suite(suite)
    suite = suite.for_checkpoint(checkpoint_tasks(checkpoint))
    work = list(jobs(suite))
    agent = _load(checkpoint, suite)
    weights = weights_fingerprint(checkpoint)
    settings = {job.file: _settings(suite, job, weights, agent) for job in work}
    found: dict[str, Result] = {}

    def take(job: Job, result: Result, there: bool) -> None:
        found[job.file] = result
        if on_result is not None:
            on_result(len(found), len(work), result, there)

    (out / RESULTS).mkdir(parents=True, exist_ok=True)
    for job in work:
        result = _finished(out / RESULTS / job.file, settings[job.file])
        if result is not None:
            take(job, result, True)
    left = [job for job in work if job.file not in found]
    workers = min(usable_cpus() if workers is None else workers, len(left))
    if workers > 1:
        results = _side_by_side(checkpoint, suite, left, out, progress, workers)
    else:
        results = _one_by_one(agent, suite, left, out, progress)
    with closing(results):
        for job, result in results:
            result["settings"] = settings[job.file]
            write_json(out / RESULTS / job.file, result)
            take(job, result, False)
    return Evaluation(name, str(checkpoint), [found[job.file] for job in work])


def _load(checkpoint: Path, suite: Suite) -> Agent:
    """An agent for any task of the suite; those unknown to it get the layout of their spaces."""
    from generalist.acting.agent import Agent

    known = checkpoint_tasks(checkpoint)
    first = suite.tasks[0].task
    return Agent.from_pretrained(
        checkpoint,
        task=first if first in known else known[0],
        device="cpu",  # one of several processes
        temperature=suite.temperature,
    )


def _one_by_one(
    agent: Agent, suite: Suite, work: Sequence[Job], out: Path, progress: bool
) -> Generator[tuple[Job, Result], None, None]:
    """Results of the jobs in their order, each with a bar of its own."""
    for job in work:
        yield job, measure(agent, suite, job, out, progress)


def _side_by_side(
    checkpoint: Path, suite: Suite, work: Sequence[Job], out: Path, progress: bool, workers: int
) -> Generator[tuple[Job, Result], None, None]:
    """Results as they come, of the jobs that may take longest first."""
    longest = sorted(work, key=_most_steps, reverse=True)
    bar = tqdm(total=len(work), desc="evaluate", unit="result", disable=not progress, leave=False)
    try:
        with bar, process_pool(workers, _start_worker, (checkpoint, suite, out)) as pool:
            running = {pool.submit(_measure_here, job): job for job in longest}
            for future in as_completed(running):
                result = future.result()
                bar.update()
                bar.clear()  # for what the caller says of it
                yield running[future], result
                bar.refresh()
    except BrokenProcessPool as error:
        raise GeneralistError(
            "A process in which the model acted ended before it was done; perhaps memory ran out. "
            "What was finished is kept, and the same command continues; --workers 1 needs least."
        ) from error


def _most_steps(job: Job) -> int:
    limit = job.entry.max_steps or get_task(job.entry.task).max_steps
    return job.episodes * limit


_here: tuple[Agent, Suite, Path] | None = None  # what a worker process keeps from job to job


def _start_worker(checkpoint: Path, suite: Suite, out: Path) -> None:
    import torch
    from transformers.utils import logging

    global _here
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    _here = _load(checkpoint, suite), suite, out


def _measure_here(job: Job) -> Result:
    assert _here is not None
    agent, suite, out = _here
    try:
        return measure(agent, suite, job, out, progress=False)
    except GeneralistError as error:  # of a kind, and with arguments, that survive the way back
        kind = UsageError if isinstance(error, UsageError) else GeneralistError
        raise kind(str(error)) from None


def _finished(path: Path, settings: dict[str, Any]) -> Result | None:
    """The result at `path`, if it is whole and of these settings."""
    if not path.exists():
        return None
    try:
        result = read_json(path)
    except GeneralistError:
        return None
    return result if result.get("settings") == settings else None


def _settings(suite: Suite, job: Job, weights: str, agent: Agent) -> dict[str, Any]:
    """What a result depends on."""
    settings: dict[str, Any] = {"weights": weights, "options": job.entry.env_options}
    if is_document_task(job.entry.task):
        return settings
    sampling = asdict(agent.sampling_in(job.entry.task))
    settings |= {"episodes": job.episodes, "seed": suite.seed, "sampling": sampling}
    settings["metric"] = get_task(job.entry.task).metric
    return settings | ({"prompts": suite.prompts} if job.prompted else {})


def measure(agent: Agent, suite: Suite, job: Job, out: Path, progress: bool) -> Result:
    """One result, with the seconds it took, and whether the agent was never trained on the task.

    "skipped" says why there is none where a package is missing or, zero-shot, the task is not one
    that this model can act in.
    """
    began = time.monotonic()
    zero_shot = job.entry.task not in agent.layouts and not is_document_task(job.entry.task)
    try:
        result = _act(agent, suite, job, out, progress)
    except GeneralistError as error:
        if not (zero_shot or isinstance(error, MissingPackageError)):
            raise
        reason = str(error).rstrip(".")
        result = {"task": job.entry.task, "prompted": job.prompted, "skipped": reason}
    return result | {"zero_shot": zero_shot, "seconds": time.monotonic() - began}


def _act(agent: Agent, suite: Suite, job: Job, out: Path, progress: bool) -> Result:
    task = job.entry.task
    if is_document_task(task):
        from generalist.evaluation.documents import score_documents

        return score_documents(agent, task, suite.text_tokens)
    from generalist.acting.prompts import DemonstrationTooLong
    from generalist.acting.rollout import rollout

    film = suite.videos and not job.prompted
    options = job.entry.env_options
    try:
        result = rollout(
            agent,
            task,
            episodes=job.episodes,
            seed=suite.seed,
            num_envs=suite.envs,
            prompt_episodes=suite.prompts if job.prompted else 0,
            video_dir=out / VIDEOS if film else None,
            progress=progress,
            **options,
        )
    except DemonstrationTooLong as error:
        return {"task": task, "prompted": True, "skipped": error.reason}
    if result.interrupted:
        raise KeyboardInterrupt
    return {**result.to_dict(), "max_steps": options.get("max_steps")}


def checkpoint_tasks(checkpoint: Path) -> list[str]:
    """Names of the tasks a checkpoint was trained on; GeneralistError where it is none."""
    path = checkpoint / "generalist" / "layouts.json"
    if not path.exists():
        raise GeneralistError(
            f"{checkpoint} is not a checkpoint to act with: generalist/layouts.json is missing. "
            "Expected the folder that `generalist train` prints at its end."
        )
    return sorted(read_json(path))


def weights_fingerprint(checkpoint: Path) -> str:
    """16 hex digits over the weights of a checkpoint."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint.glob("*.safetensors")):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
