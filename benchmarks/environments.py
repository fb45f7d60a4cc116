"""How fast environments are, beside the bare simulator, and how much of a rollout they take.

    python -m benchmarks.environments --task gym/CartPole-v1 --task atari/Pong

bare: what the task is made of, with as little around it as can act and be reset: `gymnasium.make`
    without its checker (gym, BabyAI), dm_control's own environment, or the Arcade Learning
    Environment, four frames a step and one full-size screen.
ours: `generalist.make`. Both get the same random actions and the same seeds, and return the same
    rewards, which is checked. A call acts `--steps` steps in episodes one after the other, resets
    included.

Rollout: `generalist.acting.rollout`, as `generalist rollout` calls it, of an untrained model with
the sizes, window and context of `--recipe`, `--envs` episodes side by side. Its time is split in
three: the model (the decoder), the agent around it (observations to ids, ids to actions) and the
rest, which is the environments with their resets and what keeps the episodes. These are cut after
`--rollout-steps`, so resets weigh more than in whole episodes. Shown are the share that is not the
agent, and the share that is not the model.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium.utils import seeding

from benchmarks.measure import (
    Rate,
    interleaved,
    print_table,
    rates,
    screen,
    timing_parser,
    write_json,
)
from generalist import envs
from generalist.acting.agent import Agent
from generalist.acting.rollout import MAX_ENVS, rollout
from generalist.decoding.decoder import Chosen, Decoder
from generalist.envs.atari import FRAMES_PER_STEP, MAX_STEPS
from generalist.envs.dmc import MODEL_SEED
from generalist.modeling.build import build_model
from generalist.policy import Decision
from generalist.tokenization.processor import GeneralistProcessor
from generalist.training.recipe import Recipe, load_recipe


class Simulator(Protocol):
    """What both subjects are reduced to."""

    def reset(self, seed: int) -> None:
        """Begin an episode."""

    def step(self, action: Any) -> tuple[float, bool]:
        """The reward, and whether the episode has ended."""
        ...


class Gym:
    """Any Gymnasium environment: ours, or a bare one."""

    def __init__(self, env: gymnasium.Env) -> None:
        self._env = env

    def reset(self, seed: int) -> None:
        """As `Simulator.reset`."""
        self._env.reset(seed=seed)

    def step(self, action: Any) -> tuple[float, bool]:
        """As `Simulator.step`."""
        _, reward, terminated, truncated, _ = self._env.step(action)
        return float(reward), terminated or truncated


class Dmc:
    """dm_control's own environment, seeded as ours is."""

    def __init__(self, name: str) -> None:
        from dm_control import suite  # looks for a display, unless ours was made before

        domain, _, task = name.partition("-")
        self._env = suite.load(domain, task, task_kwargs={"random": MODEL_SEED})

    def reset(self, seed: int) -> None:
        """As `Simulator.reset`."""
        rng, _ = seeding.np_random(seed)
        self._env.task.random.seed(int(rng.integers(2**32)))
        self._env.reset()

    def step(self, action: Any) -> tuple[float, bool]:
        """As `Simulator.step`."""
        timestep = self._env.step(action)
        return float(timestep.reward), timestep.last()


class Ale:
    """The Arcade Learning Environment, seeded as ours is: four frames a step, the last one seen."""

    def __init__(self, rom_id: str) -> None:
        import ale_py
        from ale_py import roms

        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", 0.0)  # ours decides itself what sticks
        self._path = str(roms.get_rom_path(rom_id))
        self._ale.loadROM(self._path)
        self._screen = np.empty((*self._ale.getScreenDims(), 3), np.uint8)

    def reset(self, seed: int) -> None:
        """As `Simulator.reset`."""
        rng, _ = seeding.np_random(seed)
        self._ale.setInt("random_seed", int(rng.integers(2**31)))
        self._ale.loadROM(self._path)  # the emulator takes a seed only then
        self._ale.reset_game()
        self._buttons = self._ale.getMinimalActionSet()
        self._held = self._buttons[0]
        self._ale.act(self._held)
        self._sticks = iter(rng.random(FRAMES_PER_STEP * MAX_STEPS) < 0.25)

    def step(self, action: Any) -> tuple[float, bool]:
        """As `Simulator.step`."""
        reward, button = 0.0, self._buttons[int(action)]
        for _ in range(FRAMES_PER_STEP):
            if not next(self._sticks):
                self._held = button
            reward += self._ale.act(self._held)
            if self._ale.game_over():
                break
        self._ale.getScreenRGB(self._screen)
        return reward, self._ale.game_over()


def bare(task: str, ours: Any) -> Simulator:
    """The simulator behind a task; `ours` is the task's environment, made before."""
    family, _, name = task.partition("/")
    if family == "dmc":
        return Dmc(name)
    if family == "atari":
        return Ale(ours.rom_id)
    env_id = f"BabyAI-{name}-v0" if family == "babyai" else name
    return Gym(gymnasium.make(env_id, disable_env_checker=True))


