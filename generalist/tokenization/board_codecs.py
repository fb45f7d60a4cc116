"""Boards on a common board: games and sizes that share cells and moves share their tokens.

Legend: N = steps or environments, S = side of the common board.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from generalist.envs.board_games import THEIRS
from generalist.envs.board_view import OFF_BOARD, CommonBoard
from generalist.tokenization.codec import Codec, Toolbox, flat
from generalist.tokenization.discrete import IntegerRanges


@dataclass(frozen=True)
class BoardCodec(Codec):
    """A board as the S * S cells of the common board, one token each."""

    kind: ClassVar[str] = "board"
    range_name: ClassVar[str] = "discrete"

    side: int  # S

    @property
    def tokens(self) -> int:
        """As `Codec.tokens`."""
        return self.side**2

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """As `Codec.legal`."""
        return ((0, OFF_BOARD + 1),) * self.tokens

    @cached_property
    def _slots(self) -> np.ndarray:
        return CommonBoard(self.side).slots(*self.shape)

    @cached_property
    def _ranges(self) -> IntegerRanges:
        return IntegerRanges([0] * len(self._slots), [THEIRS + 1] * len(self._slots))

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """As `Codec.encode`."""
        codes = np.full((len(values), self.tokens), OFF_BOARD, np.int64)
        codes[:, self._slots] = self._ranges.offsets(flat(values, self.shape))
        return codes

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """As `Codec.decode`."""
        cells = np.minimum(codes[:, self._slots], THEIRS)
        return cells.reshape(len(cells), *self.shape).astype(self.dtype)


@dataclass(frozen=True)
class MoveCodec(Codec):
    """An action of a game as a move of the common board.

    A move that the game does not have is decoded as its first action. No mask allows it.
    """

    kind: ClassVar[str] = "move"
    range_name: ClassVar[str] = "discrete"

    codes: tuple[int, ...]  # of each action; -1 where it is never legal
    count: int  # moves of the common board

    @property
    def tokens(self) -> int:
        """As `Codec.tokens`."""
        return 1

    @property
    def legal(self) -> tuple[tuple[int, int], ...]:
        """As `Codec.legal`."""
        return ((0, self.count),)

    @cached_property
    def _codes(self) -> np.ndarray:
        return np.array(self.codes, np.int64)

    @cached_property
    def _actions(self) -> np.ndarray:
        actions = np.zeros(self.count, np.int64)
        known = np.flatnonzero(self._codes >= 0)
        actions[self._codes[known]] = known
        return actions

    def allowed(self, actions: np.ndarray) -> np.ndarray:
        """(count,) bool, the legal moves of a mask (actions,) bool of legal actions."""
        allowed = np.zeros(self.count, bool)
        codes = self._codes[actions]
        allowed[codes[codes >= 0]] = True
        return allowed

    def encode(self, values: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """As `Codec.encode`."""
        actions = IntegerRanges([0], [len(self.codes)]).offsets(flat(values, self.shape))
        codes = self._codes[actions]
        if (codes < 0).any():
            step = int(np.flatnonzero(codes[:, 0] < 0)[0])
            raise ValueError(f"is {actions[step, 0]} at step {step}, which is never a legal move")
        return codes

    def decode(self, codes: np.ndarray, toolbox: Toolbox) -> np.ndarray:
        """As `Codec.decode`."""
        return self._actions[codes[:, 0]].astype(self.dtype)
