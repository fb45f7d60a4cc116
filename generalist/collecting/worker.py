"""A collecting process: it plays episodes of given seeds and encodes them.

A job's result depends on the job alone, never on earlier jobs of the process. Errors come back as
words, because not every exception survives the way between processes.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.collecting.encode import encode_episode
from generalist.errors import GeneralistError, UsageError, in_words
from generalist.session import EpisodeError
from generalist.shards.manifest import DatasetHeader
from generalist.shards.shards import EncodedEpisode
from generalist.shards.spaces import space_to_json
from generalist.tokenization.use import CodeUse
from generalist.windows.spec import TaskSpec

if TYPE_CHECKING:
    from generalist.episode import Episode, Tree
    from generalist.tokenization.layout import Layout
    from generalist.tokenization.processor import GeneralistProcessor

FIT_EPISODES = 10
FIT_NOISE = 0.2
"""How many episodes, and how disturbed, bins are fitted to where a task asks for that."""


@dataclass(frozen=True)
class CollectJob:
    """Play one seed of a task, or read some of its documents.

    Attributes:
        task: how it is collected.
        seed: of the environment.
        noise: share of executed actions that are random.
        delay_steps: how late actions are executed.
        documents: numbers of the documents to read; empty where the task is an environment.
        layout: of the shards that the episodes go to; None for that of a new folder. What is fitted
            in it (bins, backgrounds) is so fitted once, not by each process.
    """

    task: TaskSpec
    seed: int = 0
    noise: float = 0.0
    delay_steps: int = 0
    documents: tuple[int, ...] = ()
    layout: Layout | None = None

    @property
    def episodes(self) -> int:
        """Episodes that it yields where nothing goes wrong."""
        return len(self.documents) if self.task.is_document else 1

    @property
    def name(self) -> str:
        """Task and seed, or documents, for errors."""
        if self.task.is_document:
            return f"{self.task.task}, documents {self.documents[0]} to {self.documents[-1]}"
        return f"{self.task.task}, seed {self.seed}"


@dataclass
class CollectResult:
    """The episodes of a job, and the reasons why others are missing.

    Attributes:
        episodes: to be written.
        use: how often each code of a field was used, to find fields of which too little is left.
        failures: one sentence for each episode that the next call tries again.
        rejections: seed -> reason, for episodes that are left out for good.
    """

    episodes: list[EncodedEpisode] = field(default_factory=list)
    use: CodeUse = field(default_factory=CodeUse)
    failures: list[str] = field(default_factory=list)
    rejections: dict[int, str] = field(default_factory=dict)


@dataclass
class TaskOpening:
    """The facts of a task before its first episode, or the reason why it cannot be collected.

    Attributes:
        header: of its dataset folder.
        documents: how many it has; 0 for an environment.
        failure: why it cannot be collected, in a sentence; None where it can.
        usage: True where the failure is the user's own wrong use.
    """

    header: DatasetHeader | None = None
    documents: int = 0
    failure: str | None = None
    usage: bool = False


class Worker:
    """Plays jobs; keeps the environment of the last task.

    Args:
        processor: encodes the episodes.
    """

    def __init__(self, processor: GeneralistProcessor) -> None:
        self.processor = processor
        self._task: TaskSpec | None = None
        self._env: Any = None
        self._layout: Any = None
        self._documents: dict[str, list[str]] = {}

    def open(
        self, task: TaskSpec, collection: dict[str, Any], before: Layout | None = None
    ) -> TaskOpening:
        """Header of a task, and how many documents it has.

        Args:
            task: how it is collected.
            collection: goes into the header.
            before: layout of the folder that is to be continued; its backgrounds are kept.
        """
        from generalist.experts import policy_named

        try:
            if task.is_document:
                layout, spaces = self.processor.document_layout(), {}
                documents = len(self._texts(task.task))
                collection = {**collection, "documents": documents}
            else:
                self._prepare(task, before=before)
                policy_named(task.task, task.expert, [self._env])  # wrong names are found here
                layout, documents = self._layout, 0
                spaces = {
                    "observation": space_to_json(self._env.observation_space),
                    "action": space_to_json(self._env.action_space),
                }
        except GeneralistError as error:
            return TaskOpening(failure=str(error), usage=isinstance(error, UsageError))
        except (Exception, SystemExit) as error:
            return TaskOpening(failure=f"{task.task} cannot be opened: {_in_words(error)}")
        vocabulary, fingerprint = self.processor.vocabulary, self.processor.fingerprint
        header = DatasetHeader.create(
            task.task, layout, vocabulary, fingerprint, spaces, collection
        )
        return TaskOpening(header, documents)

    def run(self, job: CollectJob) -> CollectResult:
        """Do one job; an error of the environment or of the expert becomes a failure in words."""
        try:
            return self._read(job) if job.task.is_document else self._play(job)
        except (Exception, SystemExit) as error:  # an environment may call sys.exit
            self._close()
            if isinstance(error, EpisodeError):  # says task, seed and step
                return CollectResult(failures=[str(error)])
            return CollectResult(failures=[f"{job.name}: {_in_words(error)}"])

    def _play(self, job: CollectJob) -> CollectResult:
        task = job.task
        self._prepare(task, job.layout)
        episode = self._episode(task, job.seed, job.noise, job.delay_steps)
        if task.min_return is not None and episode.return_ < task.min_return:
            reason = f"return {episode.return_:.6g} is below {task.min_return:.6g}"
            return CollectResult(rejections={job.seed: reason})
        encoded = encode_episode(episode, self.processor, self._layout)
        return CollectResult([encoded], CodeUse.of(episode, encoded.tokens, self._layout))

    def _read(self, job: CollectJob) -> CollectResult:
        """Encode documents; one that fails costs no other."""
        result = CollectResult()
        texts = self._texts(job.task.task)
        for number in job.documents:
            try:
                ids = self.processor.encode_text(texts[number])
            except Exception as error:
                result.failures.append(f"{job.task.task}, document {number}: {_in_words(error)}")
                continue
            if not len(ids):
                result.rejections[number] = "the document is empty"
                continue
            record = {"seed": number, "source": "expert", "instruction": None}
            record |= {"terminated": True, "truncated": False}
            result.episodes.append(EncodedEpisode(ids, np.zeros(len(ids)), None, record))
        return result

    def _texts(self, task: str) -> list[str]:
        from generalist.envs.text import documents

        if task not in self._documents:
            self._documents[task] = list(documents(task))
        return self._documents[task]

    def _prepare(
        self, task: TaskSpec, layout: Layout | None = None, *, before: Layout | None = None
    ) -> None:
        """Have the environment of the task ready, and its layout where it is not given."""
        from generalist.envs import make

        if self._task == task:
            return
        self._close()
        self._env = make(task.task, **task.options)
        self._layout = layout or self._new_layout(task, before)
        self._task = task

    def _new_layout(self, task: TaskSpec, before: Layout | None) -> Layout:
        from generalist.envs import make

        spaces = self._env.observation_space, self._env.action_space
        fit_to = self._observations(task) if task.bins == "quantiles" else ()
        try:
            return self.processor.layout(
                *spaces,
                task=task.task,
                fit_to=fit_to,
                play=functools.partial(make, task.task, **task.options),
                before=before,
            )
        except UsageError as error:
            if not fit_to:
                raise
            raise UsageError(f"{task.task} cannot have bins {task.bins}: {error}") from None

    def _observations(self, task: TaskSpec) -> list[Tree]:
        """What bins are fitted to."""
        seeds = range(FIT_EPISODES)
        return [self._episode(task, seed, FIT_NOISE).observations for seed in seeds]

    def _episode(self, task: TaskSpec, seed: int, noise: float, delay_steps: int = 0) -> Episode:
        """An episode of the task in this process's environment."""
        from generalist.experts import demonstrate, policy_named

        return demonstrate(
            policy_named(task.task, task.expert, [self._env]),
            self._env,
            task.task,
            seed,
            noise=noise,
            burst_steps=task.burst_steps,
            delay_steps=delay_steps,
            max_steps=task.max_steps,
        )

    def _close(self) -> None:
        env, self._env, self._task = self._env, None, None
        if env is not None:
            with contextlib.suppress(Exception):  # it is not needed any more
                env.close()


def _in_words(error: BaseException) -> str:
    """Message of an error, and where it was raised if it is not one of ours."""
    return str(error) if isinstance(error, GeneralistError) else f"{in_words(error)}."


_worker: Worker | None = None


def start_process(processor: GeneralistProcessor) -> None:
    """Initialise a collecting process, which has one thread.

    Args:
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


def run_in_process(job: CollectJob) -> CollectResult:
    """`Worker.run` of this process."""
    assert _worker is not None
    return _worker.run(job)


def open_in_process(
    task: TaskSpec, collection: dict[str, Any], before: Layout | None
) -> TaskOpening:
    """`Worker.open` of this process."""
    assert _worker is not None
    return _worker.open(task, collection, before)
