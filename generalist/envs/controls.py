"""Keys and mouse of the 3D worlds: one dictionary, so that a name means the same in every world.

An action is a Dict of `keys`, a MultiBinary with one button a place, and `mouse`, a Box of two
motions in degrees a step. Every task has all of them in this order, whether it needs them or not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

KEYS = {
    "W": "walk ahead",
    "S": "walk back",
    "A": "step to the left",
    "D": "step to the right",
    "E": "use what stands ahead: pick it up, open it; with full hands, put down what is held",
    "LMB": "attack",
}
"""Name of each button, in the order of an action, and what it does."""
MOUSE = {
    "yaw": "turn; positive is to the right",
    "pitch": "look up or down; positive is up",
}
"""Name of each motion of the mouse, in the order of an action, and what it does."""
CONTROLS = (*KEYS, *MOUSE)
"""The names of all of an action, in its order."""
YAW_HIGH, PITCH_HIGH = 45.0, 20.0  # degrees a step


def control_space() -> spaces.Dict:
    """The space of actions: {"keys": MultiBinary, "mouse": Box of float32 degrees}."""
    high = np.array([YAW_HIGH, PITCH_HIGH], np.float32)
    return spaces.Dict(
        {"keys": spaces.MultiBinary(len(KEYS)), "mouse": spaces.Box(-high, high, dtype=np.float32)}
    )


def pressed(*keys: str, yaw: float = 0.0, pitch: float = 0.0) -> dict[str, Any]:
    """An action: the buttons that are held, and degrees of the mouse, cut to what a step allows."""
    held = np.array([name in keys for name in KEYS], np.int8)
    mouse = np.clip([yaw, pitch], [-YAW_HIGH, -PITCH_HIGH], [YAW_HIGH, PITCH_HIGH])
    return {"keys": held, "mouse": mouse.astype(np.float32)}


def held_keys(action: Any) -> set[str]:
    """The names of the buttons that an action holds."""
    return {name for name, down in zip(KEYS, action["keys"], strict=True) if down}
