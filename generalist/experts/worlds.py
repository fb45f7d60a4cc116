"""The guide: does what is asked for in a 3D world, from the simulator's state, with keys and mouse.

It is made to be imitated: it turns to the right until the agent could see what it looks for, and
only then walks there, the shortest way that comes near nothing else. So its labels follow from the
last few frames and the instruction.

Legend: O = things in the way, N = nodes of a graph of ways.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np

from generalist.envs.controls import YAW_HIGH, pressed
from generalist.envs.missions import (
    NEXT_TO,
    Face,
    FollowWall,
    Gesture,
    Goal,
    LeaveAlone,
    Open,
    PutNext,
    Shoot,
    Stop,
    Take,
)
from generalist.envs.scene import BODY_RADIUS, LEVEL_PITCH, REACH, REACH_DEGREES, Scene, Thing

_SEARCH_DEGREES = 40.0  # a step, to the right
_FULL_TURN = 9  # steps
_IN_VIEW_DEGREES = 33.0
_REMEMBERS = 4  # steps for which a thing that was seen is known
_WALK_DEGREES = 60.0  # it walks where it is turned to within a step, or nearly
_LOOKS_DEGREES = 6.0
_FROM_WALLS = BODY_RADIUS + 0.1
_AROUND = 8  # points around a thing where a way may turn
_AT_A_POINT = 0.3  # metres
_PUT_GAP = 0.1  # metres between the agent and what it puts down
_BESIDE = 0.7  # metres from the walls that it follows
_LOOK_AHEAD = 1.0  # metres along them


class WorldGuide:
    """Labels any state of an instructed world: an environment with `mission` and `room.scene`."""

    name = "guide"

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Forget the last mission."""
        self._goal: Goal | None = None
        self._searched = 0
        self._known = 0  # steps for which the target is still known
        self._turn: np.ndarray | None = None  # the next point of a way around something

    def label(self, observation: Any, env: gymnasium.Env) -> dict[str, Any]:
        """Keys and mouse at the current state of `env`."""
        base: Any = env.unwrapped
        scene, goal = base.room.scene, base.mission.goal
        if goal is not self._goal:
            self._goal, self._searched, self._known, self._turn = goal, 0, 0, None
        if isinstance(goal, Gesture):
            return _gesture(goal.what, scene)
        if isinstance(goal, Stop):
            return _act(scene)
        if isinstance(goal, FollowWall):
            return self._walk(scene, _further(scene, goal.side))
        target = _target(goal, scene)
        if not self._finds(scene, target):
            return _act(scene, yaw=_SEARCH_DEGREES)
        bearing = scene.bearing(target.place)
        if isinstance(goal, Face):
            return _act(scene, yaw=bearing if abs(bearing) > _LOOKS_DEGREES else 0.0)
        if isinstance(goal, Shoot):
            return _shoot(scene, target)
        by_key = isinstance(goal, Open) or (isinstance(goal, Take) and not scene.touch)
        if by_key and scene.reached() is target:
            return _act(scene, "E", yaw=bearing)
        if isinstance(goal, PutNext):
            return self._put(scene, target)
        return self._walk(scene, target)

    def _finds(self, scene: Scene, target: Thing) -> bool:
        """Whether the target is in view or was just now; after a full turn it is known anyway."""
        if abs(scene.bearing(target.place)) <= _IN_VIEW_DEGREES:
            self._known = _REMEMBERS
        elif self._known:
            self._known -= 1
        if self._known or self._searched >= _FULL_TURN:
            return True
        self._searched += 1
        return False

    def _put(self, scene: Scene, target: Thing) -> dict[str, Any]:
        """Walk to where what is held can be put down beside the target, and put it down."""
        held = scene.held
        if held is None:  # lost: the goal cannot be reached any more
            return _act(scene)
        bearing = scene.bearing(target.place)
        gap = scene.away(target) - _PUT_GAP - 2 * held.radius
        if gap > NEXT_TO - 0.1:
            return self._walk(scene, target)
        if gap < 0.05:
            return _act(scene, "S", yaw=bearing)
        return _act(scene, *(("E",) if abs(bearing) <= YAW_HIGH else ()), yaw=bearing)

    def _walk(self, scene: Scene, target: Thing) -> dict[str, Any]:
        """A step of the way to a thing; a way around something is gone to its next turn."""
        self._turn = _next_point(scene, target, self._turn)
        if self._turn is not None:
            self._known = _REMEMBERS
        bearing = scene.bearing(target.place if self._turn is None else self._turn)
        return _act(scene, *(("W",) if abs(bearing) <= _WALK_DEGREES else ()), yaw=bearing)


def _act(scene: Scene, *keys: str, yaw: float = 0.0) -> dict[str, Any]:
    """An action with the gaze brought back to its level."""
    return pressed(*keys, yaw=yaw, pitch=LEVEL_PITCH - scene.pitch)


def _gesture(what: str, scene: Scene) -> dict[str, Any]:
    if what in ("up", "down"):
        return pressed(pitch=90.0 if what == "up" else -90.0)
    if what in ("left", "right"):
        return _act(scene, yaw=-YAW_HIGH if what == "left" else YAW_HIGH)
    return _act(scene, *{"ahead": ("W",), "back": ("S",)}.get(what, ()))


