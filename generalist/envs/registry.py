"""The task registry: the one place that says how a task is made, preprocessed and scored.

A family is a module of this package with three things in it:
    REGISTERED: dict[str, str]          the tasks we vouch for, with one line on each
    names() -> list[str]                every task that can be made, without the family's prefix
    find(name) -> Task | None           the task of that name, or None where there is none
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fnmatch
import functools
import importlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from generalist.envs.instructions import OWN, Instructions, OtherInstruction
from generalist.errors import GeneralistError, MissingPackageError, UsageError, in_words

SCORES_PATH = Path(__file__).with_name("scores.json")

_FAMILIES = (
    "gym", "dmc", "babyai", "atari", "metaworld", "doom", "doomworld", "miniworld", "minatar",
    "board", "caption", "vqa", "text",
)  # fmt: skip

Metric = Literal["return", "success"]
T = TypeVar("T")

# Normalised scores are computed from references over at least so many whole episodes.
LEAST_RANDOM_EPISODES, LEAST_EXPERT_EPISODES = 10, 5
_NORMAL_QUANTILE = 1.959964  # two-sided 95%


@dataclass(frozen=True)
class Score:
    """A measured score, and how it was got.

    Attributes:
        mean: over episodes.
        stderr: standard error of the mean; None for a single episode, whose error is unknown.
        episodes: how many.
        seeds: the first, and one past the last.
        date: when, as YYYY-MM-DD.
        command: what measured it.
        expert: whose score it is; "" for random play, and where an older file does not say.
        max_steps: where episodes were cut below the task's own limit; None for whole ones.
        environment: the options, limits and versions it was measured with.
        foresees: the expert knows chances that are still to come, such as actions that will stick.
    """

    mean: float
    stderr: float | None
    episodes: int
    seeds: tuple[int, int]
    date: str
    command: str
    expert: str = ""
    max_steps: int | None = None
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    foresees: bool = False

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Score:
        """Inverse of `to_dict`."""
        first, stop = fields["seeds"]
        return cls(**{**fields, "seeds": (first, stop)})

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without what is not said."""
        fields = {**dataclasses.asdict(self), "seeds": list(self.seeds)}
        optional = ("expert", "max_steps", "environment", "foresees")
        return {k: v for k, v in fields.items() if v or k not in optional}


@dataclass(frozen=True)
class Task:
    """One task: how to make it, and what a random policy and the expert score in it.

    Attributes:
        name: `family/Name`.
        family: the family.
        make: make(render_mode=None, **options) -> gymnasium.Env; the options are the family's own.
        step_limit: steps after which an episode is truncated, or what finds them out at some cost.
        description: what to do in it, in a few words.
        frames: True where the agent sees images; None where only making it would tell.
        metric: what a score counts: the raw return, or success (1.0 or 0.0).
        default_expert: name of the expert that demonstrates, "" where there is none.
        controls: names of the keys and of the mouse's motions, in the order of an action; none
            where a task is not played with these.
        random_score: of random play, as scores.json has it.
        expert_score: of the default expert.
        other_scores: those of other experts, by name.
    """

    name: str
    family: str
    make: Callable[..., gymnasium.Env]
    step_limit: int | Callable[[], int]
    description: str
    frames: bool | None = False
    metric: Metric = "return"
    default_expert: str = ""
    controls: tuple[str, ...] = ()
    random_score: Score | None = None
    expert_score: Score | None = None
    other_scores: Mapping[str, Score] = dataclasses.field(default_factory=dict, hash=False)

    @functools.cached_property
    def max_steps(self) -> int:
        """Steps after which an episode is truncated; some BabyAI levels are made to learn them."""
        return self.step_limit if isinstance(self.step_limit, int) else self.step_limit()

    @property
    def not_normalized(self) -> str | None:
        """Why no score of this task can be normalised; None where one can."""
        for who, score, least in (
            ("random", self.random_score, LEAST_RANDOM_EPISODES),
            ("expert", self.expert_score, LEAST_EXPERT_EPISODES),
        ):
            if score is None:
                return f"there is no measured score of {who}"
            if score.max_steps is not None:
                return f"{who} was measured in episodes cut after {score.max_steps:,} steps"
            if score.episodes < least or score.stderr is None:
                episodes = "1 episode" if score.episodes == 1 else f"{score.episodes} episodes"
                return f"{who} was measured over {episodes}; {least} are needed"
        assert self.random_score is not None and self.expert_score is not None
        random, expert = self.random_score, self.expert_score
        assert random.stderr is not None and expert.stderr is not None
        error = math.hypot(random.stderr, expert.stderr)
        if expert.mean <= random.mean + _NORMAL_QUANTILE * error:
            beyond = " beyond the errors of the two" if expert.mean > random.mean else ""
            return (
                f"the expert ({expert.mean:g}) is not better than random ({random.mean:g}){beyond}"
            )
        return None

    @property
    def references(self) -> tuple[Score, Score] | None:
        """Random's and the expert's scores, where both are fit to normalise by."""
        if self.not_normalized is not None:
            return None
        assert self.random_score is not None and self.expert_score is not None
        return self.random_score, self.expert_score

    def normalized(self, score: float) -> float | None:
        """(score - random) / (expert - random); None where the references are not fit for it."""
        if self.references is None:
            return None
        random, expert = self.references
        return (score - random.mean) / (expert.mean - random.mean)

    def score_by(self, expert: str) -> Score | None:
        """The measured score of an expert by name, a planner's with its budget."""
        own = self.expert_score
        if own is not None and expert in (own.expert or self.default_expert, ""):
            return own
        return self.other_scores.get(expert)

    def score_of(self, episode_return: float, success: bool | None) -> float:
        """The task's metric for an episode.

        Args:
            episode_return: its raw return.
            success: what the environment said in `info["success"]`, at any step. None where it
                says nothing: then success is a positive return.
        """
        if self.metric == "return":
            return float(episode_return)
        return float(episode_return > 0 if success is None else success)


