"""Trace: one episode in one environment; its errors name task, seed and step."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.masks import checked_mask
from generalist.episode import Episode, success_so_far, tree_stack
from generalist.errors import GeneralistError, in_words

_NUMBERS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class EpisodeError(GeneralistError):
    """A fault of an environment or an expert in an episode; names task, seed and step."""


@dataclass(frozen=True)
class Hindsight:
    """What an episode did in place of what was asked for.

    Attributes:
        steps: in how many steps.
        instruction: the instruction that it followed so far.
        reward: what its last step would have earned under that instruction.
    """

    steps: int
    instruction: str
    reward: float


class Trace:
    """A running episode. The constructor resets the environment.

    Args:
        env: an environment of the task.
        task: name of the task.
        seed: seed for `env.reset`.
        keep_steps: keep observations and actions, for `to_episode`.
        max_steps: cut (truncate) the episode there, below the task's own limit.

    Attributes:
        observation: the latest observation.
        info: the latest info dict.
        instruction: what to do, in words; None where nobody says so.
        rewards: the raw rewards, one for each step so far.
        terminated: whether the task has ended the episode.
        truncated: whether a limit has cut the episode.
        success: what `info["success"]` has said so far; None where it says nothing.
        action: the latest action; None before the first step.
        observations: the observation before each step, if `keep_steps`.
        actions: the action of each step, if `keep_steps`.
        labels: the label of each step, where somebody gave one.
        hindsight: what was done in place of what was asked for, as the environment first said it in
            `info["hindsight"]`; None where nothing was.

    Raises:
        EpisodeError: the environment raises, or returns an invalid observation, reward or outcome.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        task: str,
        seed: int,
        *,
        keep_steps: bool = False,
        max_steps: int | None = None,
    ) -> None:
        self.env = env
        self.task = task
        self.seed = int(seed)
        self.rewards: list[float] = []
        self.terminated = False
        self.truncated = False
        self.success: bool | None = None
        self.action: Any = None
        self.observations: list[Any] = []  # these two only if kept
        self.actions: list[Any] = []
        self.labels: list[Any] = []  # where somebody was asked for them
        self.hindsight: Hindsight | None = None
        self._keep_steps = keep_steps
        self._max_steps = max_steps
        try:
            self.observation, self.info = _pair(env.reset(seed=self.seed))
        except Exception as error:
            self.blame("the environment", error)
        self._check_observation()
        self.instruction: str | None = self.info.get("instruction")

    @property
    def done(self) -> bool:
        """True once the episode has ended or was cut."""
        return self.terminated or self.truncated

    @property
    def named_first(self) -> bool | None:
        """Whether the first thing reached so far is the one that the instruction names.

        None where the environment says nothing of it in `info["named_first"]`.
        """
        return self.info.get("named_first")

    @property
    def statement(self) -> dict[str, str | None] | None:
        """What was asked and said of a picture; None where nothing was, or not yet.

        As the environment says it in `info`: `asked`, `truth`, `said` and `form`.
        """
        if "said" not in self.info:
            return None
        return {key: self.info.get(key) for key in ("form", "asked", "truth", "said")}

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return len(self.rewards)

    @property
    def return_(self) -> float:
        """Sum of the raw rewards so far."""
        return float(np.sum(self.rewards, dtype=np.float64))

    @property
    def mask(self) -> Any:
        """The mask of legal actions, as the action space's `sample` takes it; None: all are legal.

        Raises:
            EpisodeError: `info["action_mask"]` has another form, or allows no action.
        """
        try:
            return checked_mask(self.env.action_space, self.info.get("action_mask"))
        except GeneralistError as error:
            self.blame("the environment", error)

    def step(self, action: Any) -> None:
        """Execute an action.

        Raises:
            EpisodeError: the environment raises, or returns an invalid outcome.
        """
        before = copy.deepcopy(self.observation) if self._keep_steps else None
        try:
            outcome = self.env.step(copy.deepcopy(action))  # which may change it
            self.observation, reward, terminated, truncated, self.info = _outcome(outcome)
            earned = _number(reward)
            self.hindsight = self.hindsight or _hindsight(self.steps + 1, self.info)
            self.rewards.append(earned)
        except Exception as error:
            self.blame("the environment", error)
        if self._keep_steps:
            self.observations.append(before)
            self.actions.append(action)
        self.action = action
        self.success = success_so_far(self.success, self.info)
        self.terminated, self.truncated = bool(terminated), bool(truncated)
        if self._max_steps is not None and self.steps >= self._max_steps:
            self.truncated = not self.terminated
        self._check_observation()

    def _check_observation(self) -> None:
        if said := _wrong(self.observation, self.env.observation_space, "observation"):
            raise EpisodeError(f"{self.place}: the environment's {said}.")

    @property
    def place(self) -> str:
        """Task, seed and step, for errors."""
        return f"{self.task}, seed {self.seed}, step {self.steps}"

    def blame(self, who: str, error: Exception) -> NoReturn:
        """Raise an error of `who` again, as an EpisodeError that names the place.

        Wrong use by the user and missing packages keep their own classes.

        Args:
            who: the party at fault, in words.
            error: what it raised.

        Raises:
            EpisodeError: for an error of the environment or the expert.
            GeneralistError: the `error` itself, where it is of a subclass.
        """
        if not isinstance(error, GeneralistError):
            raise EpisodeError(f"{self.place}: {who} raised {in_words(error)}.") from error
        if type(error) is GeneralistError:
            raise EpisodeError(f"{self.place}: {error}") from error
        raise error

    def to_episode(self, info: dict[str, Any]) -> Episode:
        """The whole episode; needs `keep_steps`.

        Args:
            info: facts to add to the episode's `info`, such as who acted.
        """
        return Episode(
            task=self.task,
            observations=tree_stack(self.observations),
            actions=tree_stack(self.actions),
            rewards=np.asarray(self.rewards, np.float32),
            terminated=self.terminated,
            truncated=self.truncated,
            labels=tree_stack(self.labels) if self.labels else None,
            instruction=self.instruction,
            info={
                "seed": self.seed,
                **info,
                **({} if self.success is None else {"success": self.success}),
            },
        )

    def in_hindsight(self, info: dict[str, Any]) -> Episode:
        """The episode up to what was done instead, with the instruction for that.

        It needs `keep_steps`, and `hindsight`.

        Args:
            info: facts to add to the episode's `info`, such as who acted.
        """
        assert self.hindsight is not None
        steps = self.hindsight.steps
        rewards = np.asarray([*self.rewards[: steps - 1], self.hindsight.reward], np.float32)
        return Episode(
            task=self.task,
            observations=tree_stack(self.observations[:steps]),
            actions=tree_stack(self.actions[:steps]),
            rewards=rewards,
            terminated=True,
            truncated=False,
            instruction=self.hindsight.instruction,
            info={"seed": self.seed, **info, "success": True},
        )