def _further(scene: Scene, side: str) -> Thing:
    """A point on a line beside the walls of a room, further along than the agent.

    With the walls to the right one goes round counterclockwise.
    """
    low, high = scene.walls.reshape(-1, 2).min(axis=0), scene.walls.reshape(-1, 2).max(axis=0)
    low, high = low + _BESIDE, high - _BESIDE
    corners = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    line = replace(scene, walls=np.concatenate([corners, np.roll(corners, -1, axis=0)], axis=1))
    _, along = line.along_walls()
    left = (along + (_LOOK_AHEAD if side == "right" else -_LOOK_AHEAD)) % line.around
    for begin, end in line.walls.reshape(-1, 2, 2):
        length = float(np.linalg.norm(end - begin))
        if left <= length:
            break
        left -= length
    return Thing("", "point", place=begin + (end - begin) * left / length, radius=0.0)


def _shoot(scene: Scene, target: Thing) -> dict[str, Any]:
    """Fire at a thing, or step to the right where another stands before it."""
    bearing, away = scene.bearing(target.place), scene.away(target)
    for other in scene.things:
        if other is target or not other.present or scene.away(other) > away:
            continue
        beside = abs(scene.bearing(other.place) - bearing)
        wide = math.degrees(math.atan2(other.radius, np.linalg.norm(other.place - scene.place)))
        if beside <= wide + 3:
            return _act(scene, "D", yaw=bearing)
    return _act(scene, *(("LMB",) if abs(bearing) <= YAW_HIGH else ()), yaw=bearing)


def _target(goal: Goal, scene: Scene) -> Thing:
    """The thing to go to: the nearest of those that will do, one in view before others."""
    things = [each for each in goal.targets if each.present] or list(goal.targets)
    if isinstance(goal, LeaveAlone):
        things = [each for each in scene.things if each.present and each not in goal.targets]

    def order(thing: Thing) -> tuple[bool, float]:
        return abs(scene.bearing(thing.place)) > _IN_VIEW_DEGREES, scene.away(thing)

    return min(things, key=order)


def _next_point(scene: Scene, target: Thing, last: np.ndarray | None) -> np.ndarray | None:
    """Where to walk now, straight on, to get to a thing without reaching another.

    Args:
        scene: the state.
        target: where to.
        last: the point before, which stays the next one until it is reached.

    Returns:
        (2,) the point; None for the target itself.
    """
    others = [t for t in scene.things if t.present and t is not target and t is not scene.held]
    if not others:
        return None
    places = np.array([each.place for each in others])  # (O, 2)
    sine = math.sin(math.radians(REACH_DEGREES))
    clear = np.array([(BODY_RADIUS + REACH + each.radius) * sine + 0.1 for each in others])
    clear = np.maximum(clear, scene.touch)
    clear = np.minimum(clear, np.linalg.norm(places - target.place, axis=1) - 0.05)
    # One may stand too near a thing already: then it counts for no more than that.
    own = np.minimum(clear, np.linalg.norm(places - scene.place, axis=1) - 0.05)
    if _free(scene.place[None], target.place[None], places, own)[0, 0]:
        return None
    if last is not None and np.linalg.norm(last - scene.place) > _AT_A_POINT:
        if _free(scene.place[None], last[None], places, own)[0, 0]:
            return last
    angles = np.arange(_AROUND) * 2 * math.pi / _AROUND
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (A, 2)
    points = (places[:, None] + (clear[:, None, None] + 0.15) * 1.05 * ring).reshape(-1, 2)
    low, high = scene.walls.reshape(-1, 2).min(axis=0), scene.walls.reshape(-1, 2).max(axis=0)
    inside = ((points > low + _FROM_WALLS) & (points < high - _FROM_WALLS)).all(axis=1)
    nodes = np.concatenate([target.place[None], scene.place[None], points[inside]])  # (N, 2)
    free = _free(nodes, nodes, places, clear)
    free[1] = free[:, 1] = _free(nodes[1:2], nodes, places, own)[0]
    lengths = np.where(free, np.linalg.norm(nodes[:, None] - nodes, axis=-1), np.inf)
    after = _first_step(lengths)
    return None if after is None or after == 0 else nodes[after]


def _first_step(lengths: np.ndarray) -> int | None:
    """The node after node 1 on the shortest way to node 0; None without a way (Dijkstra 1959)."""
    away = np.full(len(lengths), np.inf)
    away[0] = 0.0
    following = np.zeros(len(lengths), int)
    left = np.ones(len(lengths), bool)
    while left[1]:
        node = int(np.argmin(np.where(left, away, np.inf)))
        if not np.isfinite(away[node]) or not left[node]:
            return None
        left[node] = False
        longer = away[node] + lengths[node]
        better = left & (longer < away)
        away[better], following[better] = longer[better], node
    return int(following[1])


def _free(
    starts: np.ndarray, ends: np.ndarray, places: np.ndarray, clear: np.ndarray
) -> np.ndarray:
    """(S, E) whether straight ways from (S, 2) to (E, 2) keep clear of (O, 2) places."""
    along = ends[None] - starts[:, None]  # (S, E, 2)
    to = places[None, None] - starts[:, None, None]  # (S, 1, O, 2)
    length = np.maximum((along**2).sum(axis=-1), 1e-9)[..., None]
    share = np.clip((to * along[:, :, None]).sum(axis=-1) / length, 0, 1)  # (S, E, O)
    foot = starts[:, None, None] + share[..., None] * along[:, :, None]
    return (np.linalg.norm(foot - places, axis=-1) >= clear).all(axis=-1)
