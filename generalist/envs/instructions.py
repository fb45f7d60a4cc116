"""Other instructions than an episode's own, to measure whether an agent heeds what it is told.

Or shown: an instruction that no words say is to be found in a demonstration.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium

from generalist.errors import GeneralistError
from generalist.streams import Stream, random_stream

Instructions = Literal["own", "none", "shuffled", "shown", "shown-shuffled"]
OWN, NONE, SHUFFLED = "own", "none", "shuffled"
SHOWN, SHOWN_SHUFFLED = "shown", "shown-shuffled"
DEMONSTRATED = "demonstrated"
"""Key of the info dict: the instruction whose demonstration the episode begins with."""
_TRIES = 20  # other episodes that are asked for a different instruction


class NothingToShuffle(GeneralistError):
    """All episodes of a task have the same instruction, so there is no other one."""


class OtherInstruction(gymnasium.Wrapper):
    """Announces no instruction, or that of another episode, in `info["instruction"]`.

    What is asked of the agent, and so its reward, stays the episode's own. The other episode has a
    seed from the stream INSTRUCTIONS, and a different instruction.

    Args:
        env: a task with an instruction.
        which: `none`; `shuffled`, another episode's; `shown`, none in words, and the episode's own
            in `info["demonstrated"]`; `shown-shuffled`, the same with another episode's.

    Raises:
        GeneralistError: at reset, where the episode has no instruction.
        NothingToShuffle: at reset, where other episodes have no different one.
    """

    def __init__(self, env: gymnasium.Env, which: Instructions) -> None:
        super().__init__(env)
        self.which = which

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: of the episode; where another's instruction is taken it needs one.
            options: passed on.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        own = info.get("instruction")
        if own is None:
            raise GeneralistError(
                f"Episodes have no instruction, so {self.which!r} cannot take its place; leave "
                "out `instruction`."
            )
        told = own
        if self.which in (SHUFFLED, SHOWN_SHUFFLED):
            told = self._of_another_episode(own, seed, options)
            observation, info = self.env.reset(seed=seed, options=options)
        if self.which == SHUFFLED:
            return observation, {**info, "instruction": told}
        silent = {k: v for k, v in info.items() if k != "instruction"}
        return observation, silent if self.which == NONE else {**silent, DEMONSTRATED: told}

    def _of_another_episode(
        self, own: str, seed: int | None, options: dict[str, Any] | None
    ) -> str:
        if seed is None:
            raise GeneralistError("Shuffled instructions follow from the episode's seed; give one.")
        rng = random_stream(seed, Stream.INSTRUCTIONS)
        for _ in range(_TRIES):
            _, info = self.env.reset(seed=int(rng.integers(2**31)), options=options)
            if info.get("instruction") not in (None, own):
                return info["instruction"]
        raise NothingToShuffle(
            f"{_TRIES} other episodes have the same instruction, {own!r}; there is nothing to "
            "shuffle."
        )
