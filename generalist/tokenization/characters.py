"""Text as an action: one token a character, so that whatever is chosen is a legal string."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from generalist.tokenization.codec import Codec, Toolbox


@dataclass(frozen=True)
class CharactersCodec(Codec):
    """A string as one code a character, then an end code, then filling.

    The text tokenizer's ids would allow characters that the space does not have, and more of them.
    Codes count the characters of the space's own set, and the end code is the number of them. It
    is legal from the shortest length on; what follows the first one is not read.
    """

    kind: ClassVar[str] = "characters"
    range_name: ClassVar[str] = "discrete"
    dtype_kinds: ClassVar[str] = "U"

    characters: str  # the set, sorted
    shortest: int  # fewest characters of a string
    longest: int  # most characters of a string

    @property
    def tokens(self) -> int:
        """K, the most characters of a string."""
        return self.longest

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """K intervals: the characters, and from the shortest length on the end code."""
        size = len(self.characters)
        return tuple((0, size + (place >= self.shortest)) for place in range(self.longest))

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N,) strings to (N, K): the codes of their characters, then end codes."""
        code_of = {character: code for code, character in enumerate(self.characters)}
        codes = np.full((len(values), self.longest), len(self.characters), dtype=np.int64)
        for step, value in enumerate(np.asarray(values).tolist()):
            text = str(value)
            if not self.shortest <= len(text) <= self.longest:
                raise ValueError(
                    f"is {len(text)} characters long at step {step}; its space allows "
                    f"{self.shortest} to {self.longest}"
                )
            if strange := set(text) - code_of.keys():
                raise ValueError(
                    f"has {min(strange)!r} at step {step}, which its space does not allow"
                )
            codes[step, : len(text)] = [code_of[character] for character in text]
        return codes

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, K) codes to (N,) strings, each up to its first end code."""
        end = len(self.characters)
        texts = []
        for row in np.asarray(codes).tolist():
            length = row.index(end) if end in row else len(row)
            texts.append("".join(self.characters[code] for code in row[:length]))
        return np.array(texts, dtype=np.str_)
