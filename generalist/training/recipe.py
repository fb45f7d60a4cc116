"""The training recipe: one typed schema for laptop and cluster, read from YAML with overrides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt, model_validator

from generalist.errors import UsageError
from generalist.modeling.recipe import Folder, ModelRecipe, Section, as_path
from generalist.seeds import PROMPT_SEED, RUN_SCORES_SEED
from generalist.specs import find_spec, read_yaml, validate_data
from generalist.training.reinforcement.recipe import ReinforcementRecipe
from generalist.training.rounds.recipe import CorrectionsRecipe, ImprovementRecipe
from generalist.yaml_values import NOT_YAML, annotation_at, parse_setting, split_key


def _root(value: str | Path) -> str | Path:
    """A URL as it is, because a path would lose one of its slashes; else a path."""
    return value if isinstance(value, str) and "://" in value else as_path(value)


Root = Annotated[str | Path, AfterValidator(_root)]


class DataRecipe(Section):
    """The source of the windows, and how many make a step."""

    root: Root | list[Root] = Path("data/quickstart")
    """Folder of shards, or a list of folders; its spec gives the mixture weights. A URL that fsspec
    reads (s3://, gs://, hf://, ...) works too: shards are downloaded when training needs them."""
    cache: Folder | None = None
    """Folder of downloaded shards. Default: ~/.cache/generalist."""
    cache_gigabytes: float = Field(default=50.0, gt=0)
    """Size limit of the cache. A cache smaller than the data downloads shards again and again,
    because training draws rows from all of them."""
    processor: Folder | None = None
    """Folder of the processor that encoded the shards, or the name of a shipped frame tokenizer
    (`worlds`). Default: the shipped processor."""
    window_tokens: int = Field(default=512, gt=1)
    """Tokens in a window, L."""
    context_steps: PositiveInt | dict[str, PositiveInt] | None = None
    """Timesteps of an episode that the model sees together, in training and in acting; null: as
    many as fit into the window. Where the present observation determines the action, few timesteps
    learn much faster: earlier ones are a distraction that the model has to unlearn. More segments
    then share a window. May be a mapping from tasks or families to numbers; `default` applies to
    those it does not name."""
    rows_per_step: int = Field(default=16, gt=0)
    """Windows in one optimizer step, over all ranks."""
    rows_per_forward: int = Field(default=4, gt=0)
    """Windows in one forward pass on one rank; gradients accumulate up to `rows_per_step`."""
    prompt_fraction: float = Field(default=0.25, ge=0, le=1)
    """Share of segments that begin with a demonstration, which is part of another episode of the
    task with the same instruction. A segment begins without one where there is no such episode."""
    action_dropout: float = Field(default=0.0, ge=0, le=1)
    """Share of segments whose input has random actions in place of the true ones; the targets stay.
    The model then learns its actions from observations instead of repeating itself. With 1 it
    learns to ignore past actions, and chooses the actions of one timestep independently."""
    instruction_dropout: float = Field(default=0.0, ge=0, le=1)
    """Share of segments whose header leaves out the instruction. The model then learns to act
    without one too."""
    weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Mixture weights that replace those of the dataset spec, by task or by family. The tasks of a
    family share its weight (`babyai: 9`, as in Gato's Table 1) in proportion to their weights in
    the spec. A task's own weight overrides its family's. 0 leaves a task out."""
    task_temperature: float | None = Field(default=None, gt=0)
    """T: replaces the spec's weights by n^(1/T) for a task of n tokens; `weights` override them.
    With 1 all tokens are equally frequent, with a large T all tasks."""
    min_expert_share: float | dict[str, float] | None = None
    """Train only on episodes whose normalised score is at least this (0 random, 1 expert; Gato kept
    those of at least 80% of the expert's return). May be a mapping from tasks or families;
    `default` applies to those it does not name. The scores of random and expert are the registry's.
    Where it has none, or episodes were cut, they are the worst and best episode of the data."""
    episodes: PositiveInt | dict[str, PositiveInt] | None = None
    """Train on this many episodes of each task: the first that pass `min_expert_share`. May be a
    mapping from tasks or families. null: on all."""
    best_share: float | dict[str, float] | None = None
    """Train only on this share of each task's episodes, those with the best scores; at least on
    one. May be a mapping from tasks or families. null: on all."""
    labels: bool = True
    """Learn what the expert would have done, where something else was executed. false: learn what
    was executed, as from data that nobody labelled."""
    workers: int | None = Field(default=None, ge=0)
    """Processes that put the rows of coming steps together, for each process that trains. 0: a
    thread does. null: up to four beside a GPU, none where the CPU trains."""
    skip_damaged: bool = False
    """Verify all shards at the start, and train without damaged ones instead of stopping."""


class LossRecipe(Section):
    """The loss at the targets."""

    sigma_bins: float = Field(default=8.0, ge=0)
    """Standard deviation, in bins, of the Gaussian target of an ordinal token; 0 is one-hot."""
    full_every: int = Field(default=1, gt=0)
    """Every n-th target takes the softmax over the whole vocabulary; the others take it over the
    target's own range of ids (texts always over all). The layout determines the next range, and
    acting chooses within it. So the full softmax teaches little, but costs a small model a fifth
    of its step. 1 is plain cross entropy."""
    balance_tasks: bool = False
    """Divide the losses of a task by their weight per token. Then tasks with few action tokens per
    timestep count by their mixture weight, not by their number of targets."""


class EvaluationRecipe(Section):
    """Scores during a run, in the log and the trackers. Training does not depend on them.

    A run that is asked to stop does so at once, without the scores of unfinished episodes.
    """

    tasks: list[str] = Field(default_factory=list)
    """Tasks of the data to score: names, or patterns such as `gym/*`; none: no scores."""
    episodes: int = Field(default=5, gt=0, le=PROMPT_SEED - RUN_SCORES_SEED)
    """Episodes per task. Neither data nor `generalist evaluate` use their seeds."""
    max_steps: int | None = Field(default=None, gt=0)
    """Truncate episodes after this many steps, below the tasks' own limits. Their scores are not
    normalised."""
    every_minutes: float | None = Field(default=None, gt=0)
    """Score after this many minutes of training. The time of scoring does not count."""
    every_steps: int | None = Field(default=None, gt=0)
    """Score after this many steps."""
    keep_best: bool = False
    """Keep the model with the best scores in `best/`, beside the final `checkpoint/`. What counts
    is the mean normalised score; of a single task the score itself will do."""

    @model_validator(mode="after")
    def _has_a_cadence(self) -> EvaluationRecipe:
        if self.tasks and self.every_minutes is None and self.every_steps is None:
            raise ValueError("tasks are given; say every_minutes or every_steps too")
        return self


def _discount(given: float | dict[str, float]) -> float | dict[str, float]:
    """The discount; raises ValueError where one is out of range."""
    for each in given.values() if isinstance(given, dict) else [given]:
        if not 0 < each <= 1:
            raise ValueError(f"discount is {each:g}, expected above 0 and at most 1")
    return given


Discount = Annotated[float | dict[str, float], AfterValidator(_discount)]


class ReturnsRecipe(Section):
    """Returns that the model can be asked for, and values; in the compact form.

    The shards need not be collected anew: returns are made from their rewards.
    """

    show: float = Field(default=0.75, ge=0, le=1)
    """Share of segments that show at every step what was still to be earned (Multi-Game Decision
    Transformer, Lee et al. 2022, section 3.1). They learn the actions that were executed, because
    the return is theirs. The other segments learn to act without being asked for a return."""
    discount: Discount = 0.99
    """Of the returns-to-go that are shown and predicted, in (0, 1]. May be a mapping from tasks or
    families. Below 1, an episode that was cut is taken to go on as it ended."""
    weight: float = Field(default=0.25, gt=0)
    """Weight of a value's loss, in parts of an action token's."""


class WorldRecipe(Section):
    """A world model, in which acting can plan; in the compact form.

    Beside actions the model learns what comes of them (Trajectory Transformer, Janner et al. 2021):
    the reward, the return-to-go after it, the end of the episode, and the next observation. Actions
    that were taken are shown to later timesteps.
    """

    discount: Discount = 0.99
    """Of the returns-to-go that are predicted, and of rewards in planning; as in `returns`."""
    observation: float = Field(default=1.0, gt=0)
    """Weight of the loss of a whole next observation, in parts of an action token's; many tokens
    of an observation share it."""
    outcome: float = Field(default=0.25, gt=0)
    """Weight of each of the losses of reward, return-to-go and end."""


class ActingRecipe(Section):
    """Defaults for acting with the checkpoint, which stores them."""

    temperature: NonNegativeFloat | dict[str, NonNegativeFloat] = 1.0
    """Sampling temperature of actions. May be a mapping from tasks; `default` applies to those it
    does not name. At 1 an action is as frequent as its probability; 0 takes the likeliest. The
    model acts so in corrections too, because these should correct the mistakes it will make."""


class OptimizerRecipe(Section):
    """AdamW, or Muon for the matrices of the body and AdamW for the rest."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: Muon with AdamW's update size, so one learning rate serves both."""
    lr: float = Field(default=3e-3, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's first and second moments."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator of AdamW."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay of the body's matrices; norms and embeddings have none."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Largest global norm of the gradients; larger ones are scaled down."""
    max_skipped: int = Field(default=20, ge=0)
    """Training stops after more skipped steps than this. It skips a step whose loss or gradient
    is not finite."""


class ScheduleRecipe(Section):
    """Length of training, and the learning rate: linear warm-up, then half a cosine."""

    steps: int | None = Field(default=None, gt=0)
    """Optimizer steps in all."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall-clock budget; progress is elapsed time over it. With `steps` too, the first to end
    counts."""
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
    """How often training saves a checkpoint to resume from, and how many it keeps."""

    every_steps: int | None = Field(default=None, gt=0)
    """Save after this many steps."""
    every_minutes: float | None = Field(default=5.0, gt=0)
    """Save after this many minutes."""
    keep: int = Field(default=2, gt=0)
    """Number of newest checkpoints to keep. Training removes an older one only once a newer one
    is on the disk."""


class Recipe(Section):
    """All settings of a training run; its checkpoint stores them resolved."""

    model: ModelRecipe = Field(default_factory=ModelRecipe)
    data: DataRecipe = Field(default_factory=DataRecipe)
    loss: LossRecipe = Field(default_factory=LossRecipe)
    returns: ReturnsRecipe | None = None
    """Let the model be asked for a return, and say what it expects. null: it only imitates."""
    world: WorldRecipe | None = None
    """Learn what comes of actions, to plan with it. null: no world model."""
    acting: ActingRecipe = Field(default_factory=ActingRecipe)
    optimizer: OptimizerRecipe = Field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = Field(default_factory=lambda: ScheduleRecipe(steps=1000))
    corrections: CorrectionsRecipe = Field(default_factory=CorrectionsRecipe)
    improvement: ImprovementRecipe = Field(default_factory=ImprovementRecipe)
    evaluation: EvaluationRecipe = Field(default_factory=EvaluationRecipe)
    checkpoint: CheckpointRecipe = Field(default_factory=CheckpointRecipe)
    reinforcement: ReinforcementRecipe | None = None
    """Learn from rewards, by playing; `generalist reinforce`. null: imitate alone."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the forward pass. auto: bf16 on a GPU, and on a CPU with AMX where it is faster;
    else fp32."""
    compile: bool | None = None
    """Compile the blocks of the model with torch.compile. Default: only on a GPU with Triton, in
    one process or under DDP. On a CPU the lean forward pass is faster and needs no warm-up."""
    cores: int | None = Field(default=None, gt=0)
    """On a CPU: number of processes for the forward passes of a step. Default: one per CPU. It
    should divide rows_per_step / rows_per_forward."""
    log_every: int = Field(default=10, gt=0)
    """Steps between two rows of the log."""
    trackers: list[str] = Field(default_factory=lambda: ["tensorboard"])
    """Trackers of accelerate that receive the log."""
    output_dir: Folder = Path("runs/quickstart")
    """Folder of the run: checkpoints, log, and the final `checkpoint/`."""
    seed: int = 0
    """Seed of the initial weights and of the order of the data."""

    @model_validator(mode="after")
    def _improves_by_imitation(self) -> Recipe:
        if self.reinforcement is not None and self.improvement.tasks:
            raise ValueError(
                "improvement imitates the successes of the run, and reinforcement learns from all "
                "that it plays; leave one of them out"
            )
        return self


def load_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe, with overrides.

    Args:
        name_or_path: name (recipes/NAME.yaml) or path of a YAML file.
        overrides: `dotted.key=value` each. Where the key takes a text or a path, the value is all
            behind the `=`; other values are YAML. A `~` at the beginning of a path is the home
            folder, here and in the file.

    Raises:
        UsageError: a key or value is wrong; names the key at fault, and the nearest valid one.
    """
    path = find_spec("recipes", name_or_path)
    data = read_yaml(path, Recipe)
    overrides = list(overrides)
    for override in overrides:
        apply_override(data, override, Recipe)
    return validate_data(data, Recipe, " ".join([str(path), *overrides]))


def apply_override(data: dict[str, Any], override: str, kind: type[Section]) -> None:
    """Apply an override `dotted.key=value` to the data of a recipe of this kind."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"{override!r} is not an override; write a dotted key and a value, as in "
            "optimizer.lr=0.001."
        )
    *parents, last = keys = split_key(key, kind)
    try:
        value = parse_setting(text, annotation_at(kind, keys))
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
    """The resolved recipe as YAML; `load_recipe` reads it back as the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """`key: old -> new` for every key that changes what training computes.

    Some keys may change between two starts of one run: logging, scores during the run, cadence of
    checkpoints, folders, cores, workers, and the split of rows into forward passes. So may the
    settings of acting, unless the run acts in its rounds.
    """
    free = {"checkpoint", "evaluation", "log_every", "trackers", "output_dir", "cores", "compile"}
    free |= {"data.root", "data.processor", "data.rows_per_forward", "corrections.earlier"}
    free |= {"data.cache", "data.cache_gigabytes", "data.workers"}
    free |= {"reinforcement.actors", "reinforcement.ray", "reinforcement.record"}
    free |= set() if new.corrections.tasks or new.improvement.tasks else {"acting"}
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
