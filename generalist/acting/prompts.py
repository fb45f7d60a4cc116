"""Demonstrations as prompts: tokens of another episode in the header of the window.

Training has windows that begin with a demonstration (generalist.windows.windows). A prompt has the
same form: whole timesteps, at most a quarter of the window, then `demonstration_end`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np

from generalist.envs.instructions import DEMONSTRATED
from generalist.episode import Episode
from generalist.errors import GeneralistError
from generalist.seeds import PROMPT_SEED
from generalist.session import Trace

if TYPE_CHECKING:
    from generalist.tokenization.layout import Layout
    from generalist.tokenization.processor import GeneralistProcessor

PATIENCE = 200
"""The search for instructions gives up after this many seeds in a row without a wanted one."""

WINDOW_SHARE = 4
"""A demonstration takes at most 1/WINDOW_SHARE of the window, as in training."""


class DemonstrationTooLong(GeneralistError):
    """Not even one timestep of a demonstration fits into its part of the window.

    Attributes:
        reason: the numbers, in words.
    """

    def __init__(self, task: str, timestep_tokens: int, window_tokens: int) -> None:
        self.reason = (
            f"a timestep of {timestep_tokens} tokens does not fit a quarter of the window of "
            f"{window_tokens}"
        )
        super().__init__(f"{task} cannot begin with a demonstration: {self.reason}.")


def prompt_steps(task: str, positions: int, window_tokens: int) -> int:
    """How many timesteps of a demonstration fit into a window.

    Args:
        task: name of the task, for the error.
        positions: of a timestep in the window.
        window_tokens: positions of the window.

    Raises:
        DemonstrationTooLong: not even one timestep fits.
    """
    steps = (window_tokens // WINDOW_SHARE - 1) // positions
    if steps < 1:
        raise DemonstrationTooLong(task, positions, window_tokens)
    return steps


def encode_prompt(
    episode: Episode,
    processor: GeneralistProcessor,
    layout: Layout,
    window_tokens: int,
    part: Literal["start", "end"] = "end",
    *,
    positions: int | None = None,
) -> np.ndarray:
    """The ids of a demonstration, cut to whole timesteps, and the id that closes it.

    Args:
        episode: the demonstration.
        processor: encodes it.
        layout: the task's layout.
        window_tokens: positions of the agent's window.
        part: which part of a too long episode remains.
        positions: of a timestep in the window. Default: one for each token.

    Returns:
        1-D int64 array.

    Raises:
        DemonstrationTooLong: not even one timestep fits.
    """
    if part not in ("start", "end"):
        raise GeneralistError(f"A prompt keeps the 'start' or the 'end', not {part!r}.")
    steps = prompt_steps(episode.task, positions or layout.tokens_per_timestep, window_tokens)
    kept = steps * layout.tokens_per_timestep
    ids = processor.encode(episode, layout).astype(np.int64)
    ids = ids[:kept] if part == "start" else ids[-kept:]
    return np.append(ids, processor.vocabulary.special("demonstration_end"))


class Prompts:
    """Demonstrations as ids, for episodes with the same instruction.

    As in training, an episode with an instruction begins with a demonstration of that instruction,
    or with none. Demonstrations without an instruction suit every episode.

    Args:
        episodes: the demonstrations.
        encode: returns the ids of one of them; `encode_prompt` with a processor and a layout.
    """

    def __init__(
        self,
        episodes: Sequence[Episode] = (),
        encode: Callable[[Episode], np.ndarray] | None = None,
    ) -> None:
        assert encode is not None or not episodes
        self._prompts: dict[str | None, list[list[int]]] = {}
        for episode in episodes:
            ids = encode(episode).tolist()  # type: ignore[misc]
            self._prompts.setdefault(episode.instruction, []).append(ids)

    def __bool__(self) -> bool:
        return bool(self._prompts)

    def of(self, instruction: str | None, episode: int) -> list[int]:
        """The ids of a demonstration for an episode; [] where none suits.

        Args:
            instruction: of the episode; None where it has none.
            episode: number of the episode. The n suitable demonstrations take turns: modulo n.
        """
        suiting = self._prompts.get(None, []) + (
            [] if instruction is None else self._prompts.get(instruction, [])
        )
        return suiting[episode % len(suiting)] if suiting else []


def demonstrations(
    task: str,
    episodes: int,
    *,
    seed: int = PROMPT_SEED,
    options: Mapping[str, Any] | None = None,
    instructions: Collection[str] = (),
) -> list[Episode]:
    """Episodes of the task's own expert without noise, with seeds from `seed` on.

    Args:
        task: name of a task with an expert.
        episodes: number of episodes, or of episodes of each instruction.
        seed: seed of the first episode.
        options: options of the environment; they should be those of the rollout.
        instructions: instructions of the demonstrations. The search ends after `PATIENCE` seeds in
            a row without a missing one, so rare instructions may have fewer demonstrations.
    """
    from generalist import envs, experts

    expert = experts.get_expert(task)
    env = envs.make(task, **(options or {}))
    try:
        seeds: Iterable[int] = range(seed, seed + episodes)
        if instructions:
            seeds = _seeds_of(env, task, seed=seed, episodes=episodes, instructions=instructions)
        return [experts.collect_episode(env, task, expert, each) for each in seeds]
    finally:
        env.close()


def _seeds_of(
    env: gymnasium.Env, task: str, *, seed: int, episodes: int, instructions: Collection[str]
) -> Iterator[int]:
    """Yield seeds of `episodes` episodes of each instruction, as far as the search finds them."""
    missing = dict.fromkeys(instructions, episodes)
    last = seed
    for each in itertools.count(seed):
        if not any(missing.values()) or each - last > PATIENCE:
            return
        told = Trace(env, task, each).instruction
        if told is not None and missing.get(told, 0) > 0:
            missing[told] -= 1
            last = each
            yield each


def instructions_of(
    task: str, seeds: Iterable[int], options: Mapping[str, Any] | None = None
) -> set[str]:
    """The instructions of the episodes with these seeds, in words or to be demonstrated.

    Empty where the task has none.
    """
    from generalist import envs

    found: set[str] = set()
    env = envs.make(task, **(options or {}))
    try:
        for seed in seeds:
            trace = Trace(env, task, seed)
            told = trace.info.get(DEMONSTRATED, trace.instruction)
            if told is None:
                return set()
            found.add(told)
    finally:
        env.close()
    return found