def family_names() -> tuple[str, ...]:
    """The families a task name can begin with."""
    return _FAMILIES


def _family(name: str) -> Any:
    return importlib.import_module(f"generalist.envs.{name}")


@functools.cache
def _scores() -> dict[str, dict[str, Any]]:
    if not SCORES_PATH.exists():
        return {}
    return json.loads(SCORES_PATH.read_text(encoding="utf-8"))


def reload_scores() -> None:
    """Forget the scores read so far, after scores.json was rewritten."""
    _scores.cache_clear()
    get_task.cache_clear()


@functools.cache
def get_task(name: str) -> Task:
    """The task called `family/Name`.

    Any installed Gymnasium id is a task as `gym/ID`, also `gym/package.module:ID`, which imports
    the module first.

    Raises:
        UsageError: there is none; the nearest names are told.
    """
    family, _, short = name.partition("/")
    task = _family(family).find(short) if family in _FAMILIES and short else None
    if task is None:
        raise UsageError(_unknown(name))
    measured = _scores().get(name, {})
    others = measured.get("experts", {})
    return dataclasses.replace(
        task,
        **{
            f"{who}_score": Score.from_dict(measured[who])
            for who in ("random", "expert")
            if who in measured
        },
        other_scores={name: Score.from_dict(each) for name, each in others.items()},
    )


def _unknown(name: str) -> str:
    """The sentence for a task that does not exist: what was given, and the nearest names."""
    family, _, short = name.partition("/")
    candidates = known_names(family) if family in _FAMILIES else known_names()
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    by_short = {candidate.partition("/")[2].lower(): candidate for candidate in candidates}
    near = [
        *(by_lower[n] for n in difflib.get_close_matches(name.lower(), by_lower, 3, 0.6)),
        *(by_short[n] for n in difflib.get_close_matches((short or name).lower(), by_short, 3)),
    ]
    if near:
        hint = "the nearest are " + ", ".join(dict.fromkeys(near))
    elif family in _FAMILIES:
        hint = f"{family!r} has, for example, " + ", ".join(registered_names(family)[:3])
    else:
        hint = "a task is FAMILY/NAME with one of the families " + ", ".join(_FAMILIES)
    return f"There is no task {name!r}; {hint}."


def _of_all_families(of_one: Callable[[str], list[T]]) -> list[T]:
    """What `of_one` gives for each family, but for those whose packages are missing here."""
    found: list[T] = []
    for family in _FAMILIES:
        with contextlib.suppress(MissingPackageError):
            found += of_one(family)
    return found


def missing_families() -> dict[str, str]:
    """For each family whose packages are missing here, what to install."""
    missing: dict[str, str] = {}
    for family in _FAMILIES:
        try:
            list_tasks(family)
        except MissingPackageError as error:
            missing[family] = str(error)
    return missing


