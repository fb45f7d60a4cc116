"""Controllers for Gymnasium's classic control, written from the equations of motion.

Each is a pure function of the observation, so it labels any state and a clone sees all it sees.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from generalist.errors import needing


def lqr_gain(a: np.ndarray, b: np.ndarray, q: np.ndarray, r: float) -> np.ndarray:
    """K of u = -K x, which minimises the integral of x'Qx + r u^2 for x' = A x + B u.

    a: (n, n); b: (n, 1); q: (n, n); the result: (n,).
    """
    p = riccati(a, b, q, r)
    return (b.T @ p / r)[0]


def riccati(a: np.ndarray, b: np.ndarray, q: np.ndarray, r: float) -> np.ndarray:
    """(n, n) solution P of A'P + PA - P B B'P / r + Q = 0, by which the costs to come are x'Px.

    a: (n, n); b: (n, 1); q: (n, n).
    """
    with needing("This expert"):
        from scipy.linalg import solve_continuous_are
    return solve_continuous_are(a, b, q, np.array([[r]]))


class ObservationExpert:
    """Base of experts without per-episode state, which need the observation only."""

    name = ""

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Nothing is kept between steps."""

    def label(self, observation: Any, env: gymnasium.Env) -> Any:
        """The expert's action for this observation."""
        return self.act(observation)

    def act(self, observation: Any) -> Any:
        """The policy."""
        raise NotImplementedError


class CartPoleLQR(ObservationExpert):
    """The sign of a linear-quadratic regulator's force; the environment only takes full pushes."""

    name = "lqr"

    def __init__(self) -> None:
        gravity, cart_kg, pole_kg, half_m = 9.8, 1.0, 0.1, 0.5
        total_kg = cart_kg + pole_kg
        # Linearised about upright; state (position, velocity, angle, angular velocity).
        angular = half_m * (4.0 / 3.0 - pole_kg / total_kg)
        a = np.zeros((4, 4))
        a[0, 1] = a[2, 3] = 1.0
        a[3, 2] = gravity / angular
        a[1, 2] = -pole_kg * half_m * a[3, 2] / total_kg
        b = np.zeros((4, 1))
        b[3, 0] = -1.0 / (total_kg * angular)
        b[1, 0] = (1.0 - pole_kg * half_m * b[3, 0]) / total_kg
        self._gain = lqr_gain(a, b, np.diag([1.0, 1.0, 10.0, 1.0]), 0.1)

    def act(self, observation: np.ndarray) -> np.int64:
        """0 or 1, for (4,) position, velocity, angle and angular velocity."""
        return np.int64(-self._gain @ observation > 0)


class PendulumSwingUp(ObservationExpert):
    """Pump energy until the pendulum would reach the top, then hold it there.

    The constants come from a random search for the mean return of four copies, each seeing the
    state under Gaussian noise of 0, 0.1, 0.2 and 0.3 (four times that on the speed), because a
    clone is never exact. At 0.1 the expert before this one fell from -157 to -368; this one stays.
    """

    name = "swing-up"
    _GRAVITY = 15.0  # 3 g / 2 l of angle'' = 15 sin(angle) + 3 torque, angle 0 upright

    stiffness, damping = 12.0, 2.9  # torque per radian, and per radian a second
    eagerness = 0.57  # torque per unit of missing energy
    excess = 1.0  # energy to aim for above that of standing upright
    swing_rate = 8.1  # seconds
    reach, coast, spread = 1.8, 2.6, 0.1  # where holding takes over, see `_trust`

    def act(self, observation: np.ndarray) -> np.ndarray:
        """(1,) torque, for (3,) cosine, sine and angular velocity."""
        cosine, sine, speed = (float(x) for x in observation)
        angle = np.arctan2(sine, cosine)
        hold = -(self.stiffness * angle + self.damping * speed)
        missing = self._GRAVITY * (1.0 - cosine) - speed**2 / 2.0 + self.excess
        # At rest below, push the way the pendulum leans.
        swing = self.eagerness * missing * np.tanh(self.swing_rate * (speed + 0.3 * sine))
        trust = self._trust(angle, speed)
        torque = trust * hold + (1.0 - trust) * swing
        return np.array([np.clip(torque, -2.0, 2.0)], np.float32)

    def _trust(self, angle: float, speed: float) -> float:
        """From 1 near the top, or on the way there to stop, down to 0 elsewhere."""
        far = abs(angle) + 0.09 * abs(speed + self.coast * angle) - self.reach
        return 1.0 / (1.0 + np.exp(np.clip(far / self.spread, -50.0, 50.0)))


class MountainCarEnergy(ObservationExpert):
    """Push with the motion: every push then adds energy."""

    name = "energy"

    def act(self, observation: np.ndarray) -> np.ndarray:
        """(1,) force, -1 or 1, for (2,) position and velocity."""
        position, velocity = (float(x) for x in observation)
        # The slope's pull decides at rest; the valley's floor is at -pi / 6.
        downhill = -0.0025 * np.cos(3.0 * position)
        return np.array([np.sign(velocity + 0.5 * downhill) or 1.0], np.float32)


class MountainCarPush(ObservationExpert):
    """The same with full pushes to the left or right."""

    name = "energy"

    def act(self, observation: np.ndarray) -> np.int64:
        """0, 1 or 2, for (2,) position and velocity."""
        return np.int64(1 + MountainCarEnergy().act(observation)[0])


class AcrobotEnergy(ObservationExpert):
    """Swing the elbow so that its torque always works with the shoulder's motion."""

    name = "energy"

    def act(self, observation: np.ndarray) -> np.int64:
        """0, 1 or 2, for (6,) cosines, sines and angular velocities."""
        velocity_1, velocity_2 = float(observation[4]), float(observation[5])
        return np.int64(1 + np.sign(velocity_2 - velocity_1))
