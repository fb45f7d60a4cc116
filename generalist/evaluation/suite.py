"""Suites: which tasks a checkpoint is measured in, and the results, one file a task.

    OUT/results/gym-CartPole-v1.json             unprompted: what `rollout` returns, and how it ran
    OUT/results/gym-CartPole-v1.prompted.json    with demonstrations at the head of the window
    OUT/results/text-pydoc.json                  bits per byte
    OUT/videos/*.mp4

A result is written when its task is done, so the same evaluation continues after an interruption;
a result of other weights or settings is measured anew.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from generalist.data.files import read_json, write_json
from generalist.envs import get_task, is_document_task
from generalist.errors import GeneralistError
from generalist.evaluation.scores import TaskScore, score_task
from generalist.specs import find_spec, load_yaml

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

EVALUATION_SEED = 1_000_000  # data are collected with smaller ones
RESULTS, VIDEOS = "results", "videos"
Result = dict[str, Any]


class SuiteTask(BaseModel):
    """A task of a suite; what is left out is taken from the suite."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    task: str
    """family/Name."""
    episodes: int | None = Field(default=None, ge=1)
    """Episodes without a prompt."""
    prompted_episodes: int | None = Field(default=None, ge=0)
    """Episodes that begin with a demonstration; 0 leaves them out. Skipped, with the reason in the
    report, where not one timestep of a demonstration fits into its part of the window."""
    max_steps: int | None = Field(default=None, ge=1)
    """Truncate episodes there, below the task's own limit. The scores of random and expert, and so
    what is normalised by them, stay those of whole episodes."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of the environment, as `generalist.make` takes them."""

    @property
    def env_options(self) -> dict[str, Any]:
        """What `generalist.make` is given for the task."""
        cut = {} if self.max_steps is None else {"max_steps": self.max_steps}
        return {**self.options, **cut}


class Suite(BaseModel):
    """What is measured; the first lines of each file are the command that runs it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    tasks: list[SuiteTask] = Field(min_length=1)
    """Names of tasks, or names with settings of their own."""
    episodes: int = Field(default=20, ge=1)
    """Episodes of each task without a prompt."""
    prompted_episodes: int = Field(default=20, ge=0)
    """Episodes of each task that begin with a demonstration; 0 leaves them out."""
    prompts: int = Field(default=4, ge=1)
    """Demonstrations the prompted episodes take in turn."""
    seed: int = Field(default=EVALUATION_SEED, ge=0)
    """Environment seed of the first episode; those of the data are smaller."""
    envs: int | None = Field(default=None, ge=1)
    """Episodes side by side; changes only the speed."""
    temperature: float | None = Field(default=None, ge=0)
    """Of the sampling of actions; 0 takes the likeliest. Left out: as the checkpoint's recipe
    says, task by task."""
    videos: bool = True
    """Whether the first episode of each task is filmed, where the machine can render it."""
    text_tokens: int = Field(default=120, ge=1)
    """Length of the sample of text that is shown."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _names_are_tasks(cls, tasks: Any) -> Any:
        if not isinstance(tasks, list):
            return tasks
        return [{"task": each} if isinstance(each, str) else each for each in tasks]

    def episodes_of(self, task: SuiteTask, prompted: bool) -> int:
        """How many episodes of a task are acted, with or without a prompt."""
        own = task.prompted_episodes if prompted else task.episodes
        return own if own is not None else self.prompted_episodes if prompted else self.episodes


def load_suite(name_or_path: str | Path) -> Suite:
    """A suite by name (recipes/suites/NAME.yaml) or path; its tasks are known to exist."""
    suite = load_yaml(find_spec("suites", name_or_path), Suite)
    for each in suite.tasks:
        get_task(each.task)
    return suite


@dataclass(frozen=True)
class Job:
    """One result to be measured."""

    entry: SuiteTask
    episodes: int
    prompted: bool

    @property
    def file(self) -> str:
        """Name of its result."""
        mode = ".prompted" if self.prompted else ""
        return f"{self.entry.task.replace('/', '-')}{mode}.json"


