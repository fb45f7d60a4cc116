"""MiniWorld's simulator with things that words can name, drawn without a display.

All environments of a process share one OpenGL context and its frame buffers. MiniWorld itself
keeps every world's walls in the display list 1, which contexts share, so each room here has a list
of its own.
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any

import numpy as np

from generalist.envs.miniworld_gl import package, painter
from generalist.envs.scene import BODY_RADIUS, LEVEL_PITCH, Event, Scene, Thing

FIELD_OF_VIEW = 75.0  # degrees, across and up
EYE_HEIGHT = 1.5
PITCH_LOW, PITCH_HIGH = -45.0, 40.0
WALK = 0.4  # metres a step
_SUBSTEPS = 4  # in which a way of a step is tried, so that walls stop it late
_WALL_HEIGHT = 3.0
_PUT_GAP = 0.1  # between the agent and what it puts down
_HELD_SCALE = 0.3
_NO_BODY = -1000.0  # a radius that nothing runs into
_SIZES = {"": 1.0, "big": 1.6, "small": 0.6}
_BALL, _BOX, _KEY, _COLUMN = 0.8, 0.75, 0.8, (0.45, 1.8, 0.45)  # metres
_DOOR = (1.4, 2.3, 0.12)
_WALLS = ("drywall", "stucco", "concrete", "cinder_blocks")
_FLOORS = ("concrete", "wood", "asphalt", "wood_planks")
_COLOURS = {
    "red": (0.9, 0.05, 0.05),
    "green": (0.05, 0.75, 0.1),
    "blue": (0.1, 0.2, 1.0),
    "yellow": (1.0, 0.95, 0.05),
    "purple": (0.6, 0.1, 0.8),
    "black": (0.04, 0.04, 0.05),
}
COLOURS = tuple(_COLOURS)
KINDS = ("ball", "box", "column", "key")
LOOKS = 12  # number of ways a room can look, or a multiple


@functools.cache
def _room_class() -> type:
    """The simulator's class; made when MiniWorld is first needed."""
    package()
    from miniworld.miniworld import MiniWorldEnv
    from miniworld.params import DEFAULT_PARAMS
    from pyglet import gl

    class World(MiniWorldEnv):
        """MiniWorld without its windows, labels and shared lists."""

        def __init__(self) -> None:
            self.params, self.domain_rand = DEFAULT_PARAMS, False
            self.shadow_window = painter().window
            self.obs_fb, self.vis_fb = painter().frames, painter().pictures
            self._list = painter().do(lambda: gl.glGenLists(1))
            self.build: Any = lambda world: None  # what places rooms and things

        def _gen_world(self) -> None:
            self.build(self)

        def _render_static(self) -> None:
            gl.glNewList(self._list, gl.GL_COMPILE)
            for name, values in (
                (gl.GL_POSITION, [*self.light_pos, 1]),
                (gl.GL_AMBIENT, self.light_ambient),
                (gl.GL_DIFFUSE, self.light_color),
            ):
                gl.glLightfv(gl.GL_LIGHT0, name, (gl.GLfloat * 4)(*values))
            for switch in (gl.GL_LIGHTING, gl.GL_LIGHT0, gl.GL_COLOR_MATERIAL, gl.GL_TEXTURE_2D):
                gl.glEnable(switch)
            gl.glShadeModel(gl.GL_SMOOTH)
            gl.glColorMaterial(gl.GL_FRONT_AND_BACK, gl.GL_AMBIENT_AND_DIFFUSE)
            for room in self.rooms:
                room._render()
            gl.glEndList()

        def _render_world(self, frame_buffer: Any, render_agent: bool) -> np.ndarray:
            gl.glCallList(self._list)
            for entity in self.entities:
                if entity is not self.agent:
                    entity.render()
            return frame_buffer.resolve()

        def close(self) -> None:
            with contextlib.suppress(RuntimeError):  # Python is about to end, and all lists with it
                painter().do(lambda: gl.glDeleteLists(self._list, 1))

    return World


