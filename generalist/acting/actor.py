"""Actor: the short way for people to act with a policy, for one environment or many at once.

Legend: N = environments acted in by one call.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from generalist.envs.vector import VectorEpisodes, split_infos
from generalist.episode import Tree, tree_map
from generalist.errors import GeneralistError
from generalist.policy import Decision, Policy

Info = Mapping[str, Any]


class Actor(Policy):
    """A policy with `act` on top of `begin` and `decide`."""

    def __init__(self) -> None:
        self._started = 0  # episodes started by `act`: the default seed of the next
        self._begun: set[int] = set()  # slots in which `act` has begun an episode

    @abstractmethod
    def begin(self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Info]) -> None:
        """As `Policy.begin`."""

    @abstractmethod
    def decide(self, observations: Tree, infos: Sequence[Info], slots: Sequence[int]) -> Decision:
        """As `Policy.decide`."""

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        self._begun.difference_update(slots)

    def release(self) -> None:
        """Forget all episodes."""
        self._begun.clear()

    def act(
        self,
        observations: Tree,
        first: bool | np.ndarray | None = None,
        *,
        infos: Info | Sequence[Info] | None = None,
        instructions: str | Sequence[str | None] | np.ndarray | None = None,
        action_masks: Any = None,
        wanted_returns: str | float | Sequence[str | float | None] | np.ndarray | None = None,
        rewards: float | Sequence[float] | np.ndarray | None = None,
        slots: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Tree:
        """The next action, or N of them.

        Args:
            observations: of one environment where `first` is a bool (or None), else a batch: a
                tree of arrays with leading axis N, as a Gymnasium vector environment returns it.
            first: True where an episode begins with this observation; (N,) bool for a batch.
                None: one environment, whose episode begins at the first call.
            infos: what came with the observations, of which `instruction` and `wanted_return` are
                read where an episode begins, and `action_mask` and `reward`: an environment's info,
                a vector environment's infos, or a sequence of N infos.
            instructions: what to do, in words, in place of the infos'; one for each environment,
                or one for all.
            action_masks: which actions are legal now, in place of the infos', each as the action
                space's `sample` takes it; for a batch N masks, of which some may be None. Other
                actions are never chosen.
            wanted_returns: what an episode that begins is asked for, in place of the policy's own
                setting and the infos'; one for each environment, or one for all.
            rewards: what the last actions earned, in place of the infos'. They are needed where a
                return was asked for as a number, but for an episode that begins.
            slots: which running episodes these N are, where not all are acted in; None for
                0 to N - 1.
            seeds: of the sampling and of the choice among prompts, where an episode begins; the
                action then depends on nothing outside its own episode.

        Returns:
            An action, or a batch of actions with leading axis N, of the action space's dtype.
        """
        if first is None or isinstance(first, (bool, np.bool_)):
            if first is None:
                first = (0 if slots is None else slots[0]) not in self._begun
            alone = [infos] if isinstance(infos, Mapping) else infos
            masks = None if action_masks is None else [action_masks]
            told = _told(1, alone, instructions, masks, wanted_returns, rewards)
            batch = tree_map(lambda leaf: np.asarray(leaf)[None], observations)
            own = [0] if slots is None else slots
            actions = self._act(batch, np.array([first]), told, own, seeds)
            return tree_map(lambda leaf: leaf[0], actions)
        first = np.asarray(first, dtype=bool)
        told = _told(first.size, infos, instructions, action_masks, wanted_returns, rewards)
        own = range(first.size) if slots is None else slots
        return self._act(observations, first, told, own, seeds)

    def act_vector(self, envs: VectorEpisodes, seeds: Sequence[int] | None = None) -> Tree:
        """The next actions of a vector environment, in any autoreset mode.

        Args:
            envs: the vector environment.
            seeds: one for each of its N rows, used where an episode begins, as `act` has them.

        Returns:
            A tree of arrays with leading axis N, for `envs.step`.
        """
        rows = envs.rows
        if not len(rows):
            return envs.actions(None)
        chosen = self.act(
            envs.row_observations,
            envs.first[rows],
            infos=[envs.infos[row] for row in rows],
            slots=rows.tolist(),
            seeds=None if seeds is None else [seeds[row] for row in rows],
        )
        return envs.actions(chosen)

    def _act(
        self,
        observations: Tree,
        first: np.ndarray,
        infos: Sequence[Info],
        slots: Sequence[int],
        seeds: Sequence[int] | None,
    ) -> Tree:
        starting = np.flatnonzero(first).tolist()
        begun = [int(slots[i]) for i in starting]
        chosen = [
            self._started + number if seeds is None else int(seeds[i])
            for number, i in enumerate(starting)
        ]
        if begun:
            self.begin(begun, chosen, [infos[i] for i in starting])
        decision = self.decide(observations, infos, [int(slot) for slot in slots])
        self._started += len(begun)  # not before: an interrupted call may be repeated
        self._begun.update(begun)
        return decision.actions


def _told(
    count: int,
    infos: Info | Sequence[Info] | None,
    instructions: str | Sequence[str | None] | np.ndarray | None,
    masks: Sequence[Any] | None,
    wanted_returns: Any,
    rewards: Any,
) -> list[dict[str, Any]]:
    """What each of `count` environments says, as `Policy` has it."""
    if infos is None:
        told: list[dict[str, Any]] = [{} for _ in range(count)]
    elif isinstance(infos, Mapping):
        told = split_infos(infos, count)
    else:
        told = [dict(info) for info in infos]
    if isinstance(instructions, str):
        instructions = [instructions] * count
    if isinstance(wanted_returns, (str, int, float, np.number)):
        wanted_returns = [wanted_returns] * count
    if rewards is not None:
        rewards = np.reshape(rewards, -1).tolist()
    given = {
        "instruction": instructions,
        "action_mask": masks,
        "wanted_return": wanted_returns,
        "reward": rewards,
    }
    for what, values in (("infos", told), *given.items()):
        if values is not None and len(values) != count:
            raise GeneralistError(
                f"Got {len(values)} {what.replace('_', ' ')}s for {count} environments."
            )
    for key, values in given.items():
        if values is not None:
            for info, value in zip(told, values, strict=True):
                info[key] = value
    return told
