"""Demonstrations as prompts: tokens of another episode that stand in the header of the window.

Training shows the model windows that begin with a demonstration (generalist.windows.windows); the
same form is made here: whole timesteps, at most a quarter of the window, then `demonstration_end`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np

from generalist.episode import Episode
from generalist.errors import GeneralistError
from generalist.seeds import PROMPT_SEED
from generalist.session import Trace

if TYPE_CHECKING:
    from generalist.tokenization.layout import Layout
    from generalist.tokenization.processor import GeneralistProcessor

PATIENCE = 200
"""So many seeds in a row without an instruction that is wanted, and no more are looked at."""

WINDOW_SHARE = 4
"""A demonstration takes at most one part in four of the window (as in training)."""


class DemonstrationTooLong(GeneralistError):
    """Not even one timestep of a demonstration fits into its part of the window."""

    def __init__(self, task: str, timestep_tokens: int, window_tokens: int) -> None:
        self.reason = (
            f"a timestep of {timestep_tokens} tokens does not fit a quarter of the window of "
            f"{window_tokens}"
        )
        super().__init__(f"{task} cannot begin with a demonstration: {self.reason}.")


def prompt_steps(task: str, layout: Layout, window_tokens: int) -> int:
    """Timesteps of a demonstration that fit; raises DemonstrationTooLong where not one does."""
    steps = (window_tokens // WINDOW_SHARE - 1) // layout.tokens_per_timestep
    if steps < 1:
        raise DemonstrationTooLong(task, layout.tokens_per_timestep, window_tokens)
    return steps


def encode_prompt(
    episode: Episode,
    processor: GeneralistProcessor,
    layout: Layout,
    window_tokens: int,
    part: Literal["start", "end"] = "end",
) -> np.ndarray:
    """Ids (int64) of a demonstration, cut to whole timesteps, with the id that closes it.

    part: which end of the episode is kept where it is too long. Raises DemonstrationTooLong where
    not even one timestep fits.
    """
    if part not in ("start", "end"):
        raise GeneralistError(f"A prompt keeps the 'start' or the 'end', not {part!r}.")
    kept = prompt_steps(episode.task, layout, window_tokens) * layout.tokens_per_timestep
    ids = processor.encode(episode, layout).astype(np.int64)
    ids = ids[:kept] if part == "start" else ids[-kept:]
    return np.append(ids, processor.vocabulary.special("demonstration_end"))


class Prompts:
    """Demonstrations as ids, dealt out to episodes that are told the same.

    As in training, what is asked in a demonstration is what is to be done: an episode with an
    instruction begins with a demonstration of that instruction, or with none. Demonstrations
    without an instruction suit every episode.
    """

    def __init__(
        self,
        episodes: Sequence[Episode] = (),
        encode: Callable[[Episode], np.ndarray] | None = None,
    ) -> None:
        """encode: one of the episodes as ids; `encode_prompt` with a processor and a layout."""
        assert encode is not None or not episodes
        self._prompts: dict[str | None, list[list[int]]] = {}
        for episode in episodes:
            ids = encode(episode).tolist()  # type: ignore[misc]
            self._prompts.setdefault(episode.instruction, []).append(ids)

    def __bool__(self) -> bool:
        return bool(self._prompts)

    def of(self, instruction: str | None, episode: int) -> list[int]:
        """Ids for an episode; number `episode` modulo n of the n that suit, [] for none."""
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
    """Undisturbed episodes of the task's own expert, with seeds from `seed` on.

    Args:
        task: with an expert.
        episodes: how many; of each instruction, where those are given.
        seed: of the first episode.
        options: of the environment, which should be the one that is acted in.
        instructions: what the demonstrations are to be of. Seeds are gone through until
            `PATIENCE` of them in a row had none that was missing, so rare ones may be left out.
    """
    from generalist import envs, experts

    expert = experts.get_expert(task)
    env = envs.make(task, **(options or {}))
    try:
        seeds: Iterable[int] = range(seed, seed + episodes)
        if instructions:
            seeds = _seeds_of(env, task, seed, episodes, instructions)
        return [experts.collect_episode(env, task, expert, each) for each in seeds]
    finally:
        env.close()


def _seeds_of(
    env: gymnasium.Env, task: str, seed: int, episodes: int, instructions: Collection[str]
) -> Iterator[int]:
    """Seeds of so many episodes of each instruction, as far as they are found."""
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
    """What the episodes of these seeds are told; empty where the task has no instructions."""
    from generalist import envs

    found: set[str] = set()
    env = envs.make(task, **(options or {}))
    try:
        for seed in seeds:
            told = Trace(env, task, seed).instruction
            if told is None:
                return set()
            found.add(told)
    finally:
        env.close()
    return found
