"""What a BabyAI agent did instead: the instruction that it fulfilled first, in the level's words.

Andrychowicz et al. 2017 (Hindsight Experience Replay), in words: an episode that went to the blue
key, when told to go to the red ball, shows how to go to the blue key.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

_DESCRIBED = ("ball", "box", "door", "key")  # what BabyAI has words for


class Hindsight:
    """Watches a mission of one clause until such a clause is fulfilled, about whatever thing.

    The clauses are "go to", "pick up" and "open". BabyAI's own checker would have called the same
    step a success, had this been the mission.

    Args:
        level: a BabyAI level that was just reset.
    """

    def __init__(self, level: Any) -> None:
        from minigrid.envs.babyai.core.verifier import GoToInstr, OpenInstr, PickupInstr

        self._level, self._watching = level, True
        self._held = level.carrying
        self._verb = {GoToInstr: "go to", PickupInstr: "pick up", OpenInstr: "open"}.get(
            type(level.instrs)
        )
        # Of the start, when a mission would be said: what is picked up is on the grid no more.
        self._counts = Counter(
            (cell.color, cell.type) for cell in level.grid.grid if cell is not None
        )

    def see(self, action: int) -> dict[str, Any] | None:
        """Look at the last step.

        Returns:
            Once, in the step in which another thing than the named was reached, picked up or opened
            first: the `instruction` for it, and the `reward` that it would have earned.
        """
        if self._verb is None or not self._watching:
            return None
        thing = self._fulfilled(action)
        self._held = self._level.carrying
        if thing is None or thing.type not in _DESCRIBED:
            return None
        self._watching = False
        if any(thing is each for each in self._level.instrs.desc.obj_set):
            return None
        pair = thing.color, thing.type
        article = "a" if self._counts[pair] > 1 else "the"
        said = f"{self._verb} {article} {thing.color} {thing.type}"
        return {"instruction": said, "reward": float(self._level._reward())}

    def _fulfilled(self, action: int) -> Any:
        """The thing about which the last step fulfilled a clause; None for none."""
        level, faced = self._level, self._level.grid.get(*self._level.front_pos)
        if self._verb == "go to":
            return faced
        if self._verb == "pick up":
            taken = action == level.actions.pickup and self._held is None
            return level.carrying if taken else None
        is_open = faced is not None and faced.type == "door" and faced.is_open
        return faced if is_open and action == level.actions.toggle else None
