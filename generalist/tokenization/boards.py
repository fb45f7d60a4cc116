"""The layout of a board game on the common board of a model."""

from __future__ import annotations

from collections.abc import Mapping

from generalist.envs.board_games import BoardGame
from generalist.envs.board_view import CommonBoard
from generalist.tokenization.board_codecs import BoardCodec, MoveCodec
from generalist.tokenization.layout import Layout, Part, stored_layout
from generalist.vocabulary import Vocabulary


def board_layout(game: BoardGame, side: int, vocabulary: Vocabulary) -> Layout:
    """The layout of a board game on a common board of `side` x `side` cells.

    Raises UsageError where the board does not fit on it.
    """
    common = CommonBoard(side)
    start = vocabulary["discrete"].start
    cells = BoardCodec((game.rows, game.columns), "uint8", side)
    moves = MoveCodec((), "int64", tuple(common.codes(game).tolist()), common.moves)
    parts = [Part("observation", (), cells, start), Part("action", (), moves, start)]
    return stored_layout(parts, vocabulary.special("separator"))


def common_side(layouts: Mapping[str, Layout]) -> int | None:
    """S of the common board on which a model plays, by the layouts it knows; None if it has none.

    Layouts of one checkpoint share it.
    """
    codecs = (part.codec for layout in layouts.values() for part in layout.parts)
    return next((codec.side for codec in codecs if isinstance(codec, BoardCodec)), None)
