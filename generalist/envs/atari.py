"""Atari 2600 games over the raw ALE: 84x84 RGB frames, raw rewards, sticky actions.

The preprocessing follows Machado et al. 2018 (arXiv:1709.06009), with frames kept in colour:

- An action lasts 4 frames. With probability 0.25 a frame repeats the action before it.
- The agent sees the pixelwise maximum of the last two frames (games flicker), resized by area.
- An episode ends when the game is over, not when a life is lost, or is truncated after 108,000
  frames.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.atari_games import GAMES
from generalist.envs.registry import Task
from generalist.errors import MissingPackageError, UsageError, needing

FRAME_PIXELS = 84
FRAMES_PER_STEP = 4
MAX_STEPS = 27_000  # 108,000 frames: half an hour of play

REGISTERED = GAMES
_EXPERTS = {"Freeway": "crossing", "Pong": "paddle", "Breakout": "paddle"}
_WITHOUT_EXPERT = {"TicTacToe3D"}  # all others have a planner


@functools.cache
def _rom_ids() -> dict[str, str]:
    """Game name as Gymnasium writes it -> ROM id: "MsPacman" -> "ms_pacman"."""
    try:
        import ale_py  # noqa: F401  (registers its ids with Gymnasium)
    except ImportError as error:
        raise MissingPackageError("ale_py", "atari/") from error
    gymnasium.register_envs(ale_py)
    return {
        spec.name: spec.kwargs["game"]
        for spec in gymnasium.registry.values()
        if spec.namespace == "ALE" and spec.version == 5
    }


def names() -> list[str]:
    """Every game that ale-py carries."""
    return sorted(_rom_ids())


def find(name: str) -> Task | None:
    """The task for a game; None for an unknown one."""
    if name not in _rom_ids():
        return None
    return Task(
        name=f"atari/{name}",
        family="atari",
        make=functools.partial(AtariEnv, _rom_ids()[name]),
        step_limit=MAX_STEPS,
        description=REGISTERED.get(name, f"the Atari 2600 game {name}"),
        frames=True,
        default_expert="" if name in _WITHOUT_EXPERT else _EXPERTS.get(name, "planner"),
    )


class AtariEnv(gymnasium.Env):
    """One Atari game.

    Observations: (84, 84, 3) uint8. Actions: Discrete, the game's minimal set.
    Rewards: the change of the game's score over the step, neither clipped nor scaled.

    Args:
        rom_id: The game as ale-py calls it, such as `ms_pacman`.
        render_mode: `rgb_array` or None.
        sticky: Probability, at each frame, that the emulator repeats the action before it. With 0.0
            the game is deterministic, and seeds make no difference.
        max_steps: Steps (of 4 frames) after which the episode is truncated.

    Raises:
        MissingPackageError: A package of the family is missing.
        UsageError: `sticky` is no probability below 1.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60 // FRAMES_PER_STEP}

    def __init__(
        self,
        rom_id: str,
        *,
        render_mode: str | None = None,
        sticky: float = 0.25,
        max_steps: int | None = None,
    ) -> None:
        import ale_py

        with needing("atari/"):
            import cv2
        from ale_py import roms

        if not 0.0 <= sticky < 1.0:
            raise UsageError(f"sticky is a probability from 0 up to 1; got {sticky}.")
        cv2.setNumThreads(1)  # threads cost more than they bring on frames this small
        self._cv2 = cv2
        self.render_mode = render_mode
        self.rom_id = rom_id
        self._max_steps = max_steps or MAX_STEPS
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale_py.ALEInterface()
        # Sticking is decided here: what the emulator saves lacks the action that may stick, and
        # a planner that goes back to a saved state would then see another future.
        self.ale.setFloat("repeat_action_probability", 0.0)
        self._sticky = float(sticky)
        self.ale.setBool("truncate_on_loss_of_life", False)
        self._rom_path = str(roms.get_rom_path(rom_id))
        self._actions: list[Any] = []
        self._load(seed=0)
        self.action_names = tuple(action.name for action in self._actions)
        self.action_space = spaces.Discrete(len(self._actions))
        shape = (FRAME_PIXELS, FRAME_PIXELS, 3)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self._screens = self.new_screens()
        self._ram_before = np.zeros(self.ale.getRAMSize(), np.uint8)
        self._sticks = np.zeros(1, bool)  # for each frame of the episode
        self._frame = 0
        self._held = self._actions[0]  # what the emulator was given last, and may stick
        self.steps = 0
        self.last_action = 0  # for experts: what was executed

    def _load(self, seed: int) -> None:
        """Load the ROM; the emulator takes a seed only then."""
        self.ale.setInt("random_seed", seed)
        self.ale.loadROM(self._rom_path)
        self._actions = self.ale.getMinimalActionSet()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a game; `seed` sets when actions stick."""
        super().reset(seed=seed)
        if seed is not None:
            self._load(int(self.np_random.integers(2**31)))
        self.ale.reset_game()
        self.ale.act(self._actions[0])  # in Qbert and Tetris, what is before it is not restored
        self._sticks = self.draw_sticks(self.np_random, self._max_steps)
        self._frame, self._held = 0, self._actions[0]
        self.steps = 0
        self.last_action = 0
        self.ale.getScreenRGB(self._screens[0])
        self._screens[1] = self._screens[0]
        self.ale.getRAM(self._ram_before)
        return self.observation_of(self._screens), {"lives": self.ale.lives()}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold one action for 4 frames."""
        if not 0 <= int(action) < len(self._actions):
            raise UsageError(
                f"{self.rom_id} has the actions 0 to {len(self._actions) - 1}; got {action}."
            )
        reward, over, truncated = self.advance(int(action), self._screens)
        seen = self.observation_of(self._screens)
        return seen, reward, over, truncated, {"lives": self.ale.lives()}

    def draw_sticks(self, random: np.random.Generator, steps: int) -> np.ndarray:
        """(4 * steps,) bool, at which frames the button of the frame before is held on."""
        return random.random(FRAMES_PER_STEP * steps) < self._sticky

    def advance(
        self,
        action: int,
        screens: np.ndarray | None = None,
        sticks: np.ndarray | None = None,
    ) -> tuple[float, bool, bool]:
        """Play a step without making an observation.

        Args:
            action: One of the game's minimal set.
            screens: (2, height, width, 3) uint8, which receives the last two screens.
            sticks: (4,) bool, where the button sticks, in place of what the episode has drawn.

        Returns:
            The reward, terminated and truncated.
        """
        button = self._actions[action]
        first = self._frame if sticks is None else 0
        sticks = self._sticks if sticks is None else sticks
        reward = 0.0
        for frame in range(FRAMES_PER_STEP):
            if frame == FRAMES_PER_STEP - 2:
                self.ale.getRAM(self._ram_before)
            if not sticks[(first + frame) % len(sticks)]:
                self._held = button
            self._frame += 1
            reward += self.ale.act(self._held)
            over = self.ale.game_over()
            if screens is not None and (over or frame >= FRAMES_PER_STEP - 2):
                self.ale.getScreenRGB(screens[frame % 2])
            if over:
                break
        self.steps += 1
        self.last_action = action
        return reward, over, not over and self.steps >= self._max_steps

    def save(self) -> Any:
        """The state of the game: all that later steps depend on, but for past observations."""
        mine = (self._frame, self._held, self.steps, self.last_action, self._ram_before.copy())
        return self.ale.cloneState(), mine

    def restore(self, state: Any) -> None:
        """Go back to a saved state of the same episode."""
        emulator, mine = state
        self.ale.restoreState(emulator)
        self._frame, self._held, self.steps, self.last_action, ram_before = mine
        self._ram_before[:] = ram_before

    def new_screens(self) -> np.ndarray:
        """(2, height, width, 3) uint8, for `advance` to write the last two screens into."""
        height, width = self.ale.getScreenDims()
        return np.zeros((2, height, width, 3), np.uint8)

    @staticmethod
    def observation_of(screens: np.ndarray) -> np.ndarray:
        """What the agent sees of the last two screens: (84, 84, 3) uint8."""
        return shrink(np.maximum(screens[0], screens[1]))

    def ram(self) -> np.ndarray:
        """The console's 128 bytes of memory, which experts may read and agents never see."""
        return self.ale.getRAM()

    def ram_before(self) -> np.ndarray:
        """The memory as it was two frames ago; the difference tells speeds."""
        return self._ram_before.copy()

    def render(self) -> np.ndarray | None:
        """The full-size screen: (210, 160, 3) uint8."""
        return self.ale.getScreenRGB() if self.render_mode == "rgb_array" else None


def shrink(frame: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 to (84, 84, 3) uint8, each pixel the mean of the area it covers."""
    with needing("atari/"):
        import cv2

    return cv2.resize(frame, (FRAME_PIXELS, FRAME_PIXELS), interpolation=cv2.INTER_AREA)