class MiniWorldRoom:
    """One room with things in it, and an agent that walks, looks, picks up and opens.

    Attributes:
        scene: the state, kept up to date.
    """

    def __init__(self) -> None:
        self._world = _room_class()()
        self._entities: dict[Thing, Any] = {}
        self.scene = Scene([], np.zeros((0, 4)), np.zeros(2), 0.0, LEVEL_PITCH)

    def build(
        self,
        things: list[Thing],
        *,
        size: tuple[float, float],
        place: np.ndarray,
        heading: float,
        rng: np.random.Generator,
    ) -> None:
        """As `instructed.Room.build`."""
        walls, floor, seed = (int(n) for n in rng.integers([LOOKS, LOOKS, 2**31]))

        def place_all(world: Any) -> None:
            world.add_rect_room(
                0, size[0], -size[1], 0,
                wall_height=_WALL_HEIGHT,
                wall_tex=_WALLS[walls % len(_WALLS)],
                floor_tex=_FLOORS[floor % len(_FLOORS)],
                ceil_tex="ceiling_tiles",
            )  # fmt: skip
            self._entities = {}
            for thing in things:
                self._entities[thing] = entity = _entity(thing)
                heading_out = 0.0 if thing.facing is None else thing.facing - math.pi / 2
                world.place_entity(entity, pos=_point(thing.place), dir=heading_out)
            world.place_entity(world.agent, pos=_point(place), dir=heading)

        def build() -> None:
            world = self._world
            world.build = place_all
            world.reset(seed=seed)
            world.agent.cam_fov_y = FIELD_OF_VIEW
            world.agent.cam_height = EYE_HEIGHT
            world.light_pos = np.array([size[0] / 2, 2.6, -size[1] / 2])
            world.light_ambient = np.array([0.6, 0.6, 0.6])
            world.light_color = np.array([0.5, 0.5, 0.5])
            world._render_static()

        painter().do(build)
        (x, y) = size
        outline = np.array([[0, 0, x, 0], [x, 0, x, y], [x, y, 0, y], [0, y, 0, 0]], np.float64)
        self.scene = Scene(things, outline, np.array(place, np.float64), heading, LEVEL_PITCH)
        self._look()

    def execute(self, keys: set[str], yaw: float, pitch: float) -> None:
        """Take a step: turn, then walk, then use what stands ahead."""
        self.turn(yaw, pitch)
        ahead, right = ("W" in keys) - ("S" in keys), ("D" in keys) - ("A" in keys)
        if ahead or right:
            length = WALK / math.hypot(ahead, right)
            self.walk(ahead * length, right * length)
        if "E" in keys:
            self.use()

    def turn(self, yaw: float, pitch: float) -> None:
        """Turn by degrees: yaw to the right, pitch upwards."""
        scene = self.scene
        scene.heading -= math.radians(yaw)
        scene.pitch = float(np.clip(scene.pitch + pitch, PITCH_LOW, PITCH_HIGH))
        self._look()

    def walk(self, ahead: float, right: float) -> None:
        """Walk some metres, as far as nothing is in the way."""
        world = self._world
        for _ in range(_SUBSTEPS):
            step = world.agent.dir_vec * ahead + world.agent.right_vec * right
            to = world.agent.pos + step / _SUBSTEPS
            if world.intersect(world.agent, to, BODY_RADIUS) is not None:
                break
            world.agent.pos = to
        place = _place(world.agent.pos)
        self.scene.walked = bool(np.linalg.norm(place - self.scene.place) > 1e-6)
        self.scene.place = place
        self._look()

    def use(self) -> None:
        """Pick up or open what is reached, or put down what is held."""
        scene = self.scene
        if scene.held is not None:
            self._put()
            return
        thing = scene.reached()
        if thing is None:
            return
        if thing.kind == "door":
            thing.opened, thing.present = True, False
            scene.events.append(Event("open", thing))
        else:
            scene.held = thing
            entity = self._entities[thing]
            _scale(entity, _HELD_SCALE)
            entity.radius = _NO_BODY
            scene.events.append(Event("take", thing))
        self._look()

    def sweep(self) -> None:
        """Take out of the world what is gone from the scene."""
        for thing in self.scene.things:
            entity = self._entities[thing]
            if not thing.present and entity in self._world.entities:
                self._world.entities.remove(entity)

    def _put(self) -> None:
        """Put down what is held, where there is room for it straight ahead."""
        scene, world = self.scene, self._world
        thing = scene.held
        assert thing is not None
        entity = self._entities[thing]
        to = world.agent.pos + world.agent.dir_vec * (BODY_RADIUS + thing.radius + _PUT_GAP)
        if world.intersect(entity, to, thing.radius) is not None:
            return
        _scale(entity, 1 / _HELD_SCALE)
        entity.radius = thing.radius
        entity.pos = to * np.array([1, 0, 1])
        thing.place, scene.held = _place(entity.pos), None
        scene.events.append(Event("put", thing))

    def _look(self) -> None:
        """Bring the simulator's agent, and what it holds, to where the scene says they are."""
        scene, agent = self.scene, self._world.agent
        agent.dir, agent.cam_pitch = scene.heading, scene.pitch
        if scene.held is None:
            return
        entity = self._entities[scene.held]
        down = math.radians(scene.pitch - 22)  # low in view, to the right
        ahead = agent.dir_vec * math.cos(down) + np.array([0, math.sin(down), 0])
        entity.pos = agent.pos + np.array([0, EYE_HEIGHT, 0]) + 0.9 * ahead + 0.35 * agent.right_vec
        entity.pos = entity.pos - np.array([0, entity.height / 2, 0])
        entity.dir = scene.heading
        scene.held.place = scene.place.copy()

    def frame(self) -> np.ndarray:
        """What the agent sees: (84, 84, 3) uint8."""
        return self._draw(self._world.obs_fb)

    def picture(self) -> np.ndarray:
        """The same for people: (336, 336, 3) uint8."""
        return self._draw(self._world.vis_fb)

    def _draw(self, frame_buffer: Any) -> np.ndarray:
        return painter().do(lambda: np.array(self._world.render_obs(frame_buffer)))

    def close(self) -> None:
        """Free what the room holds of the graphics memory."""
        self._world.close()


