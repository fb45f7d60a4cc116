"""Pong: predict where the ball arrives, and be there with the part of the paddle that scores.

The emulator's memory holds ball, ball speed and paddles. Distances are in its units, pixels of
the 160 x 210 screen; up is towards smaller numbers.
"""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np

_RAM_BALL_X, _RAM_BALL_Y, _RAM_PADDLE = 49, 54, 51
_RAM_SPEED_Y, _RAM_SPEED_X = 56, 58  # signed; the x speed counts towards the left
_OUR_X = 188  # where the ball meets our paddle
_CEILING, _FLOOR = 45.5, 205.5  # the ball's centre turns here
_PADDLE_RANGE = (38, 203)
_PADDLE_TOP, _PADDLE_BOTTOM = -2, 16  # what it covers, seen from its position
_FRAMES = 4  # a step
_STAY, _UP, _DOWN = 0, 2, 3  # NOOP, RIGHT and LEFT of the game's minimal action set
_DIRECTION = {2: -1, 4: -1, 3: 1, 5: 1}  # the same with FIRE
_UPPER_HALF, _NEAR_FLOOR = 128, 172  # arrival heights

# The paddle after 1, 2 and 3 steps: its position, plus these gains times the last two frames'
# motion, the last direction, and the direction of each step. Fitted on 5,112 steps, to 2-3 pixels.
_MOTION: dict[int, tuple[float, float, np.ndarray]] = {
    1: (0.78, 5.11, np.array([9.09])),
    2: (1.01, 6.25, np.array([19.64, 8.85])),
    3: (1.00, 7.38, np.array([21.87, 19.61, 8.31])),
}
_PLANS = {n: np.array(list(itertools.product((0, -1, 1), repeat=n))) for n in _MOTION}


class PongPaddle:
    """Meets the ball with an edge of the paddle, which returns it steeply.

    The computer's paddle is slower than a steep ball that takes its bounce late, so the lower
    edge scores for balls that arrive in the upper half, and the upper edge below that; near the
    floor no return scores, and the middle is the safe one. Measured over 1,173 returns.

    One step of a button carries the paddle 22 pixels, more than its 16, give or take 5 for the
    frames on which an action sticks. So while the ball is far the paddle is nudged until it rests
    where it should, ever less exactly; in the last three steps it stays where it will meet the
    ball, and is moved by the best of all short plans where it will not.
    """

    name = "paddle"
    home = 105  # where to wait while the ball moves away
    home_tolerance = 14
    effort = 0.3  # pixels of error that one more moved step has to be worth

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Nothing is kept between steps."""

    def label(self, observation: Any, env: gymnasium.Env) -> np.int64:
        """The move for the emulator's present state."""
        base = env.unwrapped
        return self.act(base.ram(), base.ram_before(), base.last_action)

    def act(self, ram: np.ndarray, ram_before: np.ndarray, last_action: int) -> np.int64:
        """The move for the memory now and two frames ago, both (128,) uint8, and the last move."""
        paddle = int(ram[_RAM_PADDLE])
        drift = paddle - int(ram_before[_RAM_PADDLE])
        push = _DIRECTION.get(last_action, 0)
        rest = paddle + drift + 7.4 * push  # where it comes to rest when left alone
        x, y = int(ram[_RAM_BALL_X]), int(ram[_RAM_BALL_Y])
        speed_x, speed_y = -_signed(ram[_RAM_SPEED_X]), _signed(ram[_RAM_SPEED_Y])
        if not 0 < x <= _OUR_X or speed_x <= 0:
            error = self.home - rest
            return _move(0 if abs(error) <= self.home_tolerance else int(np.sign(error)))
        frames = (_OUR_X - x) / speed_x
        arrival = _reflect(y + speed_y * frames)
        low, best, high = self.meeting(arrival, frames)
        # What the paddle's own limits leave.
        least, most = arrival - _PADDLE_RANGE[1], arrival - _PADDLE_RANGE[0]
        low, best, high = (min(max(where, least), most) for where in (low, best, high))
        meets = arrival - rest
        steps = int(np.ceil(frames / _FRAMES))
        if low <= meets <= high or steps == 0:
            return _move(0)
        if steps > 3:
            return _move(1 if meets > high else -1)
        gain_drift, gain_push, gains = _MOTION[steps]
        at_ball = paddle + gain_drift * drift + gain_push * push + _PLANS[steps] @ gains
        cost = abs(arrival - best - at_ball)
        cost += self.effort * np.abs(_PLANS[steps]).sum(axis=1)
        return _move(int(_PLANS[steps][int(np.argmin(cost)), 0]))

    def meeting(self, arrival: float, frames: float) -> tuple[float, float, float]:
        """Where on the paddle to meet the ball, as ball minus paddle position: least, best, most.

        Above 0 and below 13 it returns less steeply.
        """
        slack = 2 if frames > 40 else 4 if frames > 24 else 7
        if arrival < _UPPER_HALF:
            return 13 - slack, 13, 15
        if arrival < _NEAR_FLOOR:
            return -1, 1, 1 + slack
        return 3, 7, 11


class PongSteady(PongPaddle):
    """Meets the ball with whatever part of the paddle is there; made to be imitated.

    It leaves out what an imitator cannot do: its last move, which frames do not show, and the edge
    of the paddle, which has to be met to 2 pixels. So it stays wherever it will meet the ball at
    all. It scores 12 of 21 (six games) in longer rallies, and its clones score more than
    those of an expert that aims for the edge (docs/log.md, "Two games").
    """

    name = "steady"
    home_tolerance = 20

    def label(self, observation: Any, env: gymnasium.Env) -> np.int64:
        """The move for the emulator's present state, as if nothing was pressed before."""
        base = env.unwrapped
        return self.act(base.ram(), base.ram_before(), _STAY)

    def meeting(self, arrival: float, frames: float) -> tuple[float, float, float]:
        """All of the paddle, best its middle."""
        return _PADDLE_TOP, (_PADDLE_TOP + _PADDLE_BOTTOM) / 2, _PADDLE_BOTTOM


def _move(direction: int) -> np.int64:
    return np.int64({0: _STAY, -1: _UP, 1: _DOWN}[direction])


def _signed(byte: Any) -> int:
    value = int(byte)
    return value - 256 if value > 127 else value


def _reflect(y: float) -> float:
    """A straight path's height, folded back at ceiling and floor."""
    height = _FLOOR - _CEILING
    folded = (y - _CEILING) % (2 * height)
    return _CEILING + (folded if folded <= height else 2 * height - folded)
