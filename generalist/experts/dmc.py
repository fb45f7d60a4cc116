"""Controllers for tasks of the Control Suite, written from the models' equations of motion.

Each is a function of the observation alone, continuous except where a choice of side has to be
made, so it labels any state and a clone sees all it sees. Angles are in radians, 0 upright.
"""

from __future__ import annotations

import math

import numpy as np

from generalist.experts.classic import ObservationExpert, riccati

_GRAVITY = 9.81


class Hold:
    """A linear-quadratic regulator, and how far a state is from where it can be relied upon."""

    def __init__(self, a: np.ndarray, b: np.ndarray, q: np.ndarray, r: float) -> None:
        self._cost = riccati(a, b, q, r)
        self._gain = (b.T @ self._cost / r)[0]

    def action(self, state: np.ndarray) -> float:
        """-K x."""
        return -float(self._gain @ state)

    def trust(self, state: np.ndarray, reach: float) -> float:
        """From 1 near the goal to 0 far off: one half where the cost to go equals `reach`."""
        excess = (float(state @ self._cost @ state) - reach) / (0.1 * reach)
        return 1.0 / (1.0 + math.exp(min(excess, 50.0)))


class CartPoleSwingUp(ObservationExpert):
    """Pump the pole's energy by moving the cart, then balance it mid-track by LQR."""

    name = "swing-up"
    _FORCE = 10.0  # newtons at action 1
    _CART, _POLE, _CENTRE = 1.0, 0.1, 0.5  # kg, kg, metres from hinge to the pole's centre of mass
    _INERTIA = _POLE * (_CENTRE**2 + 0.0942)  # of the capsule, about the hinge

    # Found by random search on this model's equations, for the mean return from hanging.
    reach = 3.0
    pump = 10.0  # metres per second squared
    eagerness = 0.85
    excess = 0.2  # energy to aim for above that of standing upright: friction and late corrections
    swing_rate = 6.8  # seconds: hanging almost still, the first push must not wait for the swing
    spring = 5.8
    damping = 1.8
    control_cost = 3.0

    def __init__(self) -> None:
        moment, j = self._POLE * self._CENTRE, self._INERTIA
        total = self._CART + self._POLE
        determinant = total * j - moment**2
        # Linearised about upright; state (position, velocity, angle, angular velocity).
        a = np.zeros((4, 4))
        a[0, 1] = a[2, 3] = 1.0
        a[1, 2] = -(moment**2) * _GRAVITY / determinant
        a[3, 2] = total * moment * _GRAVITY / determinant
        b = np.array([[0.0], [j], [0.0], [-moment]]) * self._FORCE / determinant
        self._hold = Hold(a, b, np.diag([1.0, 0.1, 5.0, 0.1]), self.control_cost)

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """(1,) force in [-1, 1], for `position` (3,) and `velocity` (2,)."""
        x, cosine, sine = (float(v) for v in observation["position"])
        speed, spin = (float(v) for v in observation["velocity"])
        state = np.array([x, speed, math.atan2(sine, cosine), spin])
        trust = self._hold.trust(state, self.reach)
        action = trust * self._hold.action(state)
        action += (1.0 - trust) * self._swing(x, cosine, sine, speed, spin)
        return np.array([np.clip(action, -1.0, 1.0)], np.float32)

    def _swing(self, x: float, cosine: float, sine: float, speed: float, spin: float) -> float:
        """The force that gives the cart an acceleration which adds the energy that is missing."""
        moment, j = self._POLE * self._CENTRE, self._INERTIA
        weight = moment * _GRAVITY
        # In units of what it takes to go from hanging to upright.
        missing = (weight * (1.0 - cosine) - 0.5 * j * spin**2) / (2.0 * weight) + self.excess
        push = self.pump * min(max(self.eagerness * missing, -1.0), 1.0)
        wanted = -push * math.tanh(self.swing_rate * spin * cosine)
        wanted -= self.spring * x + self.damping * speed
        # Cart and pole push on each other; this is their equation of motion for that acceleration.
        turning = (weight * sine - moment * cosine * wanted) / j
        force = (self._CART + self._POLE) * wanted + moment * (cosine * turning - sine * spin**2)
        return force / self._FORCE


