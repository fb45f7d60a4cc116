"""Dataset specs (datasets/*.yaml): which tasks, how many episodes of each, how they are mixed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, field_validator, model_validator

from generalist.errors import UsageError
from generalist.integrity import sealed_text
from generalist.seeds import CORRECTIONS_SEED, SEEDS_PER_SPEC
from generalist.settings import family_of
from generalist.shards.files import replacing
from generalist.shards.remote import SPEC_FILE
from generalist.shards.shards import BLOCK_TOKENS, SHARD_TOKENS
from generalist.specs import find_spec, load_yaml, validate_data
from generalist.windows.patterns import written_out
from generalist.windows.weights import weighted


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TaskSpec(_Model):
    """How one task is collected."""

    task: str
    """`family/Name`, or a pattern such as `babyai/*`, which stands for all registered tasks with an
    expert that it matches, without those of `datasets/heldout.yaml`."""
    episodes: int | None = Field(None, ge=1, le=SEEDS_PER_SPEC)
    """How many seeds to play. Documents: how many to take, all where it is left out."""
    weight: float | None = Field(None, ge=0)
    """Share of the training tokens, relative to the other tasks. Left out: a part of its family's
    in the spec's `weights`, 1 where there is none."""
    noise: float | list[float] | None = None
    """Share of executed actions that are random while the label stays the expert's. A list is
    gone through episode by episode. Left out: the spec's `noise`."""
    burst_steps: float = Field(1.0, ge=1)
    """Mean number of steps for which the execution stays random once it is."""
    delay_steps: NonNegativeInt | list[NonNegativeInt] = 0
    """How many steps late the expert's actions are executed while the label is not: a weaker
    demonstrator of other habits. A list is gone through episode by episode."""
    expert: str | None = None
    """An expert of the task (a planner also with a budget, `planner@256`), `random`,
    `package.module:Class`, or the folder of a trained expert. Left out: the task's default."""
    min_return: float | None = None
    """Leave out episodes with a lower return."""
    max_steps: int | None = Field(None, ge=1)
    """Cut episodes there, below the task's own limit."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the environment, as `generalist.make` takes them."""
    bins: Literal["quantiles"] | None = None
    """How observed real numbers become bins. Left out: between their bounds, without bounds by the
    mu-law. `quantiles`: fitted to ten episodes, so that each bin is about as often used."""

    @field_validator("noise")
    @classmethod
    def _is_a_share(cls, noise: float | list[float] | None) -> float | list[float] | None:
        for level in noise if isinstance(noise, list) else [noise]:
            if level is not None and not 0 <= level <= 1:
                raise ValueError("noise is a share, from 0 to 1")
        if noise == []:
            raise ValueError("the list of noise levels is empty")
        return noise

    @field_validator("task")
    @classmethod
    def _has_a_family(cls, task: str) -> str:
        family, _, name = task.partition("/")
        if not family or not name or ".." in task:
            raise ValueError("a task is written family/Name")
        return task

    @field_validator("delay_steps")
    @classmethod
    def _has_a_delay(cls, delay_steps: int | list[int]) -> int | list[int]:
        if delay_steps == []:
            raise ValueError("the list of delays is empty")
        return delay_steps

    def delay_of(self, index: int) -> int:
        """Delay of episode number `index`."""
        delay = self.delay_steps
        return delay[index % len(delay)] if isinstance(delay, list) else delay

    @property
    def is_document(self) -> bool:
        """True for text."""
        return self.task.startswith("text/")