@dataclass
class Evaluation:
    """All results of a checkpoint in a suite."""

    suite: str
    checkpoint: str
    results: list[Result] = field(default_factory=list)

    @property
    def rollouts(self) -> list[Result]:
        """Results of acting, in the order of the suite."""
        return [result for result in self.results if "returns" in result]

    @property
    def texts(self) -> list[Result]:
        """Results on documents."""
        return [result for result in self.results if "bits_per_byte" in result]

    @property
    def skipped(self) -> list[Result]:
        """What could not be measured; "skipped" says why."""
        return [result for result in self.results if "skipped" in result]

    def scores(self, prompted: bool = False) -> list[TaskScore]:
        """Scores of the rollouts with, or without, a prompt."""
        return [
            score_task(get_task(each["task"]), each["returns"], each["seeds"], prompted)
            for each in self.rollouts
            if each["prompted"] == prompted
        ]


OnResult = Callable[[int, int, Result, bool], None]


def jobs(suite: Suite) -> Iterator[Job]:
    """Every result of a suite: unprompted first, then prompted where there is an expert."""
    for prompted in (False, True):
        for entry in suite.tasks:
            document = is_document_task(entry.task)
            count = suite.episodes_of(entry, prompted)
            if prompted and (document or not count or not get_task(entry.task).default_expert):
                continue
            yield Job(entry, count, prompted)


def evaluate(
    checkpoint: str | Path,
    suite: Suite,
    out: str | Path,
    name: str = "",
    on_result: OnResult | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure a checkpoint in every task of a suite, and keep each result below `out`.

    on_result: called with (number, of how many, result, whether it was there already).
    Raises KeyboardInterrupt when interrupted; what was finished by then is kept.
    """
    from generalist.acting.agent import Agent

    checkpoint, out = Path(checkpoint), Path(out)
    work = list(jobs(suite))
    first = next((j.entry.task for j in work), None)
    known = checkpoint_tasks(checkpoint)
    agent = Agent.from_pretrained(
        checkpoint, task=first if first in known else known[0], temperature=suite.temperature
    )
    weights = weights_fingerprint(checkpoint)
    evaluation = Evaluation(name, str(checkpoint))
    (out / RESULTS).mkdir(parents=True, exist_ok=True)
    for number, job in enumerate(work, 1):
        path = out / RESULTS / job.file
        settings = _settings(suite, job, weights, agent)
        result = _finished(path, settings)
        there = result is not None
        if result is None:
            began = time.monotonic()
            result = _measure(agent, suite, job, out, progress)
            result |= {"settings": settings, "seconds": time.monotonic() - began}
            write_json(path, result)
        evaluation.results.append(result)
        if on_result is not None:
            on_result(number, len(work), result, there)
    return evaluation


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
    return settings | ({"prompts": suite.prompts} if job.prompted else {})


def _measure(agent: Agent, suite: Suite, job: Job, out: Path, progress: bool) -> Result:
    task = job.entry.task
    if is_document_task(task):
        from generalist.evaluation.documents import score_documents

        return score_documents(agent, task, suite.text_tokens)
    from generalist.acting.prompts import DemonstrationTooLong
    from generalist.acting.rollout import rollout

    film = suite.videos and not job.prompted
    options = job.entry.env_options
    reason = _why_no_video(task, options) if film else None
    try:
        result = rollout(
            agent,
            task,
            episodes=job.episodes,
            seed=suite.seed,
            num_envs=suite.envs,
            prompt_episodes=suite.prompts if job.prompted else 0,
            video_dir=out / VIDEOS if film and reason is None else None,
            progress=progress,
            **options,
        )
    except DemonstrationTooLong as error:
        return {"task": task, "prompted": True, "skipped": error.reason}
    if result.interrupted:
        raise KeyboardInterrupt
    return {**result.to_dict(), "max_steps": options.get("max_steps"), "no_video": reason}


def _why_no_video(task: str, options: dict[str, Any]) -> str | None:
    """The reason this machine cannot film a task, None where it can."""
    from generalist.envs import make

    try:
        env = make(task, render_mode="rgb_array", **options)
        try:
            env.reset(seed=0)
            env.render()
        finally:
            env.close()
    except Exception as error:  # each renderer has errors of its own; a video is not worth a run
        return str(error)
    return None


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
