"""The log of self-play: a progress bar, and rows in log.jsonl."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import IO, Any, Protocol

import torch
from tqdm import tqdm

from generalist.training.log import LOG_FILE
from generalist.training.selfplay.imitation import Imitation
from generalist.training.selfplay.recipe import SelfplayRecipe
from generalist.training.selfplay.state import SelfplayState


class Counts(Protocol):
    """Who counts the positions of a search.

    Attributes:
        asked: positions that had to be judged.
        judged: those that the model judged.
    """

    asked: int
    judged: int


class SelfplayLog:
    """Averages since the last row.

    Args:
        recipe: the recipe of the run.
        search: counts what was judged.
        imitation: knows the losses at demonstrations; None without.

    Attributes:
        counts: of the positions that a search asked for.
        learning_seconds: CPU time of optimizer steps since the last row.
    """

    learning_seconds: float

    _losses: list[torch.Tensor]
    _lengths: dict[str, list[int]]
    _winners: Counter[tuple[str, int | None]]
    _bar: tqdm | None
    _file: IO[str] | None

    def __init__(
        self, recipe: SelfplayRecipe, search: Counts, imitation: Imitation | None = None
    ) -> None:
        self.recipe, self.counts, self._imitation = recipe, search, imitation
        self._bar, self._file = None, None
        self._next = 0.0
        self._began = (0.0, 0)  # CPU seconds and simulations at the last row
        self._reset()

    def _reset(self) -> None:
        self.learning_seconds = 0.0
        self._losses, self._lengths, self._winners = [], {}, Counter()
        self._counted = (self.counts.asked, self.counts.judged)

    def __enter__(self) -> SelfplayLog:
        folder = self.recipe.output_dir
        self._file = (folder / LOG_FILE).open("a")
        interval = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=100.0,
            desc="selfplay",
            mininterval=interval,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
        )
        self._next = time.monotonic() + self.recipe.log_every_seconds
        return self

    def begin(self, state: SelfplayState) -> None:
        """Count from this progress on, which a resumed run does not begin at 0."""
        self._began = state.cpu_seconds, state.simulations

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._file is not None:
            self._file.close()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def ended(self, board: str, winner: int | None, plies: int) -> None:
        """Count a finished game."""
        self._lengths.setdefault(board, []).append(plies)
        self._winners[board, winner] += 1

    def learned(self, losses: torch.Tensor) -> None:
        """Count an optimizer step: (2,) losses of moves and values."""
        self._losses.append(losses)

    def scores(self, state: SelfplayState) -> None:
        """Write the scores of all boards against the anchor."""
        opponent = self.recipe.anchors.opponent
        self._write({f"score/{name}": value for name, value in state.scores.items()}, state)
        shown = ", ".join(f"{name} {value:.2f}" for name, value in state.scores.items())
        self.say(f"Step {state.steps}, {state.games:,} games, against {opponent}: {shown}.")

    def flush_if_due(self, state: SelfplayState, done: float) -> None:
        """Write a row and move the bar, every `log_every_seconds`.

        Args:
            state: the progress of the run.
            done: its progress in [0, 1].
        """
        if time.monotonic() < self._next and done < 1:
            return
        self._next = time.monotonic() + self.recipe.log_every_seconds
        seconds = max(1e-9, state.cpu_seconds - self._began[0])
        asked, judged = (
            now - before
            for now, before in zip(
                (self.counts.asked, self.counts.judged), self._counted, strict=True
            )
        )
        row: dict[str, Any] = {
            "simulations_per_cpu_second": (state.simulations - self._began[1]) / seconds,
            "remembered_share": 1 - judged / max(1, asked),
            "learning_share": self.learning_seconds / seconds,
        }
        if self._losses:
            moves, values = torch.stack(self._losses).mean(dim=0).tolist()
            row |= {"loss": moves + values, "loss/moves": moves, "loss/values": values}
        if self._imitation is not None:
            row |= self._imitation.row()
        for board, lengths in self._lengths.items():
            count = len(lengths)
            row[f"games/{board}"] = count
            row[f"plies/{board}"] = sum(lengths) / count
            row[f"draws/{board}"] = self._winners[board, None] / count
            row[f"first_wins/{board}"] = self._winners[board, 0] / count
        self._write(row, state)
        if self._bar is not None:
            self._bar.set_postfix_str(
                f", {state.games:,} games, step {state.steps}, "
                f"{row['simulations_per_cpu_second']:,.0f} simulations/s",
                refresh=False,
            )
            self._bar.update(max(0.0, 100 * done - self._bar.n))
        self._began = state.cpu_seconds, state.simulations
        self._reset()

    def _write(self, row: dict[str, Any], state: SelfplayState) -> None:
        if self._file is None:
            return
        own = ("games", "positions", "simulations", "cpu_seconds", "wall_seconds")
        # The names under which a report finds them (generalist.evaluation.report).
        progress = {"step": state.steps, "minutes": state.cpu_seconds / 60}
        progress |= {name: getattr(state, name) for name in own}
        self._file.write(json.dumps({**progress, **row}) + "\n")
        self._file.flush()
