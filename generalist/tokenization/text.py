"""Text through a byte-level BPE: lossless on any string."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from generalist.errors import GeneralistError

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
        try:
            return cls(Tokenizer.from_file(str(file)))
        except Exception as error:  # tokenizers raises nothing more particular
            raise GeneralistError(f"{file} is damaged: {error}.") from error

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `tokenizer.json` into a folder."""
        self.tokenizer.save(str(Path(folder) / FILE), pretty=False)

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
