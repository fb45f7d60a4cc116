"""The space of an action that is text, written token by token."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
from gymnasium import spaces

from generalist.errors import UsageError

_CHARACTERS_OF_A_TOKEN = 16  # about as many as the longest words have
_SAMPLED = string.ascii_lowercase + string.digits + " "


class Written(spaces.Text):
    """Any text of at most so many tokens of the processor's text tokenizer.

    A `Text` space becomes one token a character; this one becomes words and parts of words, chosen
    one after the other.

    Args:
        max_tokens: most tokens of a text.
        seed: of the samples.

    Raises:
        UsageError: `max_tokens` is less than 1.
    """

    def __init__(self, max_tokens: int, *, seed: int | None = None) -> None:
        if max_tokens < 1:
            raise UsageError(f"A text has room for at least 1 token, got {max_tokens}.")
        self.max_tokens = max_tokens
        longest = max_tokens * _CHARACTERS_OF_A_TOKEN
        super().__init__(longest, min_length=0, charset=_SAMPLED, seed=seed)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Random characters, few enough to be written whatever the tokenizer makes of them."""
        if mask is None and probability is None:
            mask = (self.np_random.integers(1, self.max_tokens + 1), None)
        return super().sample(mask, probability)

    def contains(self, x: Any) -> bool:
        """Whether `x` is a string; how many tokens it has, the tokenizer alone knows."""
        return isinstance(x, (str, np.str_))

    def __eq__(self, other: object) -> bool:
        """Whether the other space has room for as many tokens."""
        return isinstance(other, Written) and self.max_tokens == other.max_tokens

    def __repr__(self) -> str:
        """As it is made."""
        return f"Written({self.max_tokens})"
