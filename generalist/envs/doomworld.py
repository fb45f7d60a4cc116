"""Rooms in Doom's engine, told in words, played with keys and a mouse; `doomworld/GoTo`.

The engine is ViZDoom's (Kempka et al. 2016, arXiv:1605.02097); maps and tasks are this project's.
A seed draws the room, its things, and the instruction. Frames are 84x84 RGB. A step lasts 4 tics
of the engine's 35 a second. Success is judged by the engine's list of objects (`missions.py`).
"""

from __future__ import annotations

from generalist.envs.doom import engine
from generalist.envs.doom_room import FOES, PAIRS, PORTABLE, DoomRoom, radius_of
from generalist.envs.instructed import World
from generalist.envs.registry import Task
from generalist.envs.skills import SHOOTING, SKILLS, Kit, any_of

HELD_OUT = (("blue", "torch"), ("red", "skull"))
"""Pairs of colour and kind that stand in no room of training."""

_MISSING = ("GoToSize", "GoToDoor", "OpenDoor", "OpenGoTo", "OpenPickUp", "Exit", "PutNext")
"""Skills that take doors, sizes, or a thing that is carried."""
_OWN = {name: skill for name, skill in SKILLS.items() if name not in _MISSING} | SHOOTING
WORLD = World(
    kit=Kit(PAIRS, HELD_OUT, radius_of, PORTABLE, FOES),
    skills={**_OWN, "Any": any_of(_OWN)},
    new_room=DoomRoom,
    sides=(8.0, 10.0),
    apart=2.7,
    from_agent=2.2,
    frames_per_second=9,
)
REGISTERED = {name: skill.description for name, skill in WORLD.skills.items()}


def names() -> list[str]:
    """Every task."""
    engine()  # says what is missing
    return list(WORLD.skills)


def find(name: str) -> Task | None:
    """The task of a skill; None for an unknown one."""
    return WORLD.task("doomworld", name)
