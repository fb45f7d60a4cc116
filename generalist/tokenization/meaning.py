"""What one token of a field means, in words."""

from __future__ import annotations

import numpy as np

from generalist.tokenization.board_codecs import BoardCodec
from generalist.tokenization.characters import CharactersCodec
from generalist.tokenization.codec import Codec
from generalist.tokenization.digits import DigitsCodec
from generalist.tokenization.grid import GridCodec
from generalist.tokenization.image import ImageCodec
from generalist.tokenization.text_fields import DocumentCodec, TextFieldCodec

_CELLS = ("empty", "mine", "theirs", "off the board")


def meaning(codec: Codec, values: np.ndarray, *, index: int, code: int) -> str:
    """What token `index` of a field means.

    Args:
        codec: of the field.
        values: what the tokens of one timestep decode to, with a leading axis of 1: the codes of a
            frame, the pieces of a text, else values of the field.
        index: place of the token in the field.
        code: its id less the first id of its range.
    """
    if isinstance(codec, ImageCodec):
        return f"code {code}"
    if isinstance(codec, (TextFieldCodec, DocumentCodec)):
        return repr(str(values[0][index]))
    if isinstance(codec, CharactersCodec):
        return repr(codec.characters[code]) if code < len(codec.characters) else "end"
    if isinstance(codec, GridCodec):
        cell = values[0].reshape(-1, values.shape[-1])[index]
        return "(" + ", ".join(map(str, cell.tolist())) + ")"
    if isinstance(codec, BoardCodec):
        return _CELLS[code]
    if isinstance(codec, DigitsCodec):
        return f"digit {code} of {np.ravel(values[0])[codec.elements[index]].item()}"
    return f"{np.ravel(values[0])[index].item():.6g}"