def act(simulator: Simulator, actions: list[Any]) -> np.ndarray:
    """(steps,) rewards of these actions, in episodes of the seeds 0, 1, ..."""
    rewards = np.empty(len(actions))
    seed = 0
    simulator.reset(seed)
    for step, action in enumerate(actions):
        rewards[step], ended = simulator.step(action)
        if ended:
            seed += 1
            simulator.reset(seed)
    return rewards


def measure_steps(task: str, steps: int, rounds: int) -> dict[str, Rate]:
    """Steps a second of "bare" and "ours"; raises RuntimeError where their rewards differ."""
    env = envs.make(task)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(steps)]
    subjects: dict[str, Simulator] = {"ours": Gym(env), "bare": bare(task, env)}
    rewards = {name: act(each, actions) for name, each in subjects.items()}
    if not np.allclose(rewards["ours"], rewards["bare"]):
        raise RuntimeError(f"{task}: ours and the bare one do not play the same; times are void.")
    calls = {name: partial(act, each, actions) for name, each in subjects.items()}
    with redirect_stdout(io.StringIO()):  # minigrid prints the missions it rejects
        seconds = interleaved(calls, rounds)
    env.close()
    return rates(seconds, steps)


class TimedAgent(Agent):
    """An agent that adds up the seconds of `decide`, and of the decoder within it."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.seconds = {"agent": 0.0, "model": 0.0}

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def decide(self, *given: Any, **named: Any) -> Decision:
        """As `Agent.decide`, timed."""
        with self._clock("agent"):
            return super().decide(*given, **named)

    def new_decoder(self, slots: int, header_tokens: int | None = None) -> Decoder:
        """As `Agent.new_decoder`, with a decoder that is timed."""
        decoder = super().new_decoder(slots, header_tokens)
        plain = decoder.act

        def act(*given: Any, **named: Any) -> Chosen:
            with self._clock("model"):
                return plain(*given, **named)

        decoder.act = act  # type: ignore[method-assign]
        return decoder


@dataclass
class Shares:
    """A rollout's time outside the model, as shares of all of it; medians over rollouts."""

    steps_per_second: float
    outside_agent: float  # environments
    outside_model: float  # environments, and the agent around the model


def measure_rollout(
    task: str, recipe: Recipe, processor: GeneralistProcessor, side: int, steps: int, rounds: int
) -> Shares:
    """Shares of rollouts of `side` episodes of at most `steps` steps, after a short one."""
    env = envs.make(task)
    layout = processor.layout(env.observation_space, env.action_space, task=task)
    env.close()
    window = recipe.data.window_tokens
    model = build_model(recipe.model, processor.vocabulary, window).eval()
    found = []
    for number in range(rounds + 1):
        agent = TimedAgent(
            model,
            processor,
            {task: layout},
            context_steps=recipe.data.context_steps,
            temperature=recipe.acting.temperature,
        )
        most = steps if number else min(steps, 5)
        played = rollout(agent, episodes=side, num_envs=side, progress=False, max_steps=most)
        total = sum(played.lengths) / played.steps_per_second
        outside = (1 - part / total for part in agent.seconds.values())
        found.append((played.steps_per_second, *outside))
    return Shares(*(statistics.median(column) for column in zip(*found[1:], strict=True)))


def main(arguments: list[str] | None = None) -> None:
    """Measure each task and print a table."""
    parser = timing_parser("environments", __doc__, None, rounds=5)
    names = [task.name for task in envs.list_tasks() if not envs.is_document_task(task.name)]
    parser.add_argument("--task", action="append", help="default: every registered one")
    parser.add_argument("--steps", type=int, default=1000, help="of a call")
    parser.add_argument("--recipe", default="quickstart", help="the model and what it sees")
    parser.add_argument("--envs", type=int, default=MAX_ENVS, help="side by side in a rollout")
    parser.add_argument("--rollout-steps", type=int, default=100, help="of an episode, at most")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    recipe, processor = load_recipe(given.recipe), GeneralistProcessor.default()
    rows, result = [], []
    for task in given.task or names:
        found = measure_steps(task, given.steps, given.rounds)
        shares = measure_rollout(
            task, recipe, processor, given.envs, given.rollout_steps, given.rounds
        )
        bare_rate, our_rate = (found[name].per_second for name in ("bare", "ours"))
        parts = (f"{share:.1%}" for share in (shares.outside_agent, shares.outside_model))
        rows.append((task, bare_rate, our_rate, our_rate / bare_rate, *parts))
        facts = {"ours_times_bare": our_rate / bare_rate, **asdict(shares)}
        result.append({"task": task, **facts, "rates": [asdict(each) for each in found.values()]})
    columns = "task", "bare", "ours", "ratio", "not agent", "not model"
    title = f"steps/s, {given.threads} thread(s); rollouts of {given.envs} by {given.recipe}"
    print_table(screen(), title, columns, rows)
    write_json(given.json, {"threads": given.threads, "recipe": given.recipe, "tasks": result})


if __name__ == "__main__":
    main()
