"""MinAtar: five Atari games in small, seen as objects on a grid of 10x10 cells; `minatar/Breakout`.

Young and Tian 2019 (arXiv:1903.03176). An observation says which kinds of objects are in each cell.
With probability 0.1 the last action is repeated in place of the chosen one, and most games grow
harder with time. Rewards are the games' own, raw. An episode ends when the game is lost; Freeway's
ends after 2,500 steps. The package is licensed under the GPL and therefore an extra.
"""

from __future__ import annotations

import colorsys
import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.registry import Task
from generalist.errors import MissingPackageError, UsageError

REGISTERED = {
    "Asterix": "collect gold and avoid enemies that cross the screen",
    "Breakout": "keep a ball in play with a paddle, and break bricks with it",
    "Freeway": "walk across a road of ten lanes, as often as there is time for",
    "Seaquest": "shoot fish and submarines, pick up divers, and surface for air",
    "SpaceInvaders": "shoot the aliens that descend, and dodge what they drop",
}
_GAMES = {name: name.lower() for name in REGISTERED} | {"SpaceInvaders": "space_invaders"}
_MOST_STEPS = 10_000  # truncates what a strong player could go on with for ever
_CELL_PIXELS = 16


def names() -> list[str]:
    """The five games."""
    return list(REGISTERED)


def find(name: str) -> Task | None:
    """The task of a game; None for an unknown one."""
    if name not in REGISTERED:
        return None
    return Task(
        name=f"minatar/{name}",
        family="minatar",
        make=functools.partial(MinAtarEnv, name),
        step_limit=_MOST_STEPS,
        description=REGISTERED[name],
    )


class MinAtarEnv(gymnasium.Env):
    """One game.

    Observations: (10, 10, channels) bool, True where a kind of object is in a cell; the number of
        channels, 4 to 10, is the game's.
    Actions: Discrete, the actions that have an effect in the game (its minimal set).
    Rewards: the game's own.

    Args:
        game: One of `REGISTERED`.
        render_mode: `rgb_array` or None.
        max_steps: Steps after which the episode is truncated.
        sticky: Probability that the last action is repeated in place of the chosen one.
        ramping: Whether the game grows harder with time.

    Raises:
        MissingPackageError: MinAtar is missing.
        UsageError: `sticky` is no probability.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        game: str,
        *,
        render_mode: str | None = None,
        max_steps: int | None = None,
        sticky: float = 0.1,
        ramping: bool = True,
    ) -> None:
        if not 0 <= sticky <= 1:
            raise UsageError(f"sticky is a probability, in [0, 1]; got {sticky}.")
        self.render_mode = render_mode
        self.sticky, self.ramping = sticky, ramping
        self._max_steps = max_steps or _MOST_STEPS
        self._steps = 0
        self._game = _environment()(_GAMES[game], sticky, ramping)
        self._actions = self._game.minimal_action_set()
        self.action_space = spaces.Discrete(len(self._actions))
        shape = tuple(self._game.state_shape())
        self.observation_space = spaces.Box(0, 1, shape, np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As Gymnasium has it; the seed decides the whole episode."""
        super().reset(seed=seed)
        if seed is not None:
            self._game.seed(seed)
        self._game.last_action = 0  # else the episode before would stick to this one
        self._game.reset()
        self._steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As Gymnasium has it."""
        reward, terminated = self._game.act(self._actions[int(action)])
        self._steps += 1
        truncated = not terminated and self._steps >= self._max_steps
        return self._observation(), float(reward), bool(terminated), truncated, {}

    def _observation(self) -> np.ndarray:
        return np.array(self._game.state(), np.bool_)

    def render(self) -> np.ndarray | None:
        """(160, 160, 3) uint8, one colour for each kind of object; None without a render mode."""
        if self.render_mode is None:
            return None
        state = self._observation()
        kinds = state.shape[2]
        hues = [colorsys.hsv_to_rgb(kind / kinds, 0.7, 1.0) for kind in range(kinds)]
        colours = (np.array([(0.08, 0.08, 0.1), *hues]) * 255).astype(np.uint8)
        topmost = np.where(state, np.arange(1, kinds + 1), 0).max(axis=2)  # (10, 10)
        return colours[topmost].repeat(_CELL_PIXELS, axis=0).repeat(_CELL_PIXELS, axis=1)


def _environment() -> Any:
    try:
        with _no_warnings():
            from minatar import Environment
    except ImportError as error:
        raise MissingPackageError("minatar", "minatar/") from error
    return Environment


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Hide that plotting packages are missing, which nothing here uses."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