def radius_of(kind: str, size: str = "") -> float:
    """Metres: the radius of the circle that a thing fills."""
    wide = {"ball": _BALL / 2, "box": _BOX / math.sqrt(2), "key": _KEY / 2, "column": 0.35}
    return wide.get(kind, _DOOR[0] / 2) * _SIZES[size]


def _entity(thing: Thing) -> Any:
    """MiniWorld's entity for a thing."""
    entities, scale = package().entity, _SIZES[thing.size]
    if thing.kind in ("ball", "key"):
        height = (_BALL if thing.kind == "ball" else _KEY) * scale
        entity = entities.MeshEnt(f"{thing.kind}_red", height, static=False)
        entity.mesh = _mesh(thing.kind, thing.colour)
    else:
        size = {"box": (_BOX, _BOX, _BOX), "column": _COLUMN}.get(thing.kind, _DOOR)
        entity = entities.Box("red", size=[scale * each for each in size])
        entity.randomize = lambda params, rng: None
        entity.color_vec = np.array(_COLOURS[thing.colour])
    entity.radius = 0.05 if thing.kind == "door" else thing.radius
    return entity


@functools.cache
def _mesh(kind: str, colour: str) -> Any:
    """The mesh of a kind in a colour; MiniWorld's own files have other colours."""
    from miniworld.objmesh import ObjMesh
    from miniworld.utils import get_file_path

    mesh = ObjMesh(get_file_path("meshes", f"{kind}_red", "obj"))
    for vertices in mesh.vlists:
        vertices.colors = np.tile(np.array(_COLOURS[colour], np.float32), len(vertices.colors) // 3)
    return mesh


def _scale(entity: Any, factor: float) -> None:
    """Make an entity larger or smaller; its radius stays that of the thing."""
    entity.height *= factor
    if hasattr(entity, "mesh"):
        entity.scale *= factor
    else:
        entity.size = entity.size * factor


def _point(place: np.ndarray) -> np.ndarray:
    """(x, y) to MiniWorld's (x, up, z)."""
    return np.array([place[0], 0.0, -place[1]])


def _place(point: np.ndarray) -> np.ndarray:
    """MiniWorld's (x, up, z) to (x, y)."""
    return np.array([point[0], -point[2]])
