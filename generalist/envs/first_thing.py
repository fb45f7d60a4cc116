"""Which thing a BabyAI agent reaches first: wandering solves missions, but not in the right order.

An agent that goes from thing to thing, whatever it is told, solves seven of ten missions of
GoToLocal. Which thing it reaches first shows whether it reads its instruction.
"""

from __future__ import annotations

from typing import Any

_MOVABLE = ("ball", "box", "key")


class FirstThing:
    """Watches a mission until the agent has reached a thing: it stands before the thing, facing it.

    That is BabyAI's own check of "go to". Things are balls, boxes and keys; doors too, where all
    named things are in the agent's room, because the way to another room leads to doors.

    Args:
        level: a BabyAI level that was just reset.

    Attributes:
        named: whether the first thing reached is one that the instruction names first. False while
            nothing was reached; None where the instruction does not decide it, see `named_things`.
    """

    def __init__(self, level: Any) -> None:
        self._level = level
        self._things = named_things(level)
        self._kinds: tuple[str, ...] = _MOVABLE
        if self._things is not None and _all_in_own_room(level, self._things):
            self._kinds = (*_MOVABLE, "door")
        self._reached = False
        self.named: bool | None = None if self._things is None else False

    def see(self) -> None:
        """Look at what the agent faces, after each step."""
        if self._reached or self._things is None:
            return
        faced = self._level.grid.get(*self._level.front_pos)
        if faced is not None and faced.type in self._kinds:
            self._reached = True
            self.named = any(faced is each for each in self._things)


def named_things(level: Any) -> list[Any] | None:
    """The things of which the agent should reach one before any other.

    They are what is to be gone to, picked up, opened or moved: of a sequence its first part, of two
    parts in any order both.

    Args:
        level: a BabyAI level that was just reset.

    Returns:
        The objects of the level that fit the description. None where the agent may have to reach
        others first: to open a locked door, to clear its way, or to get to a door of another room.
    """
    from minigrid.envs.babyai.core.verifier import OpenInstr, PutNextInstr

    if level.carrying is not None or not level.check_objs_reachable(raise_exc=False):
        return None
    things, locked = [], []
    for part in _first(level.instrs):
        description = part.desc_move if isinstance(part, PutNextInstr) else part.desc
        things += description.obj_set
        if isinstance(part, OpenInstr):
            locked += [door for door in description.obj_set if door.is_locked]
    if _all_in_own_room(level, things):
        return None if locked else things
    to_a_door = any(each.type == "door" for each in things)
    return None if to_a_door or _has_locked_door(level) else things


def _first(instruction: Any) -> list[Any]:
    """The parts of an instruction that may come first."""
    from minigrid.envs.babyai.core.verifier import AfterInstr, AndInstr, BeforeInstr

    if isinstance(instruction, BeforeInstr):
        return _first(instruction.instr_a)
    if isinstance(instruction, AfterInstr):
        return _first(instruction.instr_b)
    if isinstance(instruction, AndInstr):
        return [*_first(instruction.instr_a), *_first(instruction.instr_b)]
    return [instruction]


def _has_locked_door(level: Any) -> bool:
    doors = (cell for cell in level.grid.grid if cell is not None and cell.type == "door")
    return any(door.is_locked for door in doors)


def _all_in_own_room(level: Any, things: list[Any]) -> bool:
    """Whether all of these are things in the agent's room, or doors of it."""
    room = level.room_from_pos(*level.agent_pos)
    (left, top), (width, height) = room.top, room.size
    # Walls and doors included; not every thing knows its own place.
    cells = [
        level.grid.get(x, y) for x in range(left, left + width) for y in range(top, top + height)
    ]
    return all(any(each is cell for cell in cells) for each in things)
