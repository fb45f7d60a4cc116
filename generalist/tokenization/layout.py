"""Layout: one timestep as tokens, derived from Gymnasium spaces.

A timestep is `observation fields, separator, action fields` and always has the same length, so
that everything else follows from positions alone: which tokens carry a loss, which ids are legal.

Legend: N = steps or environments, S = tokens of a timestep, k = action tokens of a timestep.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from generalist.episode import IntegerKey, Path, Tree, path_name, tree_from_leaves, tree_get
from generalist.errors import GeneralistError
from generalist.tokenization import (  # noqa: F401 - registers
    characters,
    continuous,
    digits,
    discrete,
    grid,
    image,
    quantile,
)
from generalist.tokenization.codec import Codec, Toolbox, codec_from_dict
from generalist.tokenization.text_fields import DocumentCodec
from generalist.vocabulary import Vocabulary

Role = Literal["observation", "action"]


@dataclass(frozen=True)
class Field:
    """One leaf of the observation or action tree, and where its tokens stand."""

    role: Role
    path: Path
    codec: Codec
    start: int  # id of code 0 in the vocabulary

    @property
    def name(self) -> str:
        """Readable path, such as `observation/position`."""
        return path_name((self.role, *self.path))

    def encode(self, tree: Tree, toolbox: Toolbox, task: str = "") -> np.ndarray:
        """(N, K) ids of this leaf of `tree`; errors name the field and the step."""
        where = f"{task}: {self.name}" if task else self.name
        try:
            values = tree_get(tree, self.path)
        except (KeyError, IndexError, TypeError):
            raise GeneralistError(f"{where} is missing.") from None
        try:
            return self.codec.encode(values, toolbox) + self.start
        except ValueError as error:
            raise GeneralistError(f"{where} {error}.") from None
        except TypeError as error:  # such as a word where a number is due
            raise GeneralistError(f"{where} cannot be encoded: {error}.") from None

    def decode(self, ids: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """(N, K) ids to (N, *shape) values; an id that means nothing here is an error."""
        codes = ids.astype(np.int64) - self.start
        legal = np.array(self.codec.legal).reshape(-1, 2)
        wrong = (codes < legal[:, 0]) | (codes >= legal[:, 1])
        if wrong.any():
            row, position = np.argwhere(wrong)[0]
            first, stop = legal[position] + self.start
            raise GeneralistError(
                f"{self.name}: id {ids[row, position]} at step {row}, token {position} is not one "
                f"of the ids {first} to {stop - 1} that are legal there."
            )
        return self.codec.decode(codes, toolbox)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "role": self.role,
            "path": [{"key": int(x)} if isinstance(x, IntegerKey) else x for x in self.path],
            "start": self.start,
            "codec": self.codec.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Field:
        """Inverse of `to_dict`."""
        codec = codec_from_dict(data["codec"])
        path = (IntegerKey(x["key"]) if isinstance(x, dict) else x for x in data["path"])
        return cls(data["role"], tuple(path), codec, data["start"])


@dataclass(frozen=True)
class Layout:
    """The fields of one timestep in order; `separator` is None for documents."""

    fields: tuple[Field, ...]
    separator: int | None

    @cached_property
    def observation_fields(self) -> tuple[Field, ...]:
        """Fields before the separator."""
        return tuple(field for field in self.fields if field.role == "observation")

    @cached_property
    def action_fields(self) -> tuple[Field, ...]:
        """Fields after the separator."""
        return tuple(field for field in self.fields if field.role == "action")

    @cached_property
    def observation_tokens(self) -> int:
        """Tokens before the separator."""
        return sum(field.codec.tokens for field in self.observation_fields)

    @cached_property
    def action_tokens(self) -> int:
        """k."""
        return sum(field.codec.tokens for field in self.action_fields)

    @cached_property
    def tokens_per_timestep(self) -> int:
        """S."""
        return self.observation_tokens + (self.separator is not None) + self.action_tokens

    @cached_property
    def action_positions(self) -> np.ndarray:
        """(k,) int64 positions of the action tokens within the timestep."""
        return np.arange(self.tokens_per_timestep - self.action_tokens, self.tokens_per_timestep)

    @cached_property
    def target_mask(self) -> np.ndarray:
        """(S,) bool, the positions that carry a loss: the action tokens."""
        mask = np.zeros(self.tokens_per_timestep, dtype=bool)
        mask[self.action_positions] = True
        return mask

    @cached_property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """k half-open intervals of legal ids, one an action position."""
        return tuple(
            (field.start + first, field.start + stop)
            for field in self.action_fields
            for first, stop in field.codec.legal
        )

    @cached_property
    def ordinal(self) -> np.ndarray:
        """(k,) bool, True where neighbouring ids stand for neighbouring values."""
        flags = [[field.codec.ordinal] * field.codec.tokens for field in self.action_fields]
        return np.array(sum(flags, []), dtype=bool)

    @property
    def is_document(self) -> bool:
        """True for text documents, where every token is a target."""
        return self.separator is None

    def encode_observations(self, tree: Tree, toolbox: Toolbox, task: str = "") -> np.ndarray:
        """Batched tree to (N, observation_tokens) int64 ids."""
        parts = [field.encode(tree, toolbox, task) for field in self.observation_fields]
        return np.concatenate(parts, axis=1)

    def encode_actions(self, tree: Tree, toolbox: Toolbox, task: str = "") -> np.ndarray:
        """Batched tree to (N, k) int64 ids."""
        return np.concatenate([f.encode(tree, toolbox, task) for f in self.action_fields], axis=1)

    def decode_fields(self, role: Role, ids: np.ndarray, toolbox: Toolbox) -> Tree:
        """(N, tokens of the role) ids to the batched tree."""
        origin = self.action_positions[0] if role == "action" else 0
        leaves = [
            (
                field.path,
                field.decode(ids[:, tokens.start - origin : tokens.stop - origin], toolbox),
            )
            for field, tokens in self.field_slices
            if field.role == role
        ]
        return tree_from_leaves(leaves)

    @cached_property
    def field_slices(self) -> tuple[tuple[Field, slice], ...]:
        """Each field with its positions in the timestep."""
        slices, position = [], 0
        for field in self.fields:
            if field.role == "action" and position == self.observation_tokens:
                position += not self.is_document  # the separator
            slices.append((field, slice(position, position + field.codec.tokens)))
            position += field.codec.tokens
        return tuple(slices)

    @cached_property
    def slots(self) -> tuple[tuple[Field | None, int], ...]:
        """For each of the S positions its field (None: the separator) and the token within it."""
        slots: list[tuple[Field | None, int]] = [(None, 0)] * self.tokens_per_timestep
        for field, tokens in self.field_slices:
            slots[tokens] = [(field, index) for index in range(field.codec.tokens)]
        return tuple(slots)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "separator": self.separator,
            "fields": [field.to_dict() for field in self.fields],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Layout:
        """Inverse of `to_dict`."""
        return cls(tuple(Field.from_dict(f) for f in data["fields"]), data["separator"])


def document_layout(vocabulary: Vocabulary) -> Layout:
    """Text documents: a timestep is one text token, and every one is a target."""
    codec = DocumentCodec(shape=(), dtype="int64", text_size=vocabulary["text"].size)
    return Layout((Field("action", (), codec, vocabulary["text"].start),), separator=None)
