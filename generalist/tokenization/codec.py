"""What every codec has in common.

A codec maps the values of one field to codes, integers local to one range of the vocabulary, and
back. It works on whole episodes (or batches of environments) at once.

Legend: N = steps or environments, K = tokens of the field.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from generalist.errors import GeneralistError
from generalist.tokenization.text import TextCodec

if TYPE_CHECKING:
    from generalist.tokenization.frames import FrameTokenizer

CODECS: dict[str, type[Codec]] = {}


@dataclass(frozen=True)
class Toolbox:
    """The trained parts that some codecs need: the text tokenizer and the frame tokenizer."""

    text: TextCodec
    frames: FrameTokenizer | None


@dataclass(frozen=True)
class Codec:
    """One field's values as K codes.

    What a codec does follows from its stored attributes alone, so that data and checkpoints keep
    their meaning. `shape` and `dtype` are those of one value.
    """

    kind: ClassVar[str]
    range_name: ClassVar[str]
    ordinal: ClassVar[bool] = False  # neighbouring codes stand for neighbouring values
    dtype_kinds: ClassVar[str] = "biuf"  # numpy's letters of what the values may be

    shape: tuple[int, ...]
    dtype: str

    def __init_subclass__(cls) -> None:
        CODECS[cls.kind] = cls

    def __post_init__(self) -> None:
        """Refuse a dtype that a damaged file names: it is used long after the file was read.

        Raises:
            ValueError: The codec has no values of this dtype.
            TypeError: numpy has no such dtype.
        """
        if np.dtype(self.dtype).kind not in self.dtype_kinds:
            raise ValueError(f"a codec {self.kind!r} has no values of dtype {self.dtype}")

    @property
    def tokens(self) -> int:
        """K, the number of tokens of one value."""
        raise NotImplementedError

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """K half-open intervals of codes that stand for a value."""
        raise NotImplementedError

    @property
    def ends(self) -> tuple[int, int] | None:
        """Half-open interval of codes that end a value; None where it has all its tokens.

        What follows one of them is filling, the first of these codes, and is not read.
        """
        return None

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """Values to codes.

        Args:
            values: (N, *shape) of a dtype that can stand for the codec's own.
            toolbox: The trained parts, where the codec needs one.

        Returns:
            (N, K) int64 codes, each in its interval of `legal`.

        Raises:
            ValueError: A value cannot be coded; the message goes on after the name of the field.
        """
        raise NotImplementedError

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """Codes to values.

        Args:
            codes: (N, K) integers, each in its interval of `legal`.
            toolbox: The trained parts, where the codec needs one.

        Returns:
            (N, *shape) values of the codec's dtype, within the bounds of the field's space.
        """
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"kind": self.kind, **asdict(self)}


def codec_from_dict(data: dict[str, Any]) -> Codec:
    """Inverse of `Codec.to_dict`.

    Raises:
        GeneralistError: This version has no codec of that kind.
    """
    data = dict(data)
    kind = data.pop("kind")
    if kind not in CODECS:
        raise GeneralistError(f"There is no codec {kind!r}; there are {', '.join(sorted(CODECS))}.")
    return CODECS[kind](**{key: _tuples(value) for key, value in data.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def flat(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(N, *shape) as (N, prod(shape)), row-major; raises ValueError on another shape."""
    values = np.asarray(values)
    if values.shape[1:] != tuple(shape):
        raise ValueError(f"has shape {values.shape[1:]} a step, expected {tuple(shape)}")
    return values.reshape(len(values), math.prod(shape))
