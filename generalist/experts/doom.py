"""Doom: players that read the engine's list of objects and walls, which agents never see.

Each is a function of the engine's state now, so it labels any state. They turn with the keys or
with the mouse, whichever the environment has.

Angles are in degrees, counterclockwise, 0 to the east; lengths in units of the map.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np

from generalist.envs.doom import MOUSE_HIGH
from generalist.experts.doom_floor import Floor

# What the engine does in a tic, measured.
_WALK = 20 / 3  # a Cacodemon's way
_ROCKET_SPEED, _ROCKET_DELAY = 20.0, 4.0
_ROCKETS = ("predict_position", "rocket_basic")
_FRICTION, _THRUST = 0.90625, 0.75  # of a player who steps aside
_COVER = (16.0, 752.0)  # where the player of take_cover can stand, along the wall
_LOOK_AHEAD_TICS = 50
_HALF_A_TAP = 17.0  # holding a key for one step moves by twice that, with the sliding after it
_MONSTER_RADIUS = 20.0
_TURN_TOLERANCE = 4.0  # a tap of a turning key is 7 degrees


class DoomExpert:
    """What all of them share: the state, and an action of keys and mouse."""

    name = "player"

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Nothing is kept from episode to episode."""

    def label(self, observation: Any, env: gymnasium.Env) -> Any:
        """The keys to hold and the motion of the mouse."""
        self._doom = env.unwrapped
        self._objects = self._doom.game.get_state().objects
        me = next(each for each in self._objects if each.category == "Self")
        self._here, self._angle = _place(me), float(me.angle)
        self._drift = float(me.velocity_y)  # northwards, a tic
        keys, turn = self._decide()
        if self._doom.scenario in _ROCKETS and not self._doom.variable("ATTACK_READY"):
            keys = keys - {"ATTACK"}  # held from before, the key fires nothing
        return self._action(keys, turn)

    def _decide(self) -> tuple[set[str], float]:
        """Names of keys, and how far to turn left, in degrees."""
        raise NotImplementedError

    def _action(self, keys: set[str], turn: float) -> Any:
        doom = self._doom
        if "TURN_LEFT_RIGHT_DELTA" not in doom.mouse and abs(turn) > _TURN_TOLERANCE:
            keys = keys | {"TURN_LEFT" if turn > 0 else "TURN_RIGHT"}
        pressed = np.array([key in keys for key in doom.keys], np.int8)
        if not doom.mouse:
            return pressed
        motions = np.zeros(len(doom.mouse), np.float32)
        if "TURN_LEFT_RIGHT_DELTA" in doom.mouse:
            right = np.clip(-turn, -MOUSE_HIGH, MOUSE_HIGH)
            motions[doom.mouse.index("TURN_LEFT_RIGHT_DELTA")] = right
        return {"keys": pressed, "mouse": motions}

    def _places(self, *names: str) -> np.ndarray:
        """(N, 2) places of the objects of these names, or of these categories."""
        found = [_place(o) for o in self._objects if o.name in names or o.category in names]
        return np.array(found).reshape(-1, 2)

    def _turn_to(self, places: np.ndarray) -> np.ndarray:
        """How far to turn left to face each of (..., 2) places, from -180 to 180."""
        offset = places - self._here
        angles = np.degrees(np.arctan2(offset[..., 1], offset[..., 0]))
        return (angles - self._angle + 180.0) % 360.0 - 180.0

    def _shoot_one_of(self, places: np.ndarray) -> tuple[set[str], float]:
        """Turn to the nearest of (N, 2) places, turning counted in, and shoot if it is in line."""
        distance, turn = self._distance(places), self._turn_to(places)
        chosen = int(np.argmin(distance + 2.0 * np.abs(turn)))
        return self._shoot_if_in_line(places[chosen])

    def _shoot_if_in_line(self, place: np.ndarray) -> tuple[set[str], float]:
        turn = float(self._turn_to(place))
        width = math.degrees(math.atan2(_MONSTER_RADIUS, float(self._distance(place))))
        return ({"ATTACK"} if abs(turn) < width else set()), turn

    def _distance(self, places: np.ndarray) -> np.ndarray:
        return np.linalg.norm(places - self._here, axis=-1)


class DoomAligner(DoomExpert):
    """Steps aside until the monster is straight ahead, and shoots; it cannot turn."""

    name = "align"

    def _decide(self) -> tuple[set[str], float]:
        monsters = self._places("Monster")
        if not len(monsters):
            return set(), 0.0
        offset = float(monsters[0, 1] - self._here[1])  # it faces east
        slide = self._drift / (1.0 - _FRICTION)  # how far it still slides when the key is let go
        keys = {"ATTACK"} if abs(offset) < _MONSTER_RADIUS else set()
        if abs(offset - slide) > _HALF_A_TAP:
            keys.add("MOVE_LEFT" if offset > slide else "MOVE_RIGHT")
        return keys, 0.0


