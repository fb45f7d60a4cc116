"""Breakout: be below the ball when it comes down.

The emulator's memory holds ball and paddle, in its own units of pixels; the ball's speed is the
difference to the memory of two frames ago.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

_RAM_BALL_X, _RAM_BALL_Y, _RAM_PADDLE = 99, 101, 72
_PADDLE_Y = 177  # the ball turns here
_LEFT_WALL, _RIGHT_WALL = 57, 199  # ball positions at the side walls
_MIDDLE = 8  # ball minus paddle position at the paddle's middle; it covers 0 to 16
_PADDLE_RANGE = (55, 191)
_STAY, _FIRE, _RIGHT, _LEFT = range(4)  # the game's minimal action set
_COAST = 1.2  # of two frames' motion: how far the paddle goes on when the button is released


class BreakoutPaddle:
    """Goes to where the ball will arrive; follows it loosely while it rises. Serves at once."""

    name = "paddle"
    # Pixels from the middle of the paddle. One step of a button carries it some 20, so when the
    # ball is near, a small error is better left alone.
    far_tolerance, near_tolerance, idle_tolerance = 6, 9, 24
    near_frames = 10

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Nothing is kept between steps."""

    def label(self, observation: Any, env: gymnasium.Env) -> np.int64:
        """The move for the emulator's present state."""
        base = env.unwrapped
        return self.act(base.ram(), base.ram_before())

    def act(self, ram: np.ndarray, ram_before: np.ndarray) -> np.int64:
        """The move for the memory now and two frames ago, both (128,) uint8."""
        x, y = int(ram[_RAM_BALL_X]), int(ram[_RAM_BALL_Y])
        if y == 0:  # no ball in play
            return np.int64(_FIRE)
        paddle = int(ram[_RAM_PADDLE])
        rest = paddle + _COAST * (paddle - int(ram_before[_RAM_PADDLE]))
        speed_x = (x - int(ram_before[_RAM_BALL_X])) / 2
        speed_y = (y - int(ram_before[_RAM_BALL_Y])) / 2
        if 0 < speed_y < 8 and abs(speed_x) < 8 and y < _PADDLE_Y:
            frames = (_PADDLE_Y - y) / speed_y
            goal = _reflect(x + speed_x * frames)
            tolerance = self.near_tolerance if frames < self.near_frames else self.far_tolerance
        else:
            goal, tolerance = float(x), self.idle_tolerance
        low, high = _PADDLE_RANGE
        error = min(max(goal - _MIDDLE, low), high) - rest
        if abs(error) <= tolerance:
            return np.int64(_STAY)
        return np.int64(_RIGHT if error > 0 else _LEFT)


def _reflect(x: float) -> float:
    """A straight path's position, folded back at the side walls."""
    width = _RIGHT_WALL - _LEFT_WALL
    folded = (x - _LEFT_WALL) % (2 * width)
    return _LEFT_WALL + (folded if folded <= width else 2 * width - folded)