class PendulumSwingUp(ObservationExpert):
    """Swing with the motion until the energy is that of standing upright, then hold by LQR."""

    name = "swing-up"
    _WEIGHT = 0.5 * _GRAVITY  # newton metres: 1 kg at 0.5 m
    _INERTIA = 0.25 + 0.4 * 0.05**2  # a ball of radius 0.05 m at 0.5 m
    _FRICTION = 0.1

    # Found by random search on this model's equations, for the mean return from four angles.
    reach = 0.6
    eagerness = 8.5  # action per newton metre
    excess = 0.18  # joules to aim for above the energy of standing upright
    swing_rate = 5.5  # seconds

    def __init__(self) -> None:
        a = np.array([[0.0, 1.0], [self._WEIGHT / self._INERTIA, -self._FRICTION / self._INERTIA]])
        b = np.array([[0.0], [1.0 / self._INERTIA]])
        self._hold = Hold(a, b, np.diag([10.0, 0.1]), 0.1)

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """(1,) torque in [-1, 1], for `orientation` (2,) and `velocity` (1,)."""
        cosine, sine = (float(v) for v in observation["orientation"])
        spin = float(observation["velocity"][0])
        state = np.array([math.atan2(sine, cosine), spin])
        trust = self._hold.trust(state, self.reach)
        missing = self._WEIGHT * (1.0 - cosine) - 0.5 * self._INERTIA * spin**2 + self.excess
        push = min(max(self.eagerness * missing, -1.0), 1.0)
        # At rest below, lean the way the pendulum already does.
        direction = math.tanh(self.swing_rate * (spin + 0.6 * sine))
        swing = self._FRICTION * spin + push * direction
        action = trust * self._hold.action(state) + (1.0 - trust) * swing
        return np.array([np.clip(action, -1.0, 1.0)], np.float32)


class ReacherInverseKinematics(ObservationExpert):
    """Solve the arm's angles for the target, then drive both joints there."""

    name = "inverse-kinematics"
    _LINK = 0.12  # metres, both links, measured to the centre of the finger
    _WRIST_LIMIT = math.radians(158.0)  # the joint stops at 160 degrees

    stiffness = np.array([3.0, 2.0])  # action per radian
    damping = np.array([0.3, 0.05])  # action per radian a second

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """(2,) torques in [-1, 1], for `position`, `to_target` and `velocity`, (2,) each."""
        shoulder, wrist = (float(v) for v in observation["position"])
        finger = self._LINK * np.array(
            [
                math.cos(shoulder) + math.cos(shoulder + wrist),
                math.sin(shoulder) + math.sin(shoulder + wrist),
            ]
        )
        goal = self._angles(finger + observation["to_target"], wrist)
        error = np.array([_wrapped(goal[0] - shoulder), goal[1] - wrist])
        action = self.stiffness * error - self.damping * observation["velocity"]
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _angles(self, target: np.ndarray, wrist: float) -> tuple[float, float]:
        """Shoulder and wrist angle with the finger on `target`, the elbow on its present side."""
        distance = math.hypot(target[0], target[1])
        bend = 2.0 * math.acos(min(distance / (2.0 * self._LINK), 1.0))
        bend = math.copysign(min(bend, self._WRIST_LIMIT), wrist)
        return math.atan2(target[1], target[0]) - bend / 2.0, bend


class ReacherDampedLeastSquares(ObservationExpert):
    """Move the joints as moves the finger towards the target, by the arm's Jacobian at each step.

    Damped least squares (Wampler 1986) is smooth where the solved angles jump: from one side to
    the other of the shoulder and of the elbow. It reaches the target a little later (924 against
    938 of 1,000 in the first 250 steps), and a small network cloned from 16,000 steps of it scores
    808 instead of 693.
    """

    name = "damped-least-squares"
    _LINK = 0.12  # metres

    stiffness = np.array([3.0, 2.0])  # action per radian
    damping = np.array([0.3, 0.05])  # action per radian a second
    step = 0.1  # metres of the way to the target that are considered at a time
    singularity = 0.001  # square metres; keeps a stretched arm from wanting endless angles

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """(2,) torques in [-1, 1], for `position`, `to_target` and `velocity`, (2,) each."""
        shoulder, wrist = (float(v) for v in observation["position"])
        upper = self._LINK * np.array([-math.sin(shoulder), math.cos(shoulder)])
        lower = self._LINK * np.array([-math.sin(shoulder + wrist), math.cos(shoulder + wrist)])
        jacobian = np.stack([upper + lower, lower], axis=1)  # (2, 2) metres per radian
        way = np.asarray(observation["to_target"], float)
        way = way * min(1.0, self.step / max(float(np.linalg.norm(way)), 1e-9))
        damped = jacobian @ jacobian.T + self.singularity * np.eye(2)
        angles = jacobian.T @ np.linalg.solve(damped, way)
        action = self.stiffness * angles - self.damping * observation["velocity"]
        return np.clip(action, -1.0, 1.0).astype(np.float32)


def _wrapped(angle: float) -> float:
    """The same direction between -pi and pi."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi
