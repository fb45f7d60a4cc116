"""Which rows of a Gymnasium vector environment begin an episode, in each autoreset mode.

NEXT_STEP (Gymnasium's default): the step after the last of an episode ignores its action, and
returns the first observation of the next episode. SAME_STEP: the last step of an episode returns
it in place of the last observation. DISABLED: nobody resets a row but `reset` with a `reset_mask`.
So the rows that begin are those that ended a step ago, those that end now, or those reset by hand.

Legend: N = rows, the environments that step together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import create_empty_array, iterate

from generalist.episode import Tree, tree_map, tree_stack
from generalist.errors import UsageError


class VectorEpisodes(VectorWrapper):
    """A vector environment that knows where episodes begin and end.

        envs = VectorEpisodes(gymnasium.make_vec("CartPole-v1", num_envs=8))
        envs.reset(seed=0)
        while True:
            observations, rewards, terminated, truncated, infos = envs.step(agent.act_vector(envs))
            if envs.mode is AutoresetMode.DISABLED and envs.ended.any():
                envs.reset(options={"reset_mask": envs.ended})

    Stepping and resetting return what the wrapped environment returns.

    Args:
        envs: a vector environment.

    Attributes:
        mode: its autoreset mode.
        first: (N,) bool, rows whose latest observation begins an episode.
        ended: (N,) bool, rows whose latest observation is the last of an episode: they are reset
            next, and no action is to be chosen for them.
        observations: the latest, a tree of arrays with leading axis N.
        infos: the latest of each row, as a single environment gives it. After a masked reset those
            of the other rows are still there, which the wrapped environment then leaves out.

    Raises:
        UsageError: the environment does not say its autoreset mode.
    """

    def __init__(self, envs: VectorEnv) -> None:
        super().__init__(envs)
        self.mode = _mode(envs)
        self.first = np.zeros(envs.num_envs, bool)
        self.ended = np.zeros(envs.num_envs, bool)
        self.observations: Tree = None
        self.infos: list[dict[str, Any]] = [{} for _ in range(envs.num_envs)]

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Tree, dict[str, Any]]:
        """As the wrapped environment: all rows, or those of `options["reset_mask"]`."""
        begun = np.ones(self.num_envs, bool)
        if options is not None and "reset_mask" in options:
            begun = np.array(options["reset_mask"], bool)
        observations, infos = self.env.reset(seed=seed, options=options)
        rows = split_infos(infos, self.num_envs)
        self.observations = observations
        self.infos = [
            new if is_new else old for new, old, is_new in zip(rows, self.infos, begun, strict=True)
        ]
        self.first, self.ended = self.first | begun, self.ended & ~begun
        return observations, infos

    def step(self, actions: Tree) -> tuple[Tree, Any, Any, Any, dict[str, Any]]:
        """As the wrapped environment."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        done = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        self.observations, self.infos = observations, split_infos(infos, self.num_envs)
        for info, reward in zip(self.infos, np.asarray(rewards).tolist(), strict=True):
            info["reward"] = reward
        if self.mode is AutoresetMode.NEXT_STEP:
            self.first, self.ended = self.ended, done
        elif self.mode is AutoresetMode.SAME_STEP:
            self.first = done
        else:
            self.first, self.ended = np.zeros(self.num_envs, bool), done
        return observations, rewards, terminated, truncated, infos

    @property
    def rows(self) -> np.ndarray:
        """(n,) int64, the rows for which an action is to be chosen: those that have not ended."""
        return np.flatnonzero(~self.ended)

    @property
    def row_observations(self) -> Tree:
        """The latest observations of `rows`, leading axis n."""
        rows = self.rows
        if len(rows) == self.num_envs:
            return self.observations
        single = list(iterate(self.observation_space, self.observations))
        return tree_stack([single[row] for row in rows])

    def actions(self, chosen: Tree) -> Tree:
        """Actions of `rows`, leading axis n, to actions of all N; zeros where none was chosen."""
        rows = self.rows
        if not len(rows):
            return create_empty_array(self.single_action_space, self.num_envs, fn=np.zeros)

        def spread(leaf: np.ndarray) -> np.ndarray:
            full = np.zeros((self.num_envs, *leaf.shape[1:]), leaf.dtype)
            full[rows] = leaf
            return full

        return tree_map(spread, chosen)


def split_infos(infos: Mapping[str, Any], rows: int) -> list[dict[str, Any]]:
    """The info of each row, from what a vector environment says of all.

    `infos["_key"]`, (rows,) bool, says which rows have `infos["key"]`. A key without such flags is
    left out. Infos within infos are split as well.
    """
    split: list[dict[str, Any]] = [{} for _ in range(rows)]
    for key, values in infos.items():
        flags = infos.get(f"_{key}")
        if flags is None:
            continue
        parts = split_infos(values, rows) if isinstance(values, Mapping) else values
        for row in np.flatnonzero(flags):
            split[row][key] = parts[row]
    return split


def _mode(envs: VectorEnv) -> AutoresetMode:
    """Of the environment itself: older versions of Gymnasium share metadata among classes."""
    mode = getattr(envs.unwrapped, "autoreset_mode", None) or envs.metadata.get("autoreset_mode")
    try:
        return mode if isinstance(mode, AutoresetMode) else AutoresetMode(mode)
    except ValueError:
        known = ", ".join(each.name for each in AutoresetMode)
        raise UsageError(
            f"The vector environment {envs} has the autoreset mode {mode!r}; expected one of "
            f"{known} in its metadata['autoreset_mode']."
        ) from None
