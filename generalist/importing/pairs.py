"""Pictures with texts, from a Hugging Face dataset: each row becomes an episode of one timestep.

The picture is its observation, resized to 84x84 RGB, the text its action, and a question its
instruction: what the families `caption` and `vqa` collect from simulators.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from generalist.envs.written import Written
from generalist.errors import GeneralistError, UsageError
from generalist.importing.files import order_facts
from generalist.importing.hub import open_table
from generalist.importing.parquet import ParquetTable
from generalist.importing.source import Environment, Load, Recording
from generalist.tokenization.frames import resize_frames

if TYPE_CHECKING:
    from gymnasium.spaces import Space

PIXELS = 84
MAX_TOKENS = 32
_ROWS = 64
_TEXTS = ("text", "caption", "answer")  # where no column of texts is named


class PairsSource:
    """Rows of a picture and a text, perhaps with a question.

    Args:
        name: a repository, a folder of `save_to_disk`, or parquet files, as `open_table` takes it.
        image: column of pictures.
        text: column of texts; None for the first of `text`, `caption`, `answer` that there is.
        question: column of questions; None for none.
        max_tokens: room for a text.
        config: configuration of the repository.
        split: split of the dataset.

    Raises:
        UsageError: a column is not there.
        GeneralistError: the dataset cannot be read.
    """

    is_text = False
    environment: Environment | None = None

    def __init__(
        self,
        name: str,
        *,
        image: str = "image",
        text: str | None = None,
        question: str | None = None,
        max_tokens: int = MAX_TOKENS,
        config: str | None = None,
        split: str | None = None,
    ) -> None:
        self.name = name
        self.notes: list[str] = []
        self._table = open_table(name, config=config, split=split)
        self.total = self._table.rows
        known = self._table.schema.names
        text = text or next((each for each in _TEXTS if each in known), _TEXTS[0])
        self._columns = [image, text, *([] if question is None else [question])]
        for column in self._columns:
            if column not in known:
                raise UsageError(
                    f"{name} has no column {column!r}; it has {', '.join(known)}. Say which with "
                    "--image, --text and --question."
                )
        self._spaces = spaces.Box(0, 255, (PIXELS, PIXELS, 3), np.uint8), Written(max_tokens)
        self.facts: dict[str, Any] = {
            "from": "pairs", "dataset": name, "config": config, "split": split,
            "columns": self._columns, "max_tokens": max_tokens,
        }  # fmt: skip
        if isinstance(self._table, ParquetTable):
            self.facts |= order_facts(self._table.files)

    def spaces(self) -> tuple[Space, Space] | None:
        """Pictures of 84x84 pixels, and texts."""
        return self._spaces

    def recordings(self, first: int) -> Iterator[Load]:
        """From row `first` on."""
        for rows in self._table.slices(self._columns, first=first, rows=_ROWS):
            for row in range(len(rows.table)):
                values = {name: rows.table.column(name)[row].as_py() for name in self._columns}
                yield Load(functools.partial(self._recording, values), rows.place(row))

    def _recording(self, values: dict[str, Any]) -> Recording:
        image, text, *question = self._columns
        asked = [_text(values[each], each) for each in question]
        return Recording(
            observations=_picture(values[image], image)[None],
            actions=np.array([_text(values[text], text)]),
            rewards=np.ones(1, np.float32),
            terminated=True,
            instruction=asked[0] if asked else None,
        )


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise GeneralistError(f"{column} holds {value!r:.40} where text is needed.")
    return value.strip()


def _picture(value: Any, column: str) -> np.ndarray:
    """(84, 84, 3) uint8 of a picture as `datasets` stores it."""
    from PIL import Image

    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise GeneralistError(
            f"{column} holds no picture; embed the pictures (`datasets` does when it saves them)."
        )
    try:
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    except Exception as error:  # Pillow's decoders raise whatever damaged input leads to
        raise GeneralistError(f"the picture in {column} cannot be read: {error}.") from error
    return resize_frames(pixels[None], PIXELS)[0]
