"""A room in Doom's engine with things that words can name; maps are written for each episode."""

from __future__ import annotations

import contextlib
import math
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from generalist.envs.atari import shrink
from generalist.envs.controls import CONTROLS, KEYS
from generalist.envs.doom import ended, engine, no_interrupts
from generalist.envs.doom_map import MAP, actor_text, room_text, write_wad
from generalist.envs.scene import LEVEL_PITCH, Event, Scene, Thing

TICS = 4  # of the engine's 35 a second that a step lasts
_TOUCH = 1.35  # metres; its bodies are squares, which touch at the corners first
_UNITS = 40.0  # of the map in a metre: the player is 32 wide
_WALLS = ("STONE2", "STARTAN2", "BROWN1", "GRAY1")
_FLOORS = ("FLOOR0_1", "FLAT5_4", "RROCK10", "FLOOR4_8")
_TYPES = {
    ("red", "torch"): (46, "RedTorch"),
    ("green", "torch"): (45, "GreenTorch"),
    ("blue", "torch"): (44, "BlueTorch"),
    ("red", "column"): (32, "TallRedColumn"),
    ("green", "column"): (30, "TallGreenColumn"),
    ("red", "card"): (13, "RedCard"),
    ("blue", "card"): (5, "BlueCard"),
    ("yellow", "card"): (6, "YellowCard"),
    ("red", "skull"): (38, "RedSkull"),
    ("blue", "skull"): (40, "BlueSkull"),
    ("yellow", "skull"): (39, "YellowSkull"),
}
"""The engine's number and name of each pair of colour and kind."""
PAIRS = tuple(_TYPES)
PORTABLE = ("card", "skull")
_HUES = {"red": (1.6, 0.2, 0.2), "green": (0.2, 1.4, 0.2), "blue": (0.3, 0.4, 2.0)}
_SPRITES = {"soldier": "POSS", "imp": "TROO", "demon": "SARG"}
_FIRST_ACTOR = 20_001  # numbers below may be the engine's
_FOE_TYPES = {
    pair: (_FIRST_ACTOR + at, "".join(word.capitalize() for word in pair))
    for at, pair in enumerate((colour, kind) for colour in _HUES for kind in _SPRITES)
}
FOES = tuple(_FOE_TYPES)
"""Pairs of colour and kind of what can be shot: monsters that neither walk nor attack."""
_ACTORS = "".join(
    actor_text(name, number, _SPRITES[kind], _HUES[colour])
    for (colour, kind), (number, name) in _FOE_TYPES.items()
)
_ALL_TYPES = _TYPES | _FOE_TYPES
_DEAD = "Dead"  # how the engine's list begins the name of what was shot
_BUTTONS = {
    "W": "MOVE_FORWARD",
    "S": "MOVE_BACKWARD",
    "A": "MOVE_LEFT",
    "D": "MOVE_RIGHT",
    "E": "USE",
    "LMB": "ATTACK",
    "yaw": "TURN_LEFT_RIGHT_DELTA",
    "pitch": "LOOK_UP_DOWN_DELTA",
}


def radius_of(kind: str, size: str = "") -> float:
    """Metres: the radius of the circle that a thing fills."""
    return 0.4 if kind in ("torch", "column") else 0.5


class DoomRoom:
    """One room, in an engine of its own (a process of about 60 MB).

    What is walked over is picked up, as Doom has it.

    Attributes:
        scene: the state, kept up to date.
    """

    def __init__(self) -> None:
        self._vizdoom = engine()
        self._folder = tempfile.mkdtemp(prefix="generalist-doom-")
        self._game: Any = None  # started with the first map
        self._screen = np.zeros((240, 320, 3), np.uint8)
        self._numbers: dict[int, Thing] = {}  # of the engine's objects
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
        x, y = (round(side * _UNITS) for side in size)
        wall, floor = (names[int(rng.integers(len(names)))] for names in (_WALLS, _FLOORS))
        text = room_text(
            (x, y),
            [(_ALL_TYPES[t.colour, t.kind][0], *(t.place * _UNITS)) for t in things],
            player=(*(place * _UNITS), round(math.degrees(heading)) % 360),
            wall=wall,
            floor=floor,
        )
        write_wad(Path(self._folder) / "room.wad", text, _ACTORS)
        if self._game is None:
            self._start()
        self._game.set_seed(int(rng.integers(2**31)))
        self._game.new_episode()
        sides = np.array([x, y, x, y]) / _UNITS
        outline = np.array([[0, 0, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 0, 0]]) * sides
        self.scene = Scene(things, outline, np.array(place), heading, 0.0, touch=_TOUCH)
        self._numbers = {}
        for each in self._game.get_state().objects:
            at = np.array([each.position_x, each.position_y]) / _UNITS
            for thing in things:
                right = each.name == _ALL_TYPES[thing.colour, thing.kind][1]
                if right and np.linalg.norm(at - thing.place) < 0.1:
                    self._numbers[each.id] = thing
        assert len(self._numbers) == len(things), "the engine has put every thing into the room"
        self._act([0.0] * (len(CONTROLS) - 1) + [LEVEL_PITCH], tics=1)

    def _start(self) -> None:
        vizdoom = self._vizdoom
        game = self._game = vizdoom.DoomGame()
        self._end = weakref.finalize(self, ended, game, self._folder)
        game.set_doom_scenario_path(str(Path(self._folder) / "room.wad"))
        game.set_doom_config_path(str(Path(self._folder) / "engine.ini"))
        game.set_doom_map(MAP)
        game.set_window_visible(False)
        game.set_mode(vizdoom.Mode.PLAYER)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
        game.set_render_hud(False)
        game.set_render_weapon(False)
        game.set_episode_timeout(0)
        game.set_objects_info_enabled(True)
        game.set_available_buttons([getattr(vizdoom.Button, _BUTTONS[c]) for c in CONTROLS])
        with contextlib.chdir(self._folder), no_interrupts():
            game.init()

    def execute(self, keys: set[str], yaw: float, pitch: float) -> None:
        """Take a step: the keys are held, and the mouse is moved, for all its tics."""
        held = [float(name in keys) for name in KEYS]
        self._act([*held, yaw / TICS, pitch / TICS], tics=TICS)

    def _act(self, values: list[float], tics: int) -> None:
        """Act in the engine, and read the scene from it."""
        game, scene, variable = self._game, self.scene, self._vizdoom.GameVariable
        game.make_action(values, tics)
        state = game.get_state()
        self._screen = state.screen_buffer
        x, y, angle, down = (
            game.get_game_variable(getattr(variable, name))
            for name in ("POSITION_X", "POSITION_Y", "ANGLE", "PITCH")
        )
        place = np.array([x, y]) / _UNITS
        scene.walked = bool(np.linalg.norm(place - scene.place) > 0.02)
        scene.place, scene.heading, scene.pitch = place, math.radians(angle), -down
        there = {each.id: each.name for each in state.objects}
        for number, thing in self._numbers.items():
            taken, shot = number not in there, there.get(number, "").startswith(_DEAD)
            if thing.present and (taken or shot):
                thing.present = False
                scene.events.append(Event("take" if taken else "attack", thing))

    def sweep(self) -> None:
        """Nothing: the engine itself takes away what was picked up."""

    def frame(self) -> np.ndarray:
        """What the agent sees: (84, 84, 3) uint8."""
        return shrink(self._screen)

    def picture(self) -> np.ndarray:
        """The engine's own frame: (240, 320, 3) uint8."""
        return self._screen.copy()

    def close(self) -> None:
        """End the engine's process."""
        if self._game is not None:
            self._end()
