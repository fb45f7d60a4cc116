"""Text inside a timestep, text as an action, documents: codes are the text tokenizer's ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from generalist.tokenization.codec import Codec, Toolbox
from generalist.vocabulary import SPECIAL_NAMES

_PAD, _END = SPECIAL_NAMES.index("pad"), SPECIAL_NAMES.index("end")


@dataclass(frozen=True)
class TextFieldCodec(Codec):
    """A string of bounded length inside a timestep: its tokens, then an end code, then filling.

    The slot has room for the longest string of the space at one token a byte, the worst case. So a
    timestep keeps its length. Codes of the text are the tokenizer's ids. The end code is the
    tokenizer's size, the first id after the text range: the vocabulary's `pad`.
    """

    kind: ClassVar[str] = "text"
    range_name: ClassVar[str] = "text"
    dtype_kinds: ClassVar[str] = "U"

    slot: int  # K
    text_size: int

    @property
    def tokens(self) -> int:
        """K, the length of the slot."""
        return self.slot

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """K intervals, all alike: the text tokenizer's ids, and one that fills the slot."""
        return ((0, self.text_size + 1),) * self.slot

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N,) strings to (N, K) ids of the text tokenizer, the rest filled."""
        codes = np.full((len(values), self.slot), self.text_size, dtype=np.int64)
        for step, value in enumerate(values):
            ids = toolbox.text.encode(str(value))
            if len(ids) > self.slot:
                raise ValueError(
                    f"is {len(ids)} tokens long at step {step}; its space allows {self.slot}"
                )
            codes[step, : len(ids)] = ids
        return codes

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, K) ids to (N,) strings, without NULs at their end, which NumPy's strings lose."""
        texts = [toolbox.text.decode(row[row < self.text_size]) for row in np.asarray(codes)]
        return np.array(texts, dtype=np.str_)


@dataclass(frozen=True)
class WrittenCodec(TextFieldCodec):
    """A string that is written token by token, each given those before it: text, `end`, filling.

    A string that fills the slot has no end code. The special ids stand behind the text range, so
    `end` and the filling `pad` are codes too. The filling carries no loss.
    """

    kind: ClassVar[str] = "written"

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """K intervals, all alike: the text tokenizer's ids, and those that end the text."""
        return ((0, self.ends[1]),) * self.slot

    @property
    def ends(self) -> tuple[int, int]:
        """From the filling `pad` to `end`."""
        return self.text_size + _PAD, self.text_size + _END + 1

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N,) strings to (N, K): ids of the text tokenizer, `end`, filling."""
        codes = super().encode(values, toolbox)
        lengths = (codes < self.text_size).sum(axis=1)
        shorter = np.flatnonzero(lengths < self.slot)
        codes[shorter, lengths[shorter]] = self.text_size + _END
        return codes

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, K) codes to (N,) strings, each up to the first code that ends it."""
        codes = np.asarray(codes)
        written = (codes < self.text_size).cumprod(axis=1).astype(bool)
        return super().decode(np.where(written, codes, self.text_size), toolbox)


@dataclass(frozen=True)
class DocumentCodec(Codec):
    """A document: every token is an action of the writer, none an observation."""

    kind: ClassVar[str] = "document"
    range_name: ClassVar[str] = "text"

    text_size: int

    @property
    def tokens(self) -> int:
        """1."""
        return 1

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """All ids of the text tokenizer."""
        return ((0, self.text_size),)

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N,) ids of the text tokenizer as (N, 1) codes."""
        return np.asarray(values, dtype=np.int64).reshape(len(values), 1)

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, 1) codes as (N,) ids of the text tokenizer."""
        return np.asarray(codes, dtype=np.int64).reshape(len(codes))
