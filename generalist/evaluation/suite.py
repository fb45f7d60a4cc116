"""Suites: which tasks a checkpoint is measured in, how, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from generalist.envs import get_task, is_document_task, is_pattern, matching_names
from generalist.envs.instructions import OWN, SHOWN, SHOWN_SHUFFLED, Instructions
from generalist.envs.options import changed_options
from generalist.envs.speaking import is_speaking_task
from generalist.errors import GeneralistError, UsageError
from generalist.evaluation.reading import reading_of
from generalist.evaluation.scores import TaskScore, label, score_task
from generalist.numbers import exactly
from generalist.seeds import EVALUATION_SEED
from generalist.specs import find_spec, load_yaml

_HARMLESS = ("instructions", "camera", "height", "width")  # options that leave the task as it is
Result = dict[str, Any]


class SuiteTask(BaseModel):
    """A task of a suite; what is left out is taken from the suite."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    task: str
    """family/Name, or a pattern such as babyai/*: all registered tasks with an expert that it
    matches, those the suite names itself apart."""
    episodes: int | None = Field(default=None, ge=1)
    """Episodes without a prompt."""
    prompted_episodes: int | None = Field(default=None, ge=0)
    """Episodes that begin with a demonstration; 0 leaves them out. Skipped, with the reason in the
    report, where not one timestep of a demonstration fits into its part of the window."""
    max_steps: int | None = Field(default=None, ge=1)
    """Truncate episodes there, below the task's own limit. Random and expert were measured over
    whole episodes, so cut ones have no normalised score."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of the environment, as `generalist.make` takes them. Where they change what
    is measured, there is no normalised score."""
    instruction: Instructions = "own"
    """Which instruction the agent is given: the episode's `own`, `none`, or `shuffled`, which is
    that of another episode. In a suite's file it may be a list, `[own, none, shuffled]`, for a row
    of each: an agent that scores as well without its instruction does not use it. With `shown` no
    words say it, but a demonstration of it begins the episode; with `shown-shuffled` that of
    another episode's."""

    @property
    def env_options(self) -> dict[str, Any]:
        """What `generalist.make` is given for the task."""
        cut = {} if self.max_steps is None else {"max_steps": self.max_steps}
        other = {} if self.instruction == OWN else {"instructions": self.instruction}
        return {**self.options, **cut, **other}

    @property
    def is_shown(self) -> bool:
        """Whether a demonstration alone says what is asked."""
        return self.instruction in (SHOWN, SHOWN_SHUFFLED)

    @property
    def label(self) -> str:
        """The task's name, with the instruction where it is not the task's own."""
        return label(self.task, self.instruction)


