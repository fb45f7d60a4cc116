"""Which rows of a table make an episode, where a row is a step.

An episode is a run of rows with the same id. It may go on from one file to the next. But where an
id comes back in another file, or the steps are counted anew there, that file numbers its episodes
anew: it is another episode. Rows of an episode that do not stand together are an error.

Legend: T = steps of an episode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.errors import GeneralistError
from generalist.importing.arrow import is_list, is_number, plain_array
from generalist.importing.tables import EpisodeRows, TableSlice

# Columns of these names count the steps of an episode, or of all.
_COUNTERS = ("frame_index", "frame", "step", "step_index", "step_id", "timestep", "time_step",
             "index", "timestamp")  # fmt: skip
_CLOCKS = ("timestamp",)  # two steps may fall on the same tick


def counters_in(schema: Any, taken: Iterable[str]) -> tuple[str, ...]:
    """List the columns of a pyarrow schema that count steps, but for those `taken` by a role."""
    import pyarrow as pa

    there = [name for name in _COUNTERS if name in schema.names and name not in set(taken)]
    kinds = {name: schema.field(name).type for name in there}
    return tuple(n for n, kind in kinds.items() if is_number(kind) or pa.types.is_temporal(kind))


def counts_of(values: Any) -> np.ndarray:
    """(T,) numbers of a counter's values, NaN where one is missing."""
    import pyarrow as pa

    values = plain_array(values)
    if is_list(values.type):  # LeRobot's features of shape [1]
        values = values.flatten()
    if pa.types.is_temporal(values.type):
        values = values.cast(pa.int64() if values.type.bit_width == 64 else pa.int32())
    return values.to_numpy(zero_copy_only=False)


def first_fall(name: str, counts: np.ndarray) -> int | None:
    """Find the first step whose count does not rise above the one before it; None if all do."""
    if not counts.size:
        return None
    known = ~np.isnan(counts) if counts.dtype.kind == "f" else np.ones(len(counts), bool)
    if not known.any():
        return None
    steps, later = counts[1:], counts[:-1]
    rises = (steps >= later) if name in _CLOCKS else (steps > later)
    wrong = ~np.r_[known[0], rises & known[1:]]
    return int(np.argmax(wrong)) if wrong.any() else None


@dataclass
class _Ended:
    """An episode that has ended: its last row, and what its counters said there."""

    rows: TableSlice
    counts: dict[str, float]

    @property
    def place(self) -> str:
        return self.rows.place(len(self.rows) - 1)


class EpisodeCutter:
    """Cuts the slices of a table into episodes.

    column: the ids. counters: columns that count steps. terminated: a column that is true at an
    episode's end. notes: where it says what it had to guess.
    """

    def __init__(
        self,
        column: str,
        *,
        counters: tuple[str, ...] = (),
        terminated: str | None = None,
        notes: list[str] | None = None,
    ) -> None:
        self._column, self._counters, self._terminated = column, counters, terminated
        self._notes = [] if notes is None else notes
        self._ended: dict[Any, _Ended] = {}
        # Counters that were seen to begin anew with an episode; others may count all rows.
        self._restarting: set[str] = set()

    def episodes(self, slices: Iterable[TableSlice]) -> Iterator[tuple[Any, EpisodeRows]]:
        """Yield the id and the rows of each episode.

        Raises GeneralistError that names file and row, where an id is missing or comes back.
        """
        pending: list[TableSlice] = []
        current: Any = None
        for found in slices:
            for episode, run in self._runs(found):
                if pending and episode == current and self._goes_on(pending[-1], run):
                    pending.append(run)
                    continue
                if pending:
                    self._end(current, pending[-1], run)
                    yield current, EpisodeRows(tuple(pending))
                self._check_comes_back(episode, run)
                current, pending = episode, [run]
        if pending:
            yield current, EpisodeRows(tuple(pending))

    def _runs(self, found: TableSlice) -> Iterator[tuple[Any, TableSlice]]:
        """Runs of rows with the same id."""
        import pyarrow as pa
        import pyarrow.compute as pc

        ids = plain_array(found.table.column(self._column))
        if pa.types.is_nested(ids.type):
            raise GeneralistError(
                f"The column {self._column!r} of {found.file} holds values of type {ids.type}; an "
                "episode is named by a number or a word."
            )
        missing = pc.is_null(ids, nan_is_null=True)
        if (row := missing.index(True).as_py()) >= 0:
            raise GeneralistError(
                f"{found.place(row)} does not say which episode it belongs to: its "
                f"{self._column!r} is empty. Fill it in, or take such rows out."
            )
        runs = pc.run_end_encode(ids)
        start = 0
        for value, stop in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield value, found.part(start, stop)
            start = stop

    def _goes_on(self, before: TableSlice, run: TableSlice) -> bool:
        """Whether rows of the same id belong to the episode of those before them."""
        if run.file == before.file:
            return True
        if self._terminated is not None and _last(before, self._terminated) > 0:
            return False
        if any(_first(run, name) <= _last(before, name) for name in self._counters):
            return False
        if not self._counters:
            self._note(
                f"No column counts the steps. So rows of the same {self._column!r} at the end of "
                "a file and the beginning of the next are taken for one episode, first at "
                f"{run.place(0)}."
            )
        return True

    def _note(self, sentence: str) -> None:
        beginning = sentence.partition(".")[0]
        if not any(note.startswith(beginning) for note in self._notes):
            self._notes.append(sentence)

    def _end(self, episode: Any, last: TableSlice, following: TableSlice) -> None:
        counts = {name: _last(last, name) for name in self._counters}
        for name, count in counts.items():
            if _first(following, name) <= count:
                self._restarting.add(name)
        self._ended[episode] = _Ended(last, counts)

    def _check_comes_back(self, episode: Any, run: TableSlice) -> None:
        """Refuse an episode that goes on after others came between."""
        before = self._ended.get(episode)
        if before is None:
            return
        if run.file != before.rows.file:
            goes_on = [_first(run, name) > before.counts[name] for name in self._restarting]
            if not goes_on or not all(goes_on):
                return  # this file numbers its episodes anew
        order = " and ".join(repr(name) for name in (self._column, *self._counters[:1]))
        raise GeneralistError(
            f"The rows of episode {episode} do not stand together: they end in {before.place} "
            f"and go on in {run.place(0)}. Sort the rows by {order}."
        )


def _first(rows: TableSlice, name: str) -> float:
    return _number(rows.table.column(name).slice(0, 1))


def _last(rows: TableSlice, name: str) -> float:
    return _number(rows.table.column(name).slice(len(rows) - 1))


def _number(values: Any) -> float:
    """The one value, NaN where there is none: then nothing follows from it."""
    counts = counts_of(values).astype(float)
    return float(counts[0]) if len(counts) else float("nan")
