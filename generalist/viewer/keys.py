"""Keys of which any may be down at a time, and a mouse: how a person acts in Doom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.errors import UsageError

# Names of keys, and the key of a keyboard that does it.
_KEYBOARD = {
    "ATTACK": " ", "USE": "e", "SPEED": "Shift", "STRAFE": "x", "MOVE_FORWARD": "w",
    "MOVE_BACKWARD": "s", "MOVE_LEFT": "a", "MOVE_RIGHT": "d", "TURN_LEFT": "ArrowLeft",
    "TURN_RIGHT": "ArrowRight", "SELECT_NEXT_WEAPON": "r", "SELECT_PREV_WEAPON": "q",
    **{f"SELECT_WEAPON{number}": str(number) for number in range(10)},
}  # fmt: skip
_AXES = {"TURN_LEFT_RIGHT_DELTA": "x", "LOOK_UP_DOWN_DELTA": "y"}
_TURN_KEYS = ("TURN_LEFT", "TURN_RIGHT")
_LEAST_TURN = 1.0  # degrees of the mouse in a step that press a key to turn
_MOST = 24  # keys that a page has buttons for


class Keys:
    """Which keys a person holds down, and how far the mouse has moved since the last step.

    The space is a MultiBinary, or a Dict of a MultiBinary "keys" and a Box "mouse". Where there is
    no mouse, but two keys that turn, the mouse presses them.

    Args:
        env: an environment with such a space.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        parts = _parts(env.action_space)
        assert parts is not None
        keys, self._mouse = parts
        self._count = int(keys.shape[0])
        inner: Any = env.unwrapped
        names = getattr(inner, "keys", None)
        named = isinstance(names, tuple) and len(names) == self._count
        self._names = tuple(map(str, names if named else range(self._count)))  # type: ignore[arg-type]
        self._motions: tuple[str, ...]
        self._down: np.ndarray
        self._moved: np.ndarray
        if self._mouse is not None:
            self._motions = tuple(inner.mouse)
        elif set(_TURN_KEYS) <= set(self._names):
            self._motions = ("TURN_LEFT_RIGHT_DELTA",)
        else:
            self._motions = ()
        self.let_go()

    @classmethod
    def fit(cls, space: gymnasium.Space) -> bool:
        """Whether a person can act in a space by keys."""
        return _parts(space) is not None

    def to_dict(self) -> dict[str, Any]:
        """What the page draws: `toggles` (label, key), and the axis of the mouse of each motion."""
        toggles = [
            {"label": name.lower().replace("_", " "), "key": _KEYBOARD.get(name)}
            for name in self._names
        ]
        return {"toggles": toggles, "motions": [_AXES.get(name) for name in self._motions]}

    def hold(self, numbers: Sequence[float]) -> None:
        """Hold keys down until others come, and add motions of the mouse.

        Args:
            numbers: 0 or 1 for each key; then degrees for each motion, to the right positive.

        Raises:
            UsageError: there are more or fewer numbers, or a key is neither up nor down.
        """
        wanted = self._count + len(self._motions)
        if len(numbers) != wanted:
            raise UsageError(f"An action here has {wanted} numbers; got {len(numbers)}.")
        keys = np.asarray(numbers[: self._count], np.float64)
        if not np.isin(keys, (0, 1)).all():
            raise UsageError(f"A key is 0 or 1; got {keys.tolist()}.")
        self._down = keys.astype(np.int8)
        self._moved = self._moved + np.asarray(numbers[self._count :], np.float64)

    def let_go(self) -> None:
        """All keys are up, and the mouse rests."""
        self._down = np.zeros(self._count, np.int8)
        self._moved = np.zeros(len(self._motions))

    def stepped(self) -> None:
        """A step has used what the mouse moved."""
        self._moved = np.zeros(len(self._motions))

    @property
    def action(self) -> Any:
        """The action of the next step."""
        keys = self._down.copy()
        if self._mouse is not None:
            moved = np.clip(self._moved, self._mouse.low, self._mouse.high)
            return {"keys": keys, "mouse": moved.astype(self._mouse.dtype)}
        if self._motions and abs(self._moved[0]) >= _LEAST_TURN:
            left, right = (self._names.index(name) for name in _TURN_KEYS)
            keys[[left, right]] = (1, 0) if self._moved[0] < 0 else (0, 1)
        return keys


def _parts(space: gymnasium.Space) -> tuple[spaces.MultiBinary, spaces.Box | None] | None:
    """The keys and the mouse of a space; None where it is not made of them."""
    mouse = None
    if isinstance(space, spaces.Dict) and set(space.spaces) == {"keys", "mouse"}:
        space, mouse = space["keys"], space["mouse"]
        if not isinstance(mouse, spaces.Box):
            return None
    if not isinstance(space, spaces.MultiBinary) or len(space.shape) != 1:
        return None
    return (space, mouse) if int(space.shape[0]) <= _MOST else None