class HeldOut(BaseModel):
    """How the tasks of a suite are measured that the checkpoint was never trained on."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    data: str
    """The dataset spec with a few demonstrations of each, by name or path."""
    steps: int = Field(default=400, ge=1)
    """Optimizer steps of fine-tuning on the demonstrations of a task, and of training on them from
    scratch; everything else is as the checkpoint's own recipe says."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate of fine-tuning; the recipe's own if not given."""
    retrieve_steps: int | None = Field(default=None, ge=1)
    """Demonstrated timesteps in a retrieved prompt; as many as fit a quarter of the window if not
    given."""
    retrieve_lambda: float = Field(default=10.0, gt=0)
    """With weight exp(-lambda distance) the nearest action is added to the model's own."""


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
    asked: list[float] = Field(default_factory=list)
    """Also ask for these returns, in percent of the way from the worst to the best of the data; the
    report shows what is got. Tasks that the checkpoint has no returns of are skipped."""
    seed: int = Field(default=EVALUATION_SEED, ge=0)
    """Environment seed of the first episode; those of the data are smaller."""
    envs: int | None = Field(default=None, ge=1)
    """Episodes side by side; changes only the speed."""
    temperature: float | None = Field(default=None, ge=0)
    """Of the sampling of actions; 0 takes the likeliest. Left out: as the checkpoint's recipe
    says, task by task."""
    guidance: float | None = Field(default=None, ge=0)
    """Lambda of guidance by the instruction: how far to go from the logits without it (0) to those
    with it (1), or beyond. Left out: by the instruction alone, in one row an environment."""
    zero_shot: bool = False
    """Whether patterns also stand for tasks that the checkpoint was not trained on."""
    videos: bool = True
    """Whether the first episode of each task is filmed, where the machine can render it."""
    heldout: HeldOut | None = None
    """Measure the tasks zero-shot, prompted, fine-tuned and trained from scratch, in place of once
    each. The checkpoint must not have been trained on them."""
    text_tokens: int = Field(default=120, ge=1)
    """Length of the sample of text that is shown."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _names_are_tasks(cls, tasks: Any) -> Any:
        """Names become entries, and an entry with several instructions one entry for each."""
        if not isinstance(tasks, list):
            return tasks
        entries: list[Any] = []
        for each in tasks:
            entry = {"task": each} if isinstance(each, str) else each
            several = entry.get("instruction") if isinstance(entry, dict) else None
            if isinstance(several, list) and several:
                entries += [{**entry, "instruction": one} for one in several]
            else:
                entries.append(entry)
        return entries

    @model_validator(mode="after")
    def _each_once(self) -> Suite:
        labels = [each.label for each in self.tasks]
        for each in labels:
            if labels.count(each) > 1:
                raise ValueError(
                    f"{each} is listed {labels.count(each)} times; a task is listed once for each "
                    f"instruction ({', '.join(get_args(Instructions))})"
                )
        return self

    @model_validator(mode="after")
    def _heldout_reports_it(self) -> Suite:
        if self.heldout is not None and self.asked:
            raise ValueError(
                "asked has no place in the report of held-out tasks; leave it out, and ask by "
                "--wanted-return"
            )
        others = [each.label for each in self.tasks if each.instruction != OWN]
        if self.heldout is not None and others:
            raise ValueError(
                f"held-out tasks are measured with their own instruction; leave out {others[0]}"
            )
        return self

    def for_checkpoint(self, trained: Collection[str]) -> Suite:
        """This suite with its patterns written out for a checkpoint trained on these tasks.

        Raises GeneralistError where no task is left.
        """
        named = {each.label for each in self.tasks}
        tasks: list[SuiteTask] = []
        for entry in self.tasks:
            if not is_pattern(entry.task):
                tasks.append(entry)
                continue
            for name in matching_names(entry.task):
                own = entry.model_copy(update={"task": name})
                if own.label not in named and (self.zero_shot or name in trained):
                    named.add(own.label)
                    tasks.append(own)
        if not tasks:
            raise GeneralistError(
                "The checkpoint was trained on none of the suite's tasks "
                f"({', '.join(each.task for each in self.tasks)}); with --zero-shot it acts in "
                "them all the same."
            )
        return self.model_copy(update={"tasks": tasks})

    def episodes_of(self, task: SuiteTask, prompted: bool) -> int:
        """How many episodes of a task are acted, with or without a prompt."""
        own = task.prompted_episodes if prompted else task.episodes
        return own if own is not None else self.prompted_episodes if prompted else self.episodes


def load_suite(name_or_path: str | Path) -> Suite:
    """A suite by name (recipes/suites/NAME.yaml) or path, of tasks and patterns that exist."""
    suite = load_yaml(find_spec("suites", name_or_path), Suite)
    for each in suite.tasks:
        (matching_names if is_pattern(each.task) else get_task)(each.task)
        if is_document_task(each.task) and each.instruction != OWN:
            raise UsageError(
                f"{each.task} is documents, which have no instruction; leave out `instruction: "
                f"{each.instruction}`."
            )
    return suite


@dataclass(frozen=True)
class Job:
    """One result to be measured."""

    entry: SuiteTask
    episodes: int
    prompted: bool
    asked: float | None = None  # percent of the way from the worst to the best of the data

    @property
    def shows(self) -> bool:
        """Whether episodes begin with a demonstration."""
        return self.prompted or self.entry.is_shown

    @property
    def file(self) -> str:
        """Name of its result."""
        instruction = "" if self.entry.instruction == OWN else f".{self.entry.instruction}"
        mode = ".prompted" if self.prompted else ""
        if self.asked is not None:
            mode = f".asked-{exactly(self.asked)}"
        return f"{self.entry.task.replace('/', '-')}{instruction}{mode}.json"

    @property
    def facts(self) -> Result:
        """What a result is known by."""
        return {
            "task": self.entry.task,
            "instruction": self.entry.instruction,
            "prompted": self.prompted,
            **({} if self.asked is None else {"asked": self.asked}),
        }


@dataclass
class Evaluation:
    """All results of a checkpoint in a suite.

    Attributes:
        suite: its name.
        checkpoint: its folder.
        results: one a job, in the order of the suite.
        teachers: by task the expert that made the training data, as far as the checkpoint says.
    """

    suite: str
    checkpoint: str
    results: list[Result] = field(default_factory=list)
    teachers: dict[str, str] = field(default_factory=dict)

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
        """What cannot be measured; "skipped" says why."""
        return [result for result in self.results if "skipped" in result]

    @property
    def failed(self) -> list[Result]:
        """What should have been measured and is missing; "failed" says why."""
        return [result for result in self.results if "failed" in result]

    def scores(self, prompted: bool = False) -> list[TaskScore]:
        """Scores of the rollouts with, or without, a prompt."""
        return [
            score_task(
                get_task(each["task"]),
                each["scores"],
                seeds=each["seeds"],
                prompted=prompted,
                instruction=each["instruction"],
                reading=reading_of(each),
                changed=_changed(each),
                teacher=self.teachers.get(each["task"]),
            )
            for each in self.rollouts
            if each["prompted"] == prompted and "asked" not in each
        ]

    @property
    def asked(self) -> dict[str, list[Result]]:
        """By task, the rollouts that were asked for a percentage of the best."""
        found: dict[str, list[Result]] = {}
        for each in self.rollouts:
            if "asked" in each:
                found.setdefault(each["task"], []).append(each)
        return found


def _changed(result: Result) -> str | None:
    """How a result's environment differs from the one that random and expert were measured in."""
    options = {k: v for k, v in result["options"].items() if k not in _HARMLESS}
    changed = changed_options(result["task"], options)
    steps = changed.pop("max_steps", None)
    reasons = [] if steps is None else [f"its episodes were cut after {steps:,} steps"]
    if changed:
        said = ", ".join(f"{name} {value}" for name, value in sorted(changed.items()))
        reasons.append(f"it was made with {said}")
    return f"{' and '.join(reasons)}, unlike those of random and expert" if reasons else None


def jobs(suite: Suite) -> Iterator[Job]:
    """Every result of a suite: unprompted first, then prompted where there is an expert.

    Only a task's own instruction is prompted: a demonstration of the task shows what is asked. Text
    has no demonstrations. Last those that ask for returns.
    """
    for prompted in (False, True):
        for entry in suite.tasks:
            text = is_document_task(entry.task) or is_speaking_task(entry.task)
            count = suite.episodes_of(entry, prompted)
            if prompted and (
                text
                or not count
                or entry.instruction != OWN
                or not get_task(entry.task).default_expert
            ):
                continue
            yield Job(entry, count, prompted)
    for entry in suite.tasks:
        if not is_document_task(entry.task) and entry.instruction == OWN:
            for percent in suite.asked:
                yield Job(entry, suite.episodes_of(entry, False), False, percent)