def _pair(returned: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict):
        return returned
    raise GeneralistError(
        f"the environment's reset returned {_form(returned)}; expected an observation and a dict "
        "of information."
    )


def _outcome(returned: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    if isinstance(returned, tuple) and len(returned) == 5 and isinstance(returned[4], dict):
        return returned
    raise GeneralistError(
        f"the environment's step returned {_form(returned)}; expected observation, reward, "
        "terminated, truncated and a dict of information."
    )


def _hindsight(steps: int, info: Mapping[str, Any]) -> Hindsight | None:
    """What `info` says of an episode of so many steps; None where it says nothing."""
    if (said := info.get("hindsight")) is None:
        return None
    try:
        return Hindsight(steps, str(said["instruction"]), _number(said["reward"]))
    except (KeyError, TypeError) as error:
        raise GeneralistError(
            f"the environment's info['hindsight'] is {said!r}; expected a dict with `instruction` "
            "and `reward`."
        ) from error


def _number(reward: Any) -> float:
    """A reward as a float; raises GeneralistError where it is not one finite number."""
    if type(reward) is not float:
        array = np.asarray(reward)
        if array.ndim or array.dtype.kind not in "biuf":
            raise GeneralistError(
                f"the environment's reward is {_form(reward)}; expected one number."
            )
        reward = float(array)
    if not math.isfinite(reward):
        raise GeneralistError(f"the environment's reward is {reward}; expected a finite number.")
    return reward


def _form(value: Any) -> str:
    """The form of a value in words, such as `an array of shape (1,)` or `a tuple of 4`."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"


def _wrong(value: Any, space: spaces.Space, name: str) -> str | None:
    """Why a value does not belong to a space, in words; None where it does.

    Real numbers may exceed their bounds. Values without a shape, such as texts, are not checked.
    """
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            if not isinstance(value, dict) or key not in value:
                return f"{name} has no {key!r}"
            if said := _wrong(value[key], part, f"{name}/{key}"):
                return said
    elif isinstance(space, spaces.Tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
            return f"{name} is {_form(value)}; its space is a tuple of {len(space.spaces)}"
        for index, part in enumerate(space.spaces):
            if said := _wrong(value[index], part, f"{name}/{index}"):
                return said
    elif isinstance(space, _NUMBERS):
        array = np.asarray(value)
        if array.shape != space.shape:
            return f"{name} has shape {array.shape}; its space has {space.shape}"
        if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
            return f"{name} is {_first(array, ~finite)}"
        if array.dtype.kind in "iu" and (outside := _outside(array, space)).any():
            return f"{name} is {_first(array, outside)}, which is not in its space {space}"
    return None


def _outside(array: np.ndarray, space: spaces.Space) -> np.ndarray:
    """A mask of the integers in an array that exceed the bounds of their space."""
    if isinstance(space, spaces.Box):
        return (array < space.low) | (array > space.high)
    if isinstance(space, spaces.MultiBinary):
        return (array < 0) | (array > 1)
    count = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return (array < space.start) | (array >= space.start + count)


def _first(array: np.ndarray, wrong: np.ndarray) -> str:
    """The first wrong element and its index, in words."""
    place = tuple(map(int, np.argwhere(wrong)[0]))
    return f"{array[place]}" + (f" at {list(place)}" if place else "")
