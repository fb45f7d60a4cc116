"""LunarLander: glide down a cone over the pad, tilted towards it.

State (gymnasium's units): x, y, their speeds, angle (positive leans left), its speed, leg contacts.
"""

from __future__ import annotations

import numpy as np

from generalist.experts.classic import ObservationExpert

_COAST, _LEFT_ENGINE, _MAIN_ENGINE, _RIGHT_ENGINE = range(4)


class LunarLanderGlide(ObservationExpert):
    """Two proportional-derivative loops, one for the tilt and one for the sink speed.

    The stronger need decides between the main engine and the side engines; below `idle` neither
    fires. With a leg on the ground only the fall is braked.
    """

    name = "heuristic"
    tilt_limit = 0.4  # radians
    tilt_position, tilt_speed = 0.5, 1.0
    turn_angle, turn_rate = 1.0, 2.0
    cone = 0.55  # height over the pad to keep for each unit of distance from it
    lift = 0.8
    idle = 0.05

    def act(self, observation: np.ndarray) -> np.int64:
        """Which engine to fire, for the (8,) observation."""
        x, y, x_speed, y_speed, angle, spin, left_leg, right_leg = (float(v) for v in observation)
        if left_leg or right_leg:
            turn, lift = 0.0, -self.lift * y_speed
        else:
            tilt = self.tilt_position * x + self.tilt_speed * x_speed
            tilt = min(max(tilt, -self.tilt_limit), self.tilt_limit)
            turn = self.turn_angle * (tilt - angle) - self.turn_rate * spin
            # The sink speed wanted is the height above the cone, so the fall ends softly.
            wanted_speed = -(y - self.cone * abs(x))
            lift = self.lift * (wanted_speed - y_speed)
        if lift > max(abs(turn), self.idle):
            return np.int64(_MAIN_ENGINE)
        if abs(turn) <= self.idle:
            return np.int64(_COAST)
        return np.int64(_LEFT_ENGINE if turn > 0 else _RIGHT_ENGINE)


class LunarLanderSteady(LunarLanderGlide):
    """The same with duller senses, for agents that are to imitate it.

    The constants come from a random search for the mean return over observations blurred by
    Gaussian noise of 0, 0.06, 0.12 and 0.18, because a clone is never exact. Seeing exactly it is
    a little worse (240 against 275), blurred by 0.1 far better (235 against 30).
    """

    name = "steady"
    tilt_limit = 0.77
    tilt_position, tilt_speed = 0.365, 0.35
    turn_angle, turn_rate = 1.24, 1.2
    cone = 1.34
    lift = 0.97
    idle = 0.18


class LunarLanderThrottled(LunarLanderGlide):
    """The same for thrusters that are throttled, each at full power or off."""

    _THROTTLES = np.array([[-1, 0], [-1, -1], [1, 0], [-1, 1]], np.float32)  # main, side

    def act(self, observation: np.ndarray) -> np.ndarray:  # type: ignore[override]
        """(2,) throttles of the main and the side engines, for the (8,) observation."""
        return self._THROTTLES[super().act(observation)].copy()
