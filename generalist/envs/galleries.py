"""Galleries: the simulators whose pictures are spoken about, by name."""

from __future__ import annotations

from generalist.envs.seen import Camera
from generalist.envs.speaking import Gallery


def _babyai() -> Camera:
    from generalist.envs.babyai_pictures import BabyAICamera

    return BabyAICamera()


def _miniworld() -> Camera:
    from generalist.envs.miniworld import WORLD
    from generalist.envs.world_pictures import WorldCamera

    return WorldCamera(WORLD)


def _doom() -> Camera:
    from generalist.envs.doomworld import WORLD
    from generalist.envs.world_pictures import WorldCamera

    return WorldCamera(WORLD)


GALLERIES = {
    "BabyAI": Gallery(_babyai, "what the agent sees in a room of BabyAI"),
    "MiniWorld": Gallery(_miniworld, "a room of MiniWorld"),
    "Doom": Gallery(_doom, "a room in Doom's engine"),
}
