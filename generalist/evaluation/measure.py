"""A checkpoint through a suite: several tasks at a time, one file a result.

    OUT/results/gym-CartPole-v1.json             unprompted: what `rollout` returns, and how it ran
    OUT/results/gym-CartPole-v1.prompted.json    with demonstrations at the head of the window
    OUT/results/babyai-GoToLocal.shuffled.json   with the instructions of other episodes
    OUT/results/text-pydoc.json                  bits per byte
    OUT/videos/*.mp4
    OUT/errors/*.txt                             the traceback of what failed

A result is written when its task is done, so the same evaluation continues after an interruption.
A result of other weights, settings or an older protocol is measured anew. What fails is named in
the report and tried again by the next evaluation; the rest goes on. One process with one thread
acts in each task: small models gain nothing from threads, and an episode comes out the same.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from generalist.envs import get_task, is_document_task
from generalist.envs.instructions import OWN, NothingToShuffle
from generalist.errors import GeneralistError, MissingPackageError, in_words
from generalist.evaluation.speaking import speaking_of
from generalist.evaluation.suite import Evaluation, Job, Result, Suite, jobs, load_suite
from generalist.processes import process_pool, usable_cpus
from generalist.session import EpisodeError
from generalist.shards.files import read_json, write_json

if TYPE_CHECKING:
    from generalist.acting.agent import Agent
    from generalist.acting.retrieval import Retrieval

RESULTS, VIDEOS, ERRORS = "results", "videos", "errors"
# Raised whenever the same settings come to give other results, or results with more in them.
PROTOCOL = 3
OnResult = Callable[[int, int, Result, bool], None]


@dataclass(frozen=True)
class Measurement:
    """What all jobs of an evaluation share; a process makes its agent from it.

    Attributes:
        checkpoint: its folder.
        suite: written out for the checkpoint.
        out: folder of results, videos and errors.
        device: on which the model acts, as torch names it.
        dtype: of the weights while it acts.
        progress: whether a bar is shown for each task.
        plan: how the model plans; None: it acts at once.
        wanted_return: what is asked for in every task; None for nothing.
        retrieval: demonstrations that are retrieved from in every task; None for none.
    """

    checkpoint: Path
    suite: Suite
    out: Path
    device: str = "cpu"
    dtype: str = "float32"
    progress: bool = False
    plan: str | None = None
    wanted_return: str | None = None
    retrieval: Retrieval | None = None

    def agent(self) -> Agent:
        """An agent for any task of the suite; unknown ones get the layout of their spaces."""
        from generalist.acting.agent import Agent

        known = checkpoint_tasks(self.checkpoint)
        first = self.suite.tasks[0].task
        return Agent.from_pretrained(
            self.checkpoint,
            task=first if first in known else known[0],
            temperature=self.suite.temperature,
            guidance=self.suite.guidance,
            device=self.device,
            dtype=self.dtype,
        )


def evaluate(
    checkpoint: str | Path,
    suite: Suite | str | Path,
    out: str | Path,
    *,
    name: str = "",
    on_result: OnResult | None = None,
    progress: bool = True,
    workers: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    plan: str | None = None,
    wanted_return: str | None = None,
    retrieval: Retrieval | None = None,
) -> Evaluation:
    """Measure a checkpoint in every task of a suite, and keep each result below `out`.

    Patterns of the suite stand for tasks the checkpoint was trained on, unless the suite says
    otherwise.

    Args:
        checkpoint: its folder.
        suite: what is measured, or its name or path as `generalist evaluate` takes it.
        out: folder of the results.
        name: of the suite.
        on_result: called with (number, of how many, result, whether it was there already).
        progress: whether bars are shown.
        workers: processes; None takes one a CPU, up to 1 acts in this process.
        device: on which the model acts, as torch names it.
        dtype: of the weights while it acts.
        plan: how the model plans, as `rollout` takes it; None: it acts at once.
        wanted_return: what is asked for in every task, as `rollout` takes it; None for nothing.
        retrieval: what is retrieved in every task, as `rollout` takes it; None for nothing.

    Raises:
        GeneralistError: the checkpoint cannot be loaded.
        MissingPackageError: the suite asks for videos, and a package that films is missing.
        UsageError: a plan is given, and it is not for a task of the suite, or the checkpoint
            cannot plan so.
        KeyboardInterrupt: the user stopped; what was finished by then is kept.
    """
    from generalist.acting.plans import check_plan, parse_plan
    from generalist.acting.video import check_packages

    checkpoint, out = Path(checkpoint), Path(out)
    if not isinstance(suite, Suite):
        name, suite = name or Path(suite).stem, load_suite(suite)
    if suite.videos:
        check_packages()
    suite = suite.for_checkpoint(checkpoint_tasks(checkpoint))
    work = list(jobs(suite))
    parsed = None if plan is None else parse_plan(plan)
    plan = None if parsed is None else str(parsed)
    asked = plan, wanted_return, retrieval
    shared = Measurement(checkpoint, suite, out, device, dtype, progress, *asked)
    agent = shared.agent()
    if parsed is not None:
        named = [entry.task for entry in suite.tasks]
        check_plan(parsed, agent, [task for task in named if not is_document_task(task)])
    weights = weights_fingerprint(checkpoint)
    settings = {job.file: _settings(shared, job, weights, agent) for job in work}
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
        measured = _side_by_side(shared, left, workers)
    else:
        measured = ((job, measure(agent, shared, job)) for job in left)
    with closing(measured):
        for job, result in measured:
            result = {**result, **job.facts, "settings": settings[job.file]}
            if "failed" not in result:
                write_json(out / RESULTS / job.file, result)
            take(job, result, False)
    results = [found[job.file] for job in work]
    return Evaluation(name, str(checkpoint), results, teachers_of(checkpoint))


def _side_by_side(
    shared: Measurement, work: Sequence[Job], workers: int
) -> Generator[tuple[Job, Result], None, None]:
    """Results as they come, of the jobs that may take longest first.

    When a process dies, nobody says over which job. Those that may have been running are tried
    again, each alone in a process of its own; over which that one dies too, that has failed.
    """
    left = sorted(work, key=_most_steps, reverse=True)
    bar = tqdm(
        total=len(work), desc="evaluate", unit="result", disable=not shared.progress, leave=False
    )
    with bar:
        while left:
            done = set()
            for job, result in _in_pool(shared, left, workers):
                done.add(job.file)
                bar.update()
                bar.clear()  # for what the caller says of it
                yield job, result
                bar.refresh()
            left = [job for job in left if job.file not in done]
            suspects, left = left[: workers + 1], left[workers + 1 :]
            for job in suspects:
                alone = list(_in_pool(shared, [job], 1))
                bar.update()
                yield alone[0] if alone else (job, {"failed": _DIED})


_DIED = "the process that acted in it died, alone too; perhaps memory ran out"


def _in_pool(
    shared: Measurement, work: Sequence[Job], workers: int
) -> Generator[tuple[Job, Result], None, None]:
    """Results as they come; there are no more once a process has died."""
    try:
        with process_pool(workers, _start_worker, (shared,)) as pool:
            running = {pool.submit(_measure_here, job): job for job in work}
            for future in as_completed(running):
                yield running[future], future.result()
    except BrokenProcessPool:
        return


def _most_steps(job: Job) -> int:
    limit = job.entry.max_steps or get_task(job.entry.task).max_steps
    return job.episodes * limit


_here: tuple[Agent, Measurement] | None = None  # what a worker process keeps from job to job


def _start_worker(shared: Measurement) -> None:
    import torch
    from transformers.utils import logging

    global _here
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    _here = shared.agent(), replace(shared, progress=False)


def _measure_here(job: Job) -> Result:
    assert _here is not None
    return measure(*_here, job)


def _finished(path: Path, settings: dict[str, Any]) -> Result | None:
    """The result at `path`, if it is whole and of these settings."""
    if not path.exists():
        return None
    try:
        result = read_json(path)
    except GeneralistError:
        return None
    return result if result.get("settings") == settings else None


def _settings(shared: Measurement, job: Job, weights: str, agent: Agent) -> dict[str, Any]:
    """What a result depends on; the device changes it by rounding alone."""
    suite, task = shared.suite, job.entry.task
    settings: dict[str, Any] = {
        "protocol": PROTOCOL, "weights": weights, "dtype": shared.dtype,
        "options": job.entry.env_options, "window_tokens": agent.window_tokens,
    }  # fmt: skip
    if is_document_task(task):
        return settings
    if shared.plan is not None:
        settings["plan"] = shared.plan
    if (wanted := _wanted(shared, job)) is not None:
        settings["wanted_return"] = wanted
    if shared.retrieval is not None:
        found = {"demonstrations": shared.retrieval.fingerprint(task)}
        settings["retrieval"] = shared.retrieval.to_dict() | found
    settings |= {
        "episodes": job.episodes, "seed": suite.seed, "sampling": asdict(agent.sampling_in(task)),
        "context_steps": agent.context_steps, "guidance": agent.guidance,
        "metric": get_task(task).metric,
    }  # fmt: skip
    return settings | ({"prompts": suite.prompts} if job.shows else {})


def measure(agent: Agent, shared: Measurement, job: Job) -> Result:
    """One result, with the seconds it took, and whether the agent was never trained on the task.

    "skipped" says why there can be none: a package is missing or, zero-shot, this model cannot act
    in the task. "failed" says what went wrong, and the traceback lies below `out`/errors.
    """
    began = time.monotonic()
    zero_shot = job.entry.task not in agent.layouts and not is_document_task(job.entry.task)
    try:
        result = _act(agent, shared, job)
    except Exception as error:  # of an environment, a film, a package: it costs its own task alone
        cannot = isinstance(error, GeneralistError) and not isinstance(error, EpisodeError)
        if isinstance(error, MissingPackageError) or (zero_shot and cannot):
            result = {"skipped": str(error).rstrip(".")}
        else:
            reason = str(error) if isinstance(error, GeneralistError) else in_words(error)
            result = {"failed": reason.rstrip(".")}
            _keep_traceback(shared.out / ERRORS / f"{job.file.removesuffix('.json')}.txt")
    return {**result, **job.facts, "zero_shot": zero_shot, "seconds": time.monotonic() - began}


def _keep_traceback(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(traceback.format_exc(), encoding="utf-8")


def _act(agent: Agent, shared: Measurement, job: Job) -> Result:
    suite, task = shared.suite, job.entry.task
    if is_document_task(task):
        from generalist.evaluation.documents import score_documents

        return score_documents(agent, task, suite.text_tokens)
    from generalist.acting.prompts import DemonstrationTooLong
    from generalist.acting.rollout import rollout

    film = suite.videos and not job.prompted and job.asked is None and job.entry.instruction == OWN
    options = job.entry.env_options
    if job.asked is not None and task not in agent.returns:
        return {"skipped": "the checkpoint has no returns of this task"}
    try:
        result = rollout(
            agent,
            task,
            episodes=job.episodes,
            seed=suite.seed,
            num_envs=suite.envs,
            prompt_episodes=suite.prompts if job.shows else 0,
            video_dir=shared.out / VIDEOS if film else None,
            progress=shared.progress,
            plan=shared.plan,
            wanted_return=_wanted(shared, job),
            retrieval=shared.retrieval,
            **options,
        )
    except DemonstrationTooLong as error:
        return {"skipped": error.reason}
    except NothingToShuffle as error:
        return {"skipped": str(error).rstrip(".")}
    if result.interrupted:
        raise KeyboardInterrupt
    if job.asked is None:
        return result.to_dict() | speaking_of(agent, result, num_envs=suite.envs, **options)
    from generalist.acting.wanted import WantedReturn
    from generalist.tokenization.returns import TaskReturns

    returns = TaskReturns.from_dict(agent.returns[task])
    total = WantedReturn("percent", job.asked).total(returns)
    return {**result.to_dict(), "asked_return": total, "data_returns": list(returns.range)}


def _wanted(shared: Measurement, job: Job) -> str | None:
    """What a job asks for, as `rollout` takes it."""
    from generalist.acting.wanted import WantedReturn

    if (asked := job.asked) is not None:
        return str(WantedReturn("percent", asked))
    return shared.wanted_return


def checkpoint_tasks(checkpoint: Path) -> list[str]:
    """Names of the tasks a checkpoint was trained on; GeneralistError where it is none."""
    path = checkpoint / "generalist" / "layouts.json"
    if not path.exists():
        raise GeneralistError(
            f"{checkpoint} is not a checkpoint to act with: generalist/layouts.json is missing. "
            "Expected the folder that `generalist train` prints at its end."
        )
    return sorted(read_json(path))


def training_facts(checkpoint: Path) -> dict[str, Any]:
    """What training left in a checkpoint about itself; {} where it left nothing."""
    path = checkpoint / "generalist" / "training.json"
    return read_json(path) if path.exists() else {}


def teachers_of(checkpoint: Path) -> dict[str, str]:
    """By task who made the training data, as far as the checkpoint says.

    Experts of this package get their full name, a planner's with its budget. Others are names
    alone: nothing that a checkpoint names is imported.
    """
    from generalist.experts import expert_names, get_expert

    found = {}
    for task, name in (training_facts(checkpoint).get("experts") or {}).items():
        found[task] = name
        with suppress(GeneralistError):
            if "@" not in name and name in expert_names(task):
                found[task] = getattr(get_expert(task, name), "name", name)
    return found


def weights_fingerprint(checkpoint: Path) -> str:
    """16 hex digits over the weights of a checkpoint and all that acting reads beside them."""
    digest = hashlib.sha256()
    parts = (checkpoint / "generalist").rglob("*")
    files = [*checkpoint.glob("*.safetensors"), checkpoint / "config.json", *parts]
    for path in sorted(each for each in files if each.is_file()):
        digest.update(path.relative_to(checkpoint).as_posix().encode() + b"\0")
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