class DoomTurret(DoomExpert):
    """Turns to the monster that will be here first and shoots when it is in line."""

    name = "turret"

    def _decide(self) -> tuple[set[str], float]:
        monsters = self._places("Monster")
        return self._shoot_one_of(monsters) if len(monsters) else (set(), 0.0)


class DoomGatherer(DoomExpert):
    """Walks the shortest way to the nearest thing worth having."""

    name = "gatherer"
    _wanted: tuple[str, ...] = ("Medikit", "CustomMedikit")

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Read the map."""
        self._floor = Floor(env.unwrapped.game.get_state().sectors)

    def _decide(self) -> tuple[set[str], float]:
        goals = self._places(*self._wanted)
        floor = self._floor.without(self._places("Poison"))
        point = floor.way(self._here, goals) if len(goals) else None
        if point is None:
            return set(), 0.0
        turn = float(self._turn_to(point))
        return ({"MOVE_FORWARD"} if abs(turn) < 45.0 else set()), turn


class DoomHomecomer(DoomGatherer):
    """Walks the shortest way to the vest."""

    name = "homecomer"
    _wanted = ("GreenArmor",)


class DoomFighter(DoomGatherer):
    """Shoots what it sees; otherwise walks to what it needs: a vest, a weapon, health, prey."""

    name = "fighter"

    def _decide(self) -> tuple[set[str], float]:
        monsters = self._places("Monster")
        seen = [at for at in monsters if self._floor.sees(self._here, at)]
        if seen:
            return self._shoot_one_of(np.array(seen))
        self._wanted = self._needs()
        return super()._decide()

    def _needs(self) -> tuple[str, ...]:
        if self._doom.scenario == "deadly_corridor":
            return ("GreenArmor",)
        if self._doom.variable("HEALTH") < 70:
            return ("Medikit", "Stimpack")
        if self._doom.variable("SELECTED_WEAPON") < 3:
            return ("SuperShotgun", "Chaingun", "Shotgun")
        return ("Monster",)


class DoomLeader(DoomExpert):
    """Aims a rocket where the monster will be when it arrives."""

    name = "leader"

    def _decide(self) -> tuple[set[str], float]:
        monster = next((o for o in self._objects if o.category == "Monster"), None)
        if monster is None:
            return set(), 0.0
        heading = math.radians(monster.angle)
        velocity = _WALK * np.array([math.cos(heading), math.sin(heading)])
        meeting = _place(monster)
        for _ in range(8):  # a fixed point: where it is after the rocket's time to there
            tics = _ROCKET_DELAY + self._distance(meeting) / _ROCKET_SPEED
            meeting = _place(monster) + velocity * tics
        return self._shoot_if_in_line(meeting)


class DoomDodger(DoomExpert):
    """Steps to the side where no fireball will pass; it cannot turn."""

    name = "dodger"

    def _decide(self) -> tuple[set[str], float]:
        balls = [o for o in self._objects if o.name == "DoomImpBall"]
        best, most = 0, -np.inf
        for side in (0, 1, -1):
            for steps in range(1, 9) if side else (0,):
                clear = self._clearance(balls, side, steps)
                if clear > most + 1.0:
                    best, most = side, clear
        return {-1: {"MOVE_RIGHT"}, 0: set(), 1: {"MOVE_LEFT"}}[best], 0.0

    def _clearance(self, balls: list[Any], side: int, steps: int) -> float:
        """The least distance to any ball, if the key is held for so many steps."""
        tics = np.arange(1, _LOOK_AHEAD_TICS + 1)
        held = tics <= steps * self._doom.frame_skip
        y, velocity, path = self._here[1], self._drift, []
        for thrust in _THRUST * side * held:
            velocity = velocity * _FRICTION + thrust
            y = float(np.clip(y + velocity, *_COVER))
            path.append(y)
        clear = 200.0
        for ball in balls:
            dx = ball.position_x + ball.velocity_x * tics - self._here[0]
            dy = ball.position_y + ball.velocity_y * tics - np.array(path)
            clear = min(clear, float(np.maximum(np.abs(dx), np.abs(dy)).min()))
        middle = abs(path[-1] - np.mean(_COVER)) / 50.0  # a corner leaves one way out only
        return float(min(clear, 60.0) - middle)


def _place(thing: Any) -> np.ndarray:
    return np.array([thing.position_x, thing.position_y])
