"""Text through a byte-level BPE: lossless on any string."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from tokenizers import Tokenizer

from generalist.errors import GeneralistError
from generalist.tokenization.codec import Codec, Toolbox

FILE = "tokenizer.json"


class TextCodec:
    """A Hugging Face tokenizer whose ids are, unchanged, the text range of the vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> TextCodec:
        """Load `tokenizer.json` from a folder (of ours, or of any model with a fast tokenizer)."""
        file = Path(folder) / FILE
        if not file.is_file():
            raise GeneralistError(f"There is no text tokenizer at {file}.")
        return cls(Tokenizer.from_file(str(file)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `tokenizer.json` into a folder."""
        self.tokenizer.save(str(Path(folder) / FILE))

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of a string, without any special token."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int] | np.ndarray) -> str:
        """The string of some ids; bytes that are no UTF-8 come back as the replacement sign."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)


@dataclass(frozen=True)
class TextFieldCodec(Codec):
    """A string of bounded length inside a timestep: its tokens, then an end code, then filling.

    The slot has room for the longest string the space allows in the worst case of one token a
    byte, so a timestep keeps its length. Codes of the text itself are the tokenizer's ids; the
    filling repeats the end code, which is the tokenizer's size (the first id after the text
    range, that is the vocabulary's `pad`).
    """

    kind: ClassVar[str] = "text"
    range_name: ClassVar[str] = "text"

    slot: int  # K
    text_size: int

    @property
    def tokens(self) -> int:
        return self.slot

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        return ((0, self.text_size + 1),) * self.slot

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
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
        texts = [toolbox.text.decode(row[row < self.text_size]) for row in np.asarray(codes)]
        return np.array(texts, dtype=np.str_)


@dataclass(frozen=True)
class DocumentCodec(Codec):
    """A document: every token is an action of the writer, none an observation."""

    kind: ClassVar[str] = "document"
    range_name: ClassVar[str] = "text"

    text_size: int

    @property
    def tokens(self) -> int:
        return 1

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        return ((0, self.text_size),)

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        return np.asarray(values, dtype=np.int64).reshape(len(values), 1)

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        return np.asarray(codes, dtype=np.int64).reshape(len(codes))