class DatasetSpec(_Model):
    """A dataset: which tasks, how many episodes of each, how they are mixed."""

    seed: int = Field(0, ge=0, lt=CORRECTIONS_SEED // SEEDS_PER_SPEC)
    """Which block of 100,000 environment seeds is used: 0 to 8. The seeds above are for corrections
    and evaluation."""
    noise: float | list[float] = 0.2
    """The tasks' noise where they say nothing else."""
    processor: str | None = None
    """Folder of the processor that encodes the episodes, or the name of a shipped frame tokenizer
    (`worlds`). Left out: the shipped processor. `--processor` replaces it."""
    block_tokens: int = Field(BLOCK_TOKENS, ge=1)
    """Tokens of a WebDataset sample, about."""
    shard_tokens: int = Field(SHARD_TOKENS, ge=1)
    """Tokens of a shard, about."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Weight of a family: that of all its tasks together which have no `weight` of their own, in
    equal parts."""
    tasks: list[TaskSpec] = Field(min_length=1)
    """The tasks; each at most once."""

    _noise_is_a_share = field_validator("noise")(TaskSpec._is_a_share.__func__)  # type: ignore[attr-defined]

    @field_validator("tasks", mode="before")
    @classmethod
    def _patterns_are_written_out(cls, tasks: Any) -> Any:
        return written_out(tasks) if isinstance(tasks, list) else tasks

    @model_validator(mode="after")
    def _tasks_are_complete(self) -> DatasetSpec:
        names = [task.task for task in self.tasks]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"the task {min(twice)} is listed twice")
        for task in self.tasks:
            if task.episodes is None and not task.is_document:
                raise ValueError(f"the task {task.task} does not say how many episodes")
        families = {family_of(name) for name in names}
        for family, weight in self.weights.items():
            if family not in families:
                raise ValueError(
                    f"weights names {family!r}, expected one of the families of its tasks "
                    f"({', '.join(sorted(families))}); a task's own weight stands with the task"
                )
            if weight < 0:
                raise ValueError(f"the weight of {family} is {weight:g}, expected 0 or more")
        return self

    @property
    def first_seed(self) -> int:
        """Environment seed of the first episode of each task."""
        return self.seed * SEEDS_PER_SPEC

    def task_weights(self) -> dict[str, float]:
        """Weight of each task, with its part of its family's."""
        given = {task.task: task.weight for task in self.tasks if task.weight is not None}
        names = [task.task for task in self.tasks]
        weights = weighted(names, [1.0] * len(names), {**self.weights, **given})
        return dict(zip(names, weights, strict=True))

    def noise_of(self, task: TaskSpec, index: int) -> float:
        """Noise of a task's episode number `index`."""
        noise = self.noise if task.noise is None else task.noise
        return noise[index % len(noise)] if isinstance(noise, list) else noise

    def collection_of(self, task: TaskSpec) -> dict[str, Any]:
        """What episodes of this task depend on besides their seed; stored in dataset.json."""
        if task.is_document:
            return {}
        delay = {"delay_steps": task.delay_steps} if task.delay_steps else {}
        return delay | {
            "expert": task.expert,
            "noise": self.noise if task.noise is None else task.noise,
            "burst_steps": task.burst_steps,
            "min_return": task.min_return,
            "max_steps": task.max_steps,
            "options": task.options,
            "bins": task.bins,
        }

    def with_expert(self, task: str, expert: str) -> DatasetSpec:
        """The same spec with another expert of one of its tasks.

        Raises:
            UsageError: the task is not in this dataset.
        """
        if task not in {each.task for each in self.tasks}:
            raise UsageError(f"{expert} is an expert of {task}, which is not in this dataset.")
        tasks = [
            each.model_copy(update={"expert": expert}) if each.task == task else each
            for each in self.tasks
        ]
        return self.model_copy(update={"tasks": tasks})

    def write(self, root: Path) -> None:
        """Store the spec beside the data it describes."""
        text = yaml.safe_dump(self.model_dump(exclude_defaults=True), sort_keys=False)
        with replacing(root / SPEC_FILE) as file:
            file.write(sealed_text(text).encode())


def load_dataset_spec(name_or_path: str | Path) -> DatasetSpec:
    """A dataset spec by name or path.

    Raises:
        UsageError: there is none of that name, or a key or value is wrong; the key is named.
    """
    return load_yaml(find_spec("datasets", name_or_path), DatasetSpec)


def dataset_spec(data: Mapping[str, Any], source: str = "dataset") -> DatasetSpec:
    """A dataset spec from a mapping, with the same errors as from a file.

    Args:
        data: keys and values of the spec.
        source: what stands in errors in place of the file.
    """
    return validate_data(dict(data), DatasetSpec, source)
