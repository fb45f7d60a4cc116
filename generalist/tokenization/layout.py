"""Layout: one timestep as tokens, derived from Gymnasium spaces.

A timestep is an ordered list of parts, each with a role, and always has the same length. So all
that is asked of a token follows from its position in the timestep: see `Positions`.

Legend: N = steps or environments, S = tokens of a timestep, K = tokens of a part or a role,
k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from generalist.episode import IntegerKey, Path, Tree, path_name, tree_from_leaves, tree_get
from generalist.errors import GeneralistError
from generalist.tokenization import (  # noqa: F401 - registers
    board_codecs,
    characters,
    continuous,
    digits,
    discrete,
    grid,
    image,
    quantile,
)
from generalist.tokenization.codec import Codec, Toolbox, codec_from_dict
from generalist.tokenization.constant import ConstantCodec
from generalist.tokenization.text_fields import DocumentCodec, WrittenCodec
from generalist.vocabulary import Vocabulary

Role = Literal["observation", "separator", "return", "action", "reward"]
ROLES: tuple[Role, ...] = ("observation", "separator", "return", "action", "reward")


@dataclass(frozen=True)
class Part:
    """Neighbouring tokens of a timestep that mean one thing: what it is, and how it is coded.

    Attributes:
        role: what the tokens are for.
        path: which leaf of the tree of that role they hold; () where it has one only.
        codec: how values become codes.
        start: id of code 0 in the vocabulary.
    """

    role: Role
    path: Path
    codec: Codec
    start: int

    @property
    def tokens(self) -> int:
        """K."""
        return self.codec.tokens

    @property
    def name(self) -> str:
        """Readable path, such as `observation/position`."""
        return path_name((self.role, *self.path))

    @property
    def ends(self) -> tuple[int, int] | None:
        """Half-open interval of ids that end a value, as `Codec.ends` has it."""
        ends = self.codec.ends
        return None if ends is None else (self.start + ends[0], self.start + ends[1])

    def encode(self, tree: Tree, toolbox: Toolbox, task: str = "") -> np.ndarray:
        """(N, K) ids of this leaf of `tree`; errors name the part and the step."""
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
    def from_dict(cls, data: dict[str, Any]) -> Part:
        """Inverse of `to_dict`."""
        codec = codec_from_dict(data["codec"])
        path = (IntegerKey(x["key"]) if isinstance(x, dict) else x for x in data["path"])
        return cls(data["role"], tuple(path), codec, data["start"])


@dataclass(frozen=True)
class Positions:
    """What follows from the parts of a timestep for each of its S positions; arrays of shape (S,).

    Attributes:
        part: int64, number of the part.
        token: int64, which token of the part.
        role: uint8, number of the part's role in ROLES.
        first: int64, the first legal id.
        stop: int64, the id after the last legal one.
        bins: int64, first id of the range of bins in which neighbours are near in value; -1 where
            ids have no order.
        chosen: bool, True where whoever acts chooses the id; the others are given.
    """

    part: np.ndarray
    token: np.ndarray
    role: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    bins: np.ndarray
    chosen: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Positions:
        """Positions of a timestep that consists of these parts, in this order."""
        tokens = [part.tokens for part in parts]
        number = np.repeat(np.arange(len(parts)), tokens)
        legal = [np.array(part.codec.legal, np.int64).reshape(-1, 2) for part in parts]
        starts = np.repeat([part.start for part in parts], tokens)
        first, stop = np.concatenate(legal).T + starts
        roles = np.array([ROLES.index(part.role) for part in parts], np.uint8)
        bins = np.array([part.start if part.codec.ordinal else -1 for part in parts])
        return cls(
            part=number,
            token=np.arange(len(number)) - np.repeat(np.cumsum(tokens) - tokens, tokens),
            role=roles[number],
            first=first,
            stop=stop,
            bins=bins[number],
            chosen=(roles == ROLES.index("action"))[number],
        )

    def __len__(self) -> int:
        return len(self.part)

    def of_role(self, role: Role) -> np.ndarray:
        """(K,) int64 positions of the tokens of a role, ascending."""
        return np.flatnonzero(self.role == ROLES.index(role))

    def of_part(self, number: int) -> np.ndarray:
        """(K,) int64 positions of the tokens of part `number`, ascending."""
        return np.flatnonzero(self.part == number)


@dataclass(frozen=True)
class Layout:
    """The parts of one timestep as it is stored, in order.

    `observation parts, separator, action parts`; of documents action parts alone. What a model is
    shown of it may have further parts: see generalist.windows.views.

    Attributes:
        parts: in their order.
    """

    parts: tuple[Part, ...]

    @cached_property
    def fields(self) -> tuple[Part, ...]:
        """The parts that hold what is observed and done: all but the separator."""
        return tuple(part for part in self.parts if part.role != "separator")

    def parts_of(self, role: Role) -> tuple[Part, ...]:
        """The parts of a role, in order."""
        return tuple(part for part in self.parts if part.role == role)

    @cached_property
    def positions(self) -> Positions:
        """What follows from the parts for each position of a timestep."""
        return Positions.of(self.parts)

    @cached_property
    def tokens_per_timestep(self) -> int:
        """S."""
        return sum(part.tokens for part in self.parts)

    @cached_property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """k half-open intervals of legal ids, one an action token."""
        first, stop = (
            bound[self.positions.chosen].tolist()
            for bound in (self.positions.first, self.positions.stop)
        )
        return tuple(zip(first, stop, strict=True))

    @property
    def is_document(self) -> bool:
        """True for text documents, whose timestep is one token of text."""
        return all(part.role == "action" for part in self.parts)

    @cached_property
    def is_written(self) -> bool:
        """Whether the action is text, whose tokens are chosen one after the other in every form."""
        return any(isinstance(part.codec, WrittenCodec) for part in self.parts_of("action"))

    def encode(self, role: Role, tree: Tree, toolbox: Toolbox, *, task: str = "") -> np.ndarray:
        """Batched tree of a role to (N, K) int64 ids; errors name the part, the step and `task`."""
        parts = [part.encode(tree, toolbox, task) for part in self.parts_of(role)]
        return np.concatenate(parts, axis=1)

    def decode(self, role: Role, ids: np.ndarray, toolbox: Toolbox) -> Tree:
        """(N, K) ids of a role to the batched tree."""
        leaves, first = [], 0
        for part in self.parts_of(role):
            stop = first + part.tokens
            leaves.append((part.path, part.decode(ids[:, first:stop], toolbox)))
            first = stop
        return tree_from_leaves(leaves)

    def weave(self, ids: Mapping[Role, np.ndarray]) -> np.ndarray:
        """(N, K) ids by role, in the order of timesteps: (N, K of these roles and the separator).

        All roles give whole timesteps, the observation alone what is given before an action.
        """
        count = len(next(iter(ids.values())))
        columns, used = [], dict.fromkeys(ids, 0)
        for part in self.parts:
            if part.role == "separator":
                columns.append(np.full((count, 1), part.start))
            elif part.role in ids:
                first = used[part.role]
                used[part.role] = first + part.tokens
                columns.append(ids[part.role][:, first : used[part.role]])
        return np.concatenate(columns, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        separators = [part.start for part in self.parts if part.role == "separator"]
        return {
            "separator": separators[0] if separators else None,
            "fields": [part.to_dict() for part in self.fields],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Layout:
        """Inverse of `to_dict`."""
        return stored_layout([Part.from_dict(part) for part in data["fields"]], data["separator"])


def stored_layout(parts: Sequence[Part], separator: int | None) -> Layout:
    """The layout of observation and action parts with the id of a separator between them."""
    between = [] if separator is None else [Part("separator", (), ConstantCodec(), separator)]
    observed, chosen = (
        [part for part in parts if part.role == role] for role in ("observation", "action")
    )
    return Layout((*observed, *between, *chosen))


def document_layout(vocabulary: Vocabulary) -> Layout:
    """Text documents: a timestep is one text token, chosen by the writer."""
    codec = DocumentCodec(shape=(), dtype="int64", text_size=vocabulary["text"].size)
    return Layout((Part("action", (), codec, vocabulary["text"].start),))
