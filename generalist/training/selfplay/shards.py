"""The games of self-play as shards: two episodes a game, one for each player.

    OUTPUT/data/board/NAME/     a dataset folder for each board

An episode holds what one player saw and did. Where a move was drawn by its visits, the label is the
search's best move: the most visited one, of equals the likelier. Where the search was a full one,
the visits of all moves are a soft label; a fast search has too few to say more than its best move.
The reward of the last step is the outcome. A record says `game`, the number of the game in the run,
and `side`.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from generalist.acting.boards import FAMILY
from generalist.envs.board import SIDES, board_spaces
from generalist.errors import GeneralistError
from generalist.shards.manifest import DatasetHeader
from generalist.shards.shards import EncodedEpisode, ShardWriter
from generalist.shards.soft_labels import soft_label_rows
from generalist.shards.spaces import space_to_json
from generalist.tokenization.layout import Layout
from generalist.training.selfplay.games import Ended
from generalist.training.selfplay.recipe import SelfplayRecipe, run_of
from generalist.training.selfplay.start import Start

DATA = "data"
"""Folder of the shards within that of the run."""
SOURCE = "selfplay"


class GameShards:
    """Writers of the games of a run; use as a context manager.

    An existing folder is continued. A game that it holds is not added again, so a run that is
    resumed from a checkpoint before its last games keeps each of them once.

    Args:
        root: folder of the datasets.
        parts: of the run.
        recipe: of the run.
        begins: whether the run has played no game yet.

    Raises:
        GeneralistError: the run begins, and a folder holds games of another one.
    """

    def __init__(self, root: Path, parts: Start, recipe: SelfplayRecipe, *, begins: bool) -> None:
        self._root, self._parts, self._recipe, self._begins = root, parts, recipe, begins
        self._stack = ExitStack()
        self._writers: list[ShardWriter] = []
        self._kept: list[set[int]] = []
        self._vocabulary = parts.checkpoint.processor.vocabulary

    def __enter__(self) -> GameShards:
        with ExitStack() as stack:
            for name in self._recipe.boards:
                folder = self._root / f"{FAMILY}{name}"
                writer = stack.enter_context(ShardWriter(folder, self._header(name)))
                records = writer.manifest.records(folder)
                before = writer.header.collection.get("run")
                if self._begins and records and before != run_of(self._recipe):
                    raise GeneralistError(
                        f"{folder} holds games of another run, of which no checkpoint is left. "
                        f"Delete {self._root}, or give another output_dir."
                    )
                self._writers.append(writer)
                self._kept.append({record["game"] for record in records})
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _header(self, name: str) -> DatasetHeader:
        parts, task = self._parts.checkpoint, f"{FAMILY}{name}"
        view = self._parts.boards.views[self._recipe.boards.index(name)]
        cells, moves = board_spaces(view.game)
        return DatasetHeader.create(
            task,
            parts.layouts[task],
            parts.processor.vocabulary,
            parts.processor.fingerprint,
            {"observation": space_to_json(cells), "action": space_to_json(moves)},
            {
                "expert": SOURCE,
                "search": self._recipe.search.model_dump(),
                "run": run_of(self._recipe),
            },
        )

    def add(self, number: int, ended: Ended) -> None:
        """Keep game `number` of the run, unless it is kept already."""
        if number in self._kept[ended.game]:
            return
        self._kept[ended.game].add(number)
        writer = self._writers[ended.game]
        for player, side in enumerate(SIDES):
            rows = np.flatnonzero(ended.players == player)
            if len(rows):  # a game may end before the second player moves
                record = {"game": number, "side": side, "source": SOURCE, "instruction": None}
                writer.add(self._episode(ended, rows, writer.layout, record))

    def _episode(
        self, ended: Ended, rows: np.ndarray, layout: Layout, record: dict[str, object]
    ) -> EncodedEpisode:
        """What the player of these plies saw and did."""
        played, first = ended.played, self._vocabulary["discrete"].start
        cells = played.cells[rows].astype(np.int64)
        moves, visits = played.moves[rows].astype(np.int64), played.visits[rows]
        of_full = visits * played.full[rows, None]
        tokens = layout.weave(
            {"observation": first + cells, "action": first + ended.moves[rows, None]}
        )
        rewards = np.zeros(len(rows), np.float32)
        rewards[-1] = played.outcome[rows[-1]]
        return EncodedEpisode(
            tokens.ravel(),
            rewards,
            first + ended.best[rows].astype(np.int64),
            {**record, "terminated": True, "truncated": False},
            soft_label_rows(first + moves, of_full, self._vocabulary),
        )

    def flush(self) -> None:
        """Write what is pending to the disk."""
        for writer in self._writers:
            writer.flush()
