"""Demonstrations as prompts: tokens of another episode that stand in the header of the window.

Training shows the model windows that begin with a demonstration (generalist.windows.windows); the
same form is made here: whole timesteps, at most a quarter of the window, then `demonstration_end`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from generalist.episode import Episode
from generalist.errors import GeneralistError

if TYPE_CHECKING:
    from generalist.tokenization.layout import Layout
    from generalist.tokenization.processor import GeneralistProcessor

PROMPT_SEED = 2_000_000
"""First environment seed of demonstrations made for prompts: far from data and evaluation."""

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


def demonstrations(
    task: str, episodes: int, *, seed: int = PROMPT_SEED, options: Mapping[str, Any] | None = None
) -> list[Episode]:
    """Undisturbed episodes of the task's own expert, with seeds `seed`, `seed + 1`, ...

    options: of the environment, which should be the one that is acted in.
    """
    from generalist import envs, experts

    expert = experts.get_expert(task)
    env = envs.make(task, **(options or {}))
    try:
        return [experts.collect_episode(env, task, expert, seed + i) for i in range(episodes)]
    finally:
        env.close()


def encode_prompts(
    episodes: Sequence[Episode],
    processor: GeneralistProcessor,
    layout: Layout,
    window_tokens: int,
    part: Literal["start", "end"] = "end",
) -> list[list[int]]:
    """`encode_prompt` of several episodes."""
    return [
        encode_prompt(episode, processor, layout, window_tokens, part).tolist()
        for episode in episodes
    ]
