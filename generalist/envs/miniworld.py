"""MiniWorld: rooms in 3D, told in words, played with keys and a mouse; `miniworld/GoTo`.

Chevalier-Boisvert et al. 2023 (arXiv:2306.13831) made the simulator; the tasks are this project's.
A seed draws the room, its things, and the instruction. Frames are 84x84 RGB, six a second. In a
step the agent turns, then walks up to 0.4 m, then uses what stands ahead. The world is drawn
without a display. Success is judged by the simulator's state (`missions.py`).
"""

from __future__ import annotations

import importlib.util

from generalist.envs.instructed import World
from generalist.envs.miniworld_room import COLOURS, KINDS, MiniWorldRoom, radius_of
from generalist.envs.registry import Task
from generalist.envs.skills import SKILLS, Kit, any_of
from generalist.errors import MissingPackageError

HELD_OUT = (("red", "column"), ("green", "key"), ("blue", "ball"), ("yellow", "box"))
"""Pairs of colour and kind that stand in no room of training."""

WORLD = World(
    kit=Kit(tuple((c, k) for c in COLOURS for k in KINDS), HELD_OUT, radius_of, KINDS),
    skills={**SKILLS, "Any": any_of(SKILLS)},
    new_room=MiniWorldRoom,
    sides=(6.0, 8.0),
    apart=1.9,
    from_agent=1.7,
    frames_per_second=6,
)
REGISTERED = {name: skill.description for name, skill in WORLD.skills.items()}


def names() -> list[str]:
    """Every task. Raises MissingPackageError where MiniWorld is missing."""
    if importlib.util.find_spec("miniworld") is None:  # an import would load OpenGL for a list
        raise MissingPackageError("miniworld", "miniworld/")
    return list(WORLD.skills)


def find(name: str) -> Task | None:
    """The task of a skill; None for an unknown one."""
    return WORLD.task("miniworld", name)
