"""What a collecting process does: play episodes of given seeds and encode them.

A job's result depends on the job alone, never on what the process did before. Errors come back
as words, because not every exception survives the way between processes.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.collecting.encode import encode_episode
from generalist.errors import GeneralistError, UsageError
from generalist.shards.manifest import DatasetHeader
from generalist.shards.shards import EncodedEpisode
from generalist.shards.spaces import space_to_json
from generalist.windows.spec import TaskSpec

if TYPE_CHECKING:
    from generalist.tokenization.layout import Layout
    from generalist.tokenization.processor import GeneralistProcessor

FIT_EPISODES = 10
FIT_NOISE = 0.2
"""How many episodes, and how disturbed, bins are fitted to where a task asks for that."""


@dataclass(frozen=True)
class Job:
    """Play one seed of a task (documents: take those from `index` up to `stop`)."""

    task: TaskSpec
    index: int
    seed: int = 0
    noise: float = 0.0
    stop: int = 0


@dataclass
class Result:
    """Episodes of a job, or why there are none."""

    episodes: list[EncodedEpisode] = field(default_factory=list)
    failure: str | None = None
    rejection: str | None = None


@dataclass
class Opening:
    """What is known of a task before its first episode, or why it cannot be collected."""

    header: DatasetHeader | None = None
    documents: int = 0
    failure: str | None = None
    usage: bool = False


class Worker:
    """Plays jobs; keeps the environment of the last task."""

    def __init__(self, processor: GeneralistProcessor) -> None:
        self.processor = processor
        self._task: TaskSpec | None = None
        self._env: Any = None
        self._layout: Any = None
        self._documents: dict[str, list[str]] = {}

    def open(self, task: TaskSpec, collection: dict[str, Any]) -> Opening:
        """Header of a task, and how many documents it has."""
        try:
            if task.is_document:
                layout, spaces = self.processor.document_layout(), {}
                documents = len(self._texts(task.task))
                collection = {**collection, "documents": documents}
            else:
                self._prepare(task)
                _expert(task)
                layout, documents = self._layout, 0
                spaces = {
                    "observation": space_to_json(self._env.observation_space),
                    "action": space_to_json(self._env.action_space),
                }
        except GeneralistError as error:
            return Opening(failure=str(error), usage=isinstance(error, UsageError))
        except Exception as error:
            return Opening(failure=f"{task.task} cannot be opened: {_in_words(error)}")
        vocabulary, fingerprint = self.processor.vocabulary, self.processor.fingerprint
        header = DatasetHeader.create(
            task.task, layout, vocabulary, fingerprint, spaces, collection
        )
        return Opening(header, documents)

    def run(self, job: Job) -> Result:
        """Do one job; what the environment or the expert raises becomes a failure in words."""
        try:
            return self._read(job) if job.task.is_document else self._play(job)
        except Exception as error:
            self._close()
            return Result(failure=f"{job.task.task}, seed {job.seed}: {_in_words(error)}")

    def _play(self, job: Job) -> Result:
        from generalist.experts.collect import collect_episode

        task = job.task
        self._prepare(task)
        episode = collect_episode(
            self._env,
            task.task,
            _expert(task),
            job.seed,
            noise=job.noise,
            burst_steps=task.burst_steps,
            max_steps=task.max_steps,
        )
        if task.min_return is not None and episode.return_ < task.min_return:
            return Result(rejection=f"return {episode.return_:.6g} is below {task.min_return:.6g}")
        return Result([encode_episode(episode, self.processor, self._layout)])

    def _read(self, job: Job) -> Result:
        result = Result()
        texts = self._texts(job.task.task)
        for index in range(job.index, job.stop):
            ids = self.processor.encode_text(texts[index])
            if len(ids):
                record = {"seed": index, "source": "expert", "instruction": None}
                record |= {"terminated": True, "truncated": False}
                result.episodes.append(EncodedEpisode(ids, np.zeros(len(ids)), None, record))
        return result

    def _texts(self, task: str) -> list[str]:
        from generalist.envs.text import documents

        if task not in self._documents:
            self._documents[task] = list(documents(task))
        return self._documents[task]

    def _prepare(self, task: TaskSpec) -> None:
        """Have the environment of the task ready."""
        from generalist.envs import make

        if self._task == task:
            return
        self._close()
        self._env = make(task.task, **task.options)
        self._layout = self.processor.layout(
            self._env.observation_space, self._env.action_space, background=task.task
        )
        if task.bins == "quantiles":
            self._layout = self._fitted(task)
        self._task = task

    def _fitted(self, task: TaskSpec) -> Layout:
        """The layout with bins fitted to the task: in every process the same, without talking."""
        from generalist.experts.collect import collect_episode
        from generalist.tokenization.fit_quantiles import fit_quantiles

        episodes = (
            collect_episode(
                self._env,
                task.task,
                _expert(task),
                seed,
                noise=FIT_NOISE,
                burst_steps=task.burst_steps,
                max_steps=task.max_steps,
            )
            for seed in range(FIT_EPISODES)
        )
        observations = [episode.observations for episode in episodes]
        try:
            return fit_quantiles(self._layout, observations)
        except GeneralistError as error:
            raise UsageError(f"{task.task} cannot have bins {task.bins}: {error}") from None

    def _close(self) -> None:
        self._task = None
        if self._env is not None:
            self._env.close()
            self._env = None


def _expert(task: TaskSpec) -> Any:
    from generalist.experts.collect import RandomPolicy
    from generalist.experts.registry import get_expert

    return RandomPolicy() if task.expert == "random" else get_expert(task.task, task.expert)


def _in_words(error: Exception) -> str:
    """Message of an error, and where it was raised if it is not one of ours."""
    if isinstance(error, GeneralistError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return f"{type(error).__name__}: {error} ({where})"


_worker: Worker | None = None


def start_process(processor: GeneralistProcessor) -> None:
    """Initialise a collecting process, which has one thread.

    processor: the parent's own; read anew, it could fail, or by then be another.
    """
    single_threaded()
    global _worker
    _worker = Worker(processor)


def single_threaded() -> None:
    """Give this process one thread: others play beside it."""
    import torch

    torch.set_num_threads(1)
    with contextlib.suppress(ModuleNotFoundError):  # it is for images alone
        import cv2

        cv2.setNumThreads(1)


def run_in_process(job: Job) -> Result:
    """`Worker.run` of this process."""
    assert _worker is not None
    return _worker.run(job)


def open_in_process(task: TaskSpec, collection: dict[str, Any]) -> Opening:
    """`Worker.open` of this process."""
    assert _worker is not None
    return _worker.open(task, collection)