def registered_names(family: str | None = None) -> list[str]:
    """The tasks we vouch for, with the family's prefix.

    Raises:
        MissingPackageError: the family cannot be listed without its package.
    """
    if family is None:
        return _of_all_families(registered_names)
    return [f"{family}/{short}" for short in _family(family).REGISTERED]


def is_pattern(name: str) -> bool:
    """True for `family/*` and the like, which stand for several tasks."""
    return any(mark in name for mark in "*?[")


def matching_names(pattern: str) -> list[str]:
    """The registered tasks with an expert whose names match a pattern such as `babyai/*`.

    Raises:
        UsageError: there is none.
    """
    family = pattern.partition("/")[0]
    names = registered_names(family if family in _FAMILIES else None)
    found = [name for name in fnmatch.filter(names, pattern) if get_task(name).default_expert]
    if not found:
        raise UsageError(
            f"No registered task with an expert matches {pattern!r}; a pattern is FAMILY/* with "
            f"one of the families {', '.join(_FAMILIES)}."
        )
    return found


def known_names(family: str | None = None) -> list[str]:
    """Every task that can be made here; this imports the families' packages."""
    if family is None:
        return _of_all_families(known_names)
    return [f"{family}/{short}" for short in _family(family).names()]


def list_tasks(family: str | None = None, everything: bool = False) -> list[Task]:
    """The tasks of one family, or of all whose packages are here (`missing_families` says which).

    Args:
        family: the family; None for all.
        everything: list all that can be made, in place of those that are registered.

    Raises:
        UsageError: there is no such family.
        MissingPackageError: the package of the one family is missing.
    """
    if family is None:
        return _of_all_families(lambda each: list_tasks(each, everything))
    if family not in _FAMILIES:
        raise UsageError(f"There is no family {family!r}; the families are {', '.join(_FAMILIES)}.")
    names = known_names(family) if everything else registered_names(family)
    return [get_task(name) for name in names]


def is_document_task(name: str) -> bool:
    """True for tasks that are documents to be read on, not environments to act in."""
    return name.partition("/")[0] == "text"


def make(
    name: str,
    render_mode: str | None = None,
    *,
    instructions: Instructions = "own",
    **options: Any,
) -> gymnasium.Env:
    """Make the environment of a task.

    Args:
        name: the task, `family/Name`.
        render_mode: as Gymnasium has it, `rgb_array` or `human`; None where nothing is rendered.
        instructions: `none`, `shuffled`, `shown` or `shown-shuffled` for others than the
            episodes' own; see `OtherInstruction`.
        options: the family's own; `generalist rollout FAMILY --help` lists them.

    Raises:
        UsageError: the task, an option or the render mode does not exist.
        GeneralistError: the environment cannot be made.
    """
    task = get_task(name)
    if instructions not in (choices := get_args(Instructions)):
        raise UsageError(f"instructions are {', '.join(choices)}; got {instructions!r}.")
    try:
        env = task.make(render_mode=render_mode, **options)
    except GeneralistError:
        raise
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            raise UsageError(f"{name} does not take this option: {error}.") from error
        raise GeneralistError(f"{name} cannot be made: {in_words(error)}.") from error
    except Exception as error:
        raise GeneralistError(f"{name} cannot be made: {in_words(error)}.") from error
    modes = env.metadata.get("render_modes") or []
    if render_mode is not None and render_mode not in modes:
        env.close()
        known = ", ".join(repr(mode) for mode in modes) or "none"
        raise UsageError(f"{name} has the render modes {known}; got {render_mode!r}.")
    return env if instructions == OWN else OtherInstruction(env, instructions)


def make_vec(name: str, num_envs: int, **options: Any) -> VectorEnv:
    """Make `num_envs` environments of a task that step together in this process.

    Nothing resets itself: after a step with terminated or truncated rows, call
    `reset(options={"reset_mask": mask})` with the (num_envs,) bool mask of the rows to restart.

    Args:
        name: the task, `family/Name`.
        num_envs: how many.
        options: as `make` takes them.

    Raises:
        UsageError: as `make`, or `num_envs` is less than 1.
        GeneralistError: as `make`.
    """
    if num_envs < 1:
        raise UsageError(f"num_envs must be at least 1, got {num_envs}.")
    return SyncVectorEnv(
        [functools.partial(make, name, **options) for _ in range(num_envs)],
        autoreset_mode=AutoresetMode.DISABLED,
    )
