"""The training recipe: one typed schema for laptop and cluster, read from YAML with overrides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveInt,
    model_validator,
)

from generalist.errors import UsageError
from generalist.modeling.recipe import ModelRecipe, Name, Section, not_empty
from generalist.seeds import PROMPT_SEED, RUN_SCORES_SEED
from generalist.specs import find_spec, read_yaml, validate_data
from generalist.yaml_values import NOT_YAML, annotation_at, expand_home, parse_setting, split_key


def _path(value: Any) -> Any:
    """A path, with `~` for the home folder."""
    return Path(expand_home(not_empty(value))) if isinstance(value, str) else value


def _root(value: str | Path) -> str | Path:
    """A URL as it is, for a path would lose a slash of it."""
    return value if isinstance(value, str) and "://" in value else _path(value)


Folder = Annotated[Path, BeforeValidator(_path)]
Root = Annotated[str | Path, AfterValidator(_root)]


class DataRecipe(Section):
    """Where the windows come from and how many make a step."""

    root: Root | list[Root] = Path("data/quickstart")
    """Folder of collected shards (or several); its spec gives the mixture weights. A URL that
    fsspec reads (s3://, gs://, hf://, ...) will do: shards are downloaded when they are needed."""
    cache: Folder | None = None
    """Where downloaded shards lie; ~/.cache/generalist if not given."""
    cache_gigabytes: float = Field(default=50.0, gt=0)
    """What they may take, all together. Less than the data take means to download them again and
    again, for rows are drawn from all of them."""
    processor: Folder | None = None
    """Folder of the processor the shards were encoded with; the shipped one if not given."""
    window_tokens: int = Field(default=512, gt=1)
    """Tokens in a window, L."""
    context_steps: PositiveInt | dict[str, PositiveInt] | None = None
    """Timesteps of an episode that are seen together, in training and in acting; null: as many as
    fit into the window. Where the present observation says what to do, a few learn much faster:
    everything further back is a distraction that has to be unlearned. More segments then share a
    window. A mapping from tasks or families to numbers gives these numbers of their own; its
    `default` is for those it does not name."""
    rows_per_step: int = Field(default=16, gt=0)
    """Windows in one optimizer step, over all ranks."""
    rows_per_forward: int = Field(default=4, gt=0)
    """Windows in one forward pass on one rank; gradients accumulate up to `rows_per_step`."""
    prompt_fraction: float = Field(default=0.25, ge=0, le=1)
    """Share of segments that begin with a demonstration: part of another episode of the task with
    the same instruction. Where there is no such episode, a segment begins without."""
    action_dropout: float = Field(default=0.0, ge=0, le=1)
    """Share of segments that show random actions in place of those taken, while the targets stay:
    the model has to learn what to do from what is observed, instead of repeating itself. With 1 it
    learns to ignore past actions, and the actions of one timestep are chosen independently."""
    weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Mixture weights that replace those of the dataset spec, by task or by family. A family's
    (`babyai: 9`, as in Gato's Table 1) is that of all its tasks together, which share it in
    proportion to their weights in the spec; a task's own beats its family's. 0 leaves out."""
    task_temperature: float | None = Field(default=None, gt=0)
    """T: tasks get weights proportional to n^(1/T), n their tokens, in place of the spec's; those
    under `weights` still count. 1 takes every token equally often, a large T every task."""
    min_expert_share: float | dict[str, float] | None = None
    """Train only on episodes whose normalised score reaches this (0 random, 1 expert; Gato kept
    those of at least 80% of the expert's return), or by task or family, with `default` for those
    not named. Random and expert are the registry's, or the worst and best episode of the data where
    the registry knows none or episodes were cut."""
    episodes: PositiveInt | dict[str, PositiveInt] | None = None
    """Train on so many episodes of a task, the first of those that are left, or by task or family;
    null: on all."""
    skip_damaged: bool = False
    """Verify all shards at the start and train without what is damaged, instead of stopping."""


class LossRecipe(Section):
    """What is minimised at the target positions."""

    sigma_bins: float = Field(default=8.0, ge=0)
    """Standard deviation, in bins, of the Gaussian target of an ordinal token; 0 is one-hot."""
    full_every: int = Field(default=1, gt=0)
    """Every n-th target takes the softmax over the whole vocabulary, the others over the target's
    own range of ids (texts always over all). The layout says which range comes next and acting
    chooses within it, so the rest of the softmax has little to teach, but costs a small model a
    fifth of its step. 1 is plain cross entropy."""
    balance_tasks: bool = False
    """Divide a task's targets by their share of its tokens, so that tasks with few action tokens
    per timestep count by their mixture weight and not by their number of targets."""


SEEDS_PER_ROUND = 1_000
ROUNDS = 100
"""Each round of corrections has seeds of its own; all lie below EVALUATION_SEED."""


class TaskCorrections(Section):
    """What is played in a task in each round of corrections."""

    episodes: int = Field(gt=0, le=SEEDS_PER_ROUND)
    """Episodes in a round, at most 1,000: each has a seed that no other episode of the run has."""
    max_steps: int | None = Field(default=None, gt=0)
    """Cut them there, below the task's own limit."""
    expert: Name | None = None
    """Who says what to do; who demonstrated the task if not given."""


class CorrectionsRecipe(Section):
    """DAgger within the run (Ross, Gordon and Bagnell 2011, section 3).

    Training pauses, the model acts, the experts that demonstrated say at each step what they would
    have done, and training goes on with that too, in one learning rate schedule. A clone's own
    mistakes lead to states that no demonstration shows.
    """

    tasks: dict[str, TaskCorrections] = Field(default_factory=dict)
    """Which tasks of the data; none: no corrections."""
    rounds: int = Field(default=4, gt=0, le=ROUNDS)
    """How often training pauses, at most 100 times. The pauses do not count as training."""
    begin: float = Field(default=0.25, ge=0, lt=1)
    """Progress at the first round; the others follow at equal distances."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of a task's tokens that come from its corrections, once there are any."""


class EvaluationRecipe(Section):
    """Scores on the way, in the log and the trackers. What is trained does not depend on them.

    Scores that are under way when a run is stopped are left out: it stops at once.
    """

    tasks: list[str] = Field(default_factory=list)
    """Which tasks of the data are scored: names, or patterns such as `gym/*`; none: no scores."""
    episodes: int = Field(default=5, gt=0, le=PROMPT_SEED - RUN_SCORES_SEED)
    """Episodes of each task. Their seeds are neither of the data nor of `generalist evaluate`."""
    max_steps: int | None = Field(default=None, gt=0)
    """Cut them there, below the tasks' own limits; scores are then not normalised."""
    every_minutes: float | None = Field(default=None, gt=0)
    """Score after this many minutes of training. The time it pauses does not count as training."""
    every_steps: int | None = Field(default=None, gt=0)
    """Score after this many steps."""

    @model_validator(mode="after")
    def _has_a_cadence(self) -> EvaluationRecipe:
        if self.tasks and self.every_minutes is None and self.every_steps is None:
            raise ValueError("tasks are given; say every_minutes or every_steps too")
        return self


class ActingRecipe(Section):
    """How the checkpoint acts unless whoever lets it act says otherwise; stored with it."""

    temperature: NonNegativeFloat | dict[str, NonNegativeFloat] = 1.0
    """Of the sampling of actions, or by task, with `default` for those not named. At 1 it acts as
    often as it believes an action right; 0 takes the likeliest. In corrections it acts so too: what
    is to be corrected are the mistakes that it will make."""


class OptimizerRecipe(Section):
    """AdamW, or Muon for the matrices of the body with AdamW for the rest."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: torch.optim.Muon with AdamW's update size, so one learning rate serves both."""
    lr: float = Field(default=3e-3, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's first and second moments."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator of AdamW."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled decay of the body's matrices; norms and embeddings are not decayed."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""
    max_skipped: int = Field(default=20, ge=0)
    """Steps with a non-finite loss or gradient that are left out before training stops."""


class ScheduleRecipe(Section):
    """How long, and the learning rate on the way: linear warm-up, then half a cosine."""

    steps: int | None = Field(default=None, gt=0)
    """Optimizer steps in all."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall-clock budget; progress is elapsed time over it. With `steps` too, the first to end."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps of linear warm-up."""
    final_lr_fraction: float = Field(default=0.05, ge=0, le=1)
    """Learning rate at the end, as a fraction of the peak."""

    @model_validator(mode="after")
    def _has_an_end(self) -> ScheduleRecipe:
        if self.steps is None and self.minutes is None:
            raise ValueError("give steps, minutes or both; training needs an end")
        return self


class CheckpointRecipe(Section):
    """When the state that resuming needs is saved, and how many are kept."""

    every_steps: int | None = Field(default=None, gt=0)
    """Save after this many steps."""
    every_minutes: float | None = Field(default=5.0, gt=0)
    """Save after this many minutes."""
    keep: int = Field(default=2, gt=0)
    """Newest checkpoints kept; older ones go after a newer one is safely on disk."""


class Recipe(Section):
    """Everything a training run depends on; stored, resolved, with the checkpoint."""

    model: ModelRecipe = Field(default_factory=ModelRecipe)
    data: DataRecipe = Field(default_factory=DataRecipe)
    loss: LossRecipe = Field(default_factory=LossRecipe)
    acting: ActingRecipe = Field(default_factory=ActingRecipe)
    optimizer: OptimizerRecipe = Field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = Field(default_factory=lambda: ScheduleRecipe(steps=1000))
    corrections: CorrectionsRecipe = Field(default_factory=CorrectionsRecipe)
    evaluation: EvaluationRecipe = Field(default_factory=EvaluationRecipe)
    checkpoint: CheckpointRecipe = Field(default_factory=CheckpointRecipe)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; auto is bf16 on a GPU and where a CPU with AMX gains by
    it, else fp32."""
    compile: bool | None = None
    """Compile the blocks of the model with torch.compile; if not given, where one process or DDP
    trains all of it on a GPU and Triton is there. On a CPU the lean forward pass that it replaces
    is faster and needs no minute of warming up."""
    cores: int | None = Field(default=None, gt=0)
    """On a CPU: forward passes of a step run side by side in so many processes; as many as there
    are CPUs if not given. Should divide rows_per_step / rows_per_forward."""
    log_every: int = Field(default=10, gt=0)
    """Steps between two rows of the log."""
    trackers: list[str] = Field(default_factory=lambda: ["tensorboard"])
    """Trackers of accelerate that get the log."""
    output_dir: Folder = Path("runs/quickstart")
    """Folder of the run: checkpoints, log, and the final `checkpoint/`."""
    seed: int = 0
    """Seed of the initial weights and of the order of the data."""


def load_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe by name (recipes/NAME.yaml) or path, with `dotted.key=value` overrides applied.

    A text or a path is all that stands behind the `=`; other values are read as YAML. A `~` that
    begins a path is the home folder, there and in the file.

    Raises UsageError that names the key at fault and the nearest one.
    """
    path = find_spec("recipes", name_or_path)
    data = read_yaml(path, Recipe)
    overrides = list(overrides)
    for override in overrides:
        _apply(data, override)
    return validate_data(data, Recipe, " ".join([str(path), *overrides]))


def _apply(data: dict[str, Any], override: str) -> None:
    """Put the value of `dotted.key=value` in its place."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"{override!r} is not an override; write a dotted key and a value, as in "
            "optimizer.lr=0.001."
        )
    *parents, last = keys = split_key(key, Recipe)
    try:
        value = parse_setting(text, annotation_at(Recipe, keys))
    except NOT_YAML as error:
        reason = getattr(error, "problem", None) or error
        raise UsageError(f"{key} is {text!r}, which is not valid YAML: {reason}.") from error
    for parent in parents:
        if data.get(parent) is None:
            data[parent] = {}
        data = data[parent]
        if not isinstance(data, dict):
            raise UsageError(f"{override!r}: {parent} has a value and so no keys below it.")
    data[last] = value


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML; `load_recipe` of it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """`key: old -> new` for every key that changes what is trained.

    Left out is what may change between two starts of one run: logging, scores on the way,
    checkpoint cadence, where the folders lie, cores, and how rows are split into forward passes;
    and how the checkpoint acts, unless it acts in corrections, which are trained on.
    """
    free = {"checkpoint", "evaluation", "log_every", "trackers", "output_dir", "cores", "compile"}
    free |= {"data.root", "data.processor", "data.rows_per_forward"}
    free |= {"data.cache", "data.cache_gigabytes"}
    free |= set() if new.corrections.tasks else {"acting"}
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in free and key.split(".")[0] not in free
    ]


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
