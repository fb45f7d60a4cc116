"""ViZDoom: what one sees in Doom, played with keys and a mouse; `doom/basic`, `doom/deathmatch`.

Kempka et al. 2016 (arXiv:1605.02097). The scenarios come with the package, as does a free set of
graphics. Frames are 84x84 RGB. An action lasts 4 tics of the engine's 35 a second, and rewards are
the scenario's own, raw. Keys are a MultiBinary, any of them at a time. The mouse is a Box of the
motions that the scenario knows, spread over the tics of a step. An episode ends with the scenario
(death, or the goal reached) or is truncated after the scenario's time.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import signal
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.atari import FRAME_PIXELS, shrink
from generalist.envs.registry import Task
from generalist.errors import GeneralistError, MissingPackageError, UsageError

REGISTERED = {
    "basic": "step aside until the monster is straight ahead, and shoot it",
    "deadly_corridor": "get down a corridor of enemies alive, to the vest at its end",
    "deathmatch": "kill as many monsters as there is time for, with what lies around",
    "defend_the_center": "turn on the spot and shoot what comes near, with few bullets",
    "defend_the_line": "turn on the spot and shoot what comes from the far side of the room",
    "health_gathering": "stay alive on a floor of acid by picking up medikits",
    "health_gathering_supreme": "the same in a maze, with poison among the medikits",
    "my_way_home": "find the vest in one of nine rooms",
    "predict_position": "hit a monster that walks by with a single, slow rocket",
    "rocket_basic": "step aside until the monster is straight ahead, and hit it with a rocket",
    "simpler_basic": "as basic, in a room without ornament",
    "take_cover": "dodge fireballs for as long as you can",
}
TICS_PER_STEP = 4
TICS_PER_SECOND = 35
_TICS = {
    "basic": 300,
    "rocket_basic": 300,
    "simpler_basic": 300,
    "predict_position": 300,
    "deathmatch": 4200,
}
_MOST_TICS = 2100  # of the others; one minute, also where a scenario itself has no end
MOUSE_HIGH = 45.0  # degrees, or units of the map for a motion, a step
_TURN_KEYS = ("TURN_LEFT", "TURN_RIGHT")
_EXPERTS = {
    "basic": "align",
    "deadly_corridor": "fighter",
    "deathmatch": "fighter",
    "defend_the_center": "turret",
    "defend_the_line": "turret",
    "health_gathering": "gatherer",
    "health_gathering_supreme": "gatherer",
    "my_way_home": "homecomer",
    "predict_position": "leader",
    "rocket_basic": "align",
    "simpler_basic": "align",
    "take_cover": "dodger",
}


def names() -> list[str]:
    """The scenarios for one player."""
    return list(REGISTERED)


def find(name: str) -> Task | None:
    """The task of a scenario; None for an unknown one."""
    if name not in REGISTERED:
        return None
    return Task(
        name=f"doom/{name}",
        family="doom",
        make=functools.partial(DoomEnv, name),
        step_limit=_TICS.get(name, _MOST_TICS) // TICS_PER_STEP,
        description=REGISTERED[name],
        frames=True,
        default_expert=_EXPERTS.get(name, ""),
    )


def engine() -> Any:
    """The module `vizdoom`; raises MissingPackageError where it is missing."""
    try:
        import vizdoom
    except ImportError as error:
        raise MissingPackageError("vizdoom", "doom/") from error
    return vizdoom


class DoomEnv(gymnasium.Env):
    """One scenario of ViZDoom, in an engine of its own (a process of about 60 MB).

    Observations: (84, 84, 3) uint8.
    Actions: MultiBinary, the keys of `keys`; where there is a mouse, Dict of "keys" and "mouse":
        float32 Box of the motions of `mouse`, from -45 to 45 degrees a step, to the right positive.
    Rewards: the scenario's own, summed over the tics of a step.

    Args:
        scenario: As ViZDoom names it.
        render_mode: `rgb_array` or None.
        max_steps: Steps after which the episode is truncated.
        frame_skip: Tics that an action lasts.
        mouse: Turn with the mouse in place of the scenario's two keys for it.

    Raises:
        MissingPackageError: ViZDoom is missing.
        UsageError: `frame_skip` is below 1, or the scenario has no turning.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 9}

    def __init__(
        self,
        scenario: str,
        *,
        render_mode: str | None = None,
        max_steps: int | None = None,
        frame_skip: int = TICS_PER_STEP,
        mouse: bool = False,
    ) -> None:
        if frame_skip < 1:
            raise UsageError(f"frame_skip is at least 1 tic; got {frame_skip}.")
        self.render_mode = render_mode
        self.scenario = scenario
        self.metadata = {**self.metadata, "render_fps": max(1, TICS_PER_SECOND // frame_skip)}
        self.frame_skip = frame_skip
        self._max_steps = max_steps or _TICS.get(scenario, _MOST_TICS) // frame_skip
        self._steps: int | None = None  # None until reset, and after an episode's end
        self._screen = np.zeros((240, 320, 3), np.uint8)
        folder = tempfile.mkdtemp(prefix="generalist-doom-")
        self.game = _configured(scenario, mouse, folder)
        self._end = weakref.finalize(self, ended, self.game, folder)
        names = [button.name for button in self.game.get_available_buttons()]
        self.mouse = tuple(name for name in names if name.endswith("_DELTA"))
        self.keys = tuple(name for name in names if name not in self.mouse)
        keys = spaces.MultiBinary(len(self.keys))
        motions = spaces.Box(-MOUSE_HIGH, MOUSE_HIGH, (len(self.mouse),), np.float32)
        self.action_space = spaces.Dict({"keys": keys, "mouse": motions}) if self.mouse else keys
        self.observation_space = spaces.Box(0, 255, (FRAME_PIXELS, FRAME_PIXELS, 3), np.uint8)
        with contextlib.chdir(folder), no_interrupts():  # it leaves files where it is started
            self.game.init()

    def variable(self, name: str) -> float:
        """One of the engine's game variables, such as "HEALTH", for experts."""
        return self.game.get_game_variable(getattr(engine().GameVariable, name))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the scenario anew; a seed draws the same start and the same luck."""
        super().reset(seed=seed)
        self.game.set_seed(int(self.np_random.integers(2**31)))
        self.game.new_episode()
        self._steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold the keys, and move the mouse, for the tics of a step."""
        if self._steps is None:
            raise GeneralistError(
                f"doom/{self.scenario}: call reset() before step(); no episode is on."
            )
        if not self.action_space.contains(action):
            raise UsageError(
                f"doom/{self.scenario} takes actions of {self.action_space}; got {action!r}."
            )
        keys = action["keys"] if self.mouse else action
        motions = action["mouse"] if self.mouse else ()
        values = [float(key) for key in keys] + [float(each) / self.frame_skip for each in motions]
        reward = float(self.game.make_action(values, self.frame_skip))
        self._steps += 1
        terminated = bool(self.game.is_episode_finished())
        truncated = not terminated and self._steps >= self._max_steps
        observation = self._observation()
        if terminated or truncated:
            self._steps = None
        return observation, reward, terminated, truncated, {}

    def _observation(self) -> np.ndarray:
        state = self.game.get_state()
        if state is not None:  # at the end of an episode there is none: the last frame stays
            self._screen = state.screen_buffer
        return shrink(self._screen)

    def render(self) -> np.ndarray | None:
        """The engine's own frame: (240, 320, 3) uint8."""
        return self._screen.copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the engine's process."""
        self._end()


def _configured(scenario: str, mouse: bool, folder: str) -> Any:
    """The scenario's game, not yet running; its files go into `folder`."""
    vizdoom = engine()
    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / f"{scenario}.cfg"))
    game.set_doom_config_path(str(Path(folder) / "engine.ini"))
    game.set_window_visible(False)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_episode_timeout(0)  # `max_steps` says it
    game.set_objects_info_enabled(True)  # for experts; agents see frames only
    game.set_sectors_info_enabled(True)
    buttons = game.get_available_buttons()
    keys = [button for button in buttons if "_DELTA" not in button.name]
    motions = [button for button in buttons if "_DELTA" in button.name]
    if mouse:
        if not any(key.name in _TURN_KEYS for key in keys):
            raise UsageError(f"doom/{scenario} has no turning that a mouse could do.")
        keys = [key for key in keys if key.name not in _TURN_KEYS]
        turn = vizdoom.Button.TURN_LEFT_RIGHT_DELTA
        motions = [turn, *(motion for motion in motions if motion != turn)]
    game.set_available_buttons(keys + motions)  # keys first, as an action has them
    return game


@contextlib.contextmanager
def no_interrupts() -> Iterator[None]:
    """Processes that are started here never hear the Ctrl-C that a terminal sends to all."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ended(game: Any, folder: str) -> None:
    """End a game's engine and remove its folder."""
    game.close()  # first: the engine writes its settings as it ends
    shutil.rmtree(folder, ignore_errors=True)
