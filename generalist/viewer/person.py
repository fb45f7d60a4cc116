"""How a person acts: which keys and buttons an action space has, and their action."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.board_games import find_game
from generalist.errors import UsageError
from generalist.viewer.keys import Keys
from generalist.viewer.names import action_names, board_move_names

TURN_FAMILIES = ("babyai", "board")
"""Families that wait for the person: one key, one step."""
_MOST_SLIDERS = 12
# Words in the names of actions, and the key that does it; the first that fits.
_KEYS = (
    ("upright", "e"), ("upleft", "q"), ("downright", "c"), ("downleft", "y"),
    ("left", "ArrowLeft"), ("right", "ArrowRight"), ("up", "ArrowUp"), ("forward", "ArrowUp"),
    ("down", "ArrowDown"), ("main engine", "ArrowUp"), ("fire", " "), ("toggle", " "),
    ("pickup", "p"), ("drop", "d"), ("done", "Enter"), ("torque -1", "ArrowLeft"),
    ("torque +1", "ArrowRight"),
)  # fmt: skip
_IDLE = ("noop", "nothing", "no torque")


class Controls:
    """The actions of a person in one task.

    Args:
        task: its name.
        env: an environment of the task.

    Attributes:
        turns: whether the environment waits for the person.
    """

    def __init__(self, task: str, env: gymnasium.Env) -> None:
        self._space = env.action_space
        self._names = action_names(task, env) or board_move_names(env)
        self.turns = task.partition("/")[0] in TURN_FAMILIES
        self._cells = _cells(task.partition("/")[2]) if task.startswith("board/") else None
        self._keys = Keys(env) if Keys.fit(env.action_space) else None
        self._held: Any = None

    def to_dict(self) -> dict[str, Any]:
        """What the page draws: `buttons` (label, action, key) or `sliders` (low, high), `turns`.

        `cells` says how a click on a board is an action; None where it is none. `toggles` and
        `motions` are those of `Keys`. All are empty where a person cannot act in such a space.
        """
        space = self._space
        buttons: list[dict[str, Any]] = []
        sliders: list[dict[str, float]] = []
        if isinstance(space, spaces.Discrete):
            taken: set[str] = set()
            for number in range(int(space.n)):
                label = str(number) if self._names is None else self._names[number]
                key = next((k for word, k in _KEYS if word in label and k not in taken), None)
                key = key or (str(number) if number < 10 else None)
                taken.add(key or "")
                action = number + int(space.start)
                buttons.append({"label": label, "action": action, "key": key})
        elif isinstance(space, spaces.Box) and np.prod(space.shape) <= _MOST_SLIDERS:
            low, high = (np.ravel(bound).astype(float) for bound in (space.low, space.high))
            if np.isfinite(low).all() and np.isfinite(high).all():
                ends = zip(low, high, strict=True)
                sliders = [{"low": float(a), "high": float(b)} for a, b in ends]
        return {
            "turns": self.turns,
            "buttons": buttons,
            "sliders": sliders,
            "cells": self._cells,
            **({"toggles": [], "motions": []} if self._keys is None else self._keys.to_dict()),
        }

    @property
    def possible(self) -> bool:
        """Whether a person can act in this space."""
        said = self.to_dict()
        return bool(said["buttons"] or said["sliders"] or said["toggles"])

    def hold(self, action: int | list[float], mask: Any) -> None:
        """Take an action, to be executed until another one comes.

        Args:
            action: its number, or its numbers.
            mask: of the legal actions; None: all are.

        Raises:
            UsageError: it is not in the space, or not legal now.
        """
        space = self._space
        if self._keys is not None:
            if isinstance(action, int):
                raise UsageError(f"An action here is a list of numbers; got {action}.")
            self._keys.hold(action)
            self._held = True
        elif isinstance(space, spaces.Discrete):
            if not isinstance(action, int) or not space.contains(np.int64(action)):
                raise UsageError(f"An action here is a number in {space}; got {action!r}.")
            if mask is not None and not mask[action - int(space.start)]:
                number = action - int(space.start)
                name = self._names[number] if self._names else ""
                raise UsageError(f"{name or f'Action {action}'} is not legal now.")
            self._held = np.int64(action)
        elif isinstance(space, spaces.Box):
            values = np.asarray(action, np.float64).ravel()
            if values.size != np.prod(space.shape):
                raise UsageError(f"An action here has {int(np.prod(space.shape))} numbers.")
            shaped = values.reshape(space.shape)
            self._held = np.clip(shaped, space.low, space.high).astype(space.dtype)
        else:
            raise UsageError(f"A person cannot act in {space}.")

    @property
    def is_held(self) -> bool:
        """Whether the person holds an action."""
        return self._held is not None

    def let_go(self) -> None:
        """Forget the action that is held."""
        self._held = None
        if self._keys is not None:
            self._keys.let_go()

    def stepped(self) -> None:
        """A step was made: a turn is over, and what a mouse moved is used up."""
        if self.turns:
            self.let_go()
        elif self._keys is not None:
            self._keys.stepped()

    @property
    def held(self) -> Any:
        """The action to execute now: the one that is held, else one that does nothing, if any.

        Where no action does nothing, it is the first action, or the middle of the space.
        """
        if self._keys is not None:
            return self._keys.action
        if self._held is not None:
            return self._held
        space = self._space
        if isinstance(space, spaces.Discrete):
            names = self._names or []
            idle = next((n for n, name in enumerate(names) if name in _IDLE), 0)
            return np.int64(idle + int(space.start))
        assert isinstance(space, spaces.Box)
        return np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype)


def _cells(name: str) -> dict[str, Any] | None:
    """How a click on a board is an action: `rows`, `columns`, and whether `by` cell or column.

    None where actions are moves from one cell to another, or the board is drawn aslant.
    """
    game = find_game(name)
    if game is None or game.slanted:
        return None
    size = {"rows": game.rows, "columns": game.columns}
    if game.actions in (game.rows * game.columns, game.rows * game.columns + 1):  # to pass
        return {**size, "by": "cell"}
    return {**size, "by": "column"} if game.actions == game.columns else None
