"""Rows of a table as recordings: a row an episode, or a row a step with a column that counts them.

Legend: T = steps of a recording.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from generalist.errors import GeneralistError, UsageError
from generalist.importing.arrow import is_list, to_text, to_tree
from generalist.importing.source import Load, Recording

# Names that published datasets use, the JAT dataset's first.
_KNOWN: dict[str, tuple[str, ...]] = {
    "observation": (
        "continuous_observations", "discrete_observations", "image_observations",
        "observations", "observation", "obs", "states", "state",
    ),
    "action": ("continuous_actions", "discrete_actions", "actions", "action"),
    "reward": ("rewards", "reward"),
    "episode": ("episode_index", "episode_id", "episode"),
    "terminated": ("terminations", "terminated", "terminals", "dones", "done"),
    "instruction": ("text_observations", "instruction"),
}  # fmt: skip
_SIDE_BY_SIDE = ("continuous_", "discrete_", "image_")  # JAT's, of which one task may have several
_NEEDED = ("observation", "action")
NO_REWARDS = "There is no column of rewards, so all are 0 in the shards."


@dataclass(frozen=True)
class Columns:
    """Which columns hold what; what is empty is looked for under the names that are usual.

    observation, action: one column, or several that together make a Dict.
    episode: numbers the episodes where a row is a step.
    instruction: words that stay the same throughout an episode.
    """

    observation: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    reward: str | None = None
    episode: str | None = None
    terminated: str | None = None
    instruction: str | None = None

    def found_in(self, names: list[str]) -> Columns:
        """With the empty ones filled in; UsageError that says what there is and what is needed."""
        found: dict[str, Any] = {}
        for role, known in _KNOWN.items():
            given = getattr(self, role)
            for name in (given,) if isinstance(given, str) else given or ():
                if name not in names:
                    raise UsageError(
                        f"there is no column {name!r} for the {role}; there are {', '.join(names)}."
                    )
            if given:
                found[role] = given
                continue
            there = tuple(name for name in known if name in names)
            if role in _NEEDED:
                several = tuple(name for name in there if name.startswith(_SIDE_BY_SIDE))
                found[role] = several or there[:1]
                if not there:
                    raise UsageError(
                        f"no column is known to be the {role}; there are {', '.join(names)}. "
                        f"Say which with --{role} NAME."
                    )
            else:
                found[role] = there[0] if there else None
        return Columns(**found)

    @property
    def names(self) -> list[str]:
        """All columns that are read."""
        single = (self.reward, self.episode, self.terminated, self.instruction)
        return list(dict.fromkeys([*self.observation, *self.action, *(n for n in single if n)]))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass
class Rows:
    """Recordings from the batches of a table, whose schema is known."""

    columns: Columns
    schema: Any  # pyarrow.Schema

    def __post_init__(self) -> None:
        self.columns = columns = self.columns.found_in(self.schema.names)
        # Where a row is an episode, even its rewards are a list.
        sample = columns.reward or columns.action[0]
        self.row_is_episode = is_list(self.schema.field(sample).type) and (
            columns.reward is not None or columns.episode is None
        )
        if not self.row_is_episode and columns.episode is None:
            raise UsageError(
                "a row is a single step here, and no column is known to number the episodes; "
                f"there are {', '.join(self.schema.names)}. Say which with --episode-column NAME."
            )

    def recordings(self, batches: Iterable[Any]) -> Iterator[Load]:
        """A function each that makes a recording of the rows of its episode."""
        for table in _episodes(batches, None if self.row_is_episode else self.columns.episode):
            yield functools.partial(self.recording, table)

    def recording(self, table: Any) -> Recording:
        """The recording of the rows of one episode."""
        columns = self.columns
        steps = len(self._steps(table, columns.action[0]))
        if not steps:
            raise GeneralistError("it has no steps.")
        rewards = np.zeros(steps, np.float32)
        if columns.reward is not None:
            rewards = np.asarray(to_tree(self._steps(table, columns.reward), columns.reward))
            rewards = rewards.reshape(len(rewards))  # of shape (T, 1) in LeRobot's files
        terminated = False
        if columns.terminated is not None:
            flags = to_tree(self._steps(table, columns.terminated), columns.terminated)
            terminated = bool(np.ravel(flags)[-1])
        instruction = None
        if columns.instruction is not None:
            instruction = to_text(self._steps(table, columns.instruction), columns.instruction)
        return Recording(
            observations=self._trees(table, columns.observation),
            actions=self._trees(table, columns.action),
            rewards=rewards,
            terminated=terminated,
            truncated=not terminated,
            instruction=instruction,
        )

    def _trees(self, table: Any, names: tuple[str, ...]) -> Any:
        """One column as it is, several as a dict."""
        trees = {name: to_tree(self._steps(table, name), name) for name in names}
        return trees[names[0]] if len(names) == 1 else trees

    def _steps(self, table: Any, name: str) -> Any:
        """The values of a column step by step: all its rows, or what its one row lists."""
        values = table.column(name).combine_chunks()
        if not self.row_is_episode:
            return values
        if is_list(values.type):
            if values.null_count:
                raise GeneralistError(f"{name} has no value.")
            storage = values.storage if hasattr(values, "storage") else values
            return storage.flatten()
        return values  # one value for the whole episode, such as an instruction


def _episodes(batches: Iterable[Any], column: str | None) -> Iterator[Any]:
    """Tables of one episode each: a row, or the rows in a run that have the same value there."""
    if column is None:
        for batch in batches:
            for row in range(batch.num_rows):
                yield batch.slice(row, 1)
        return
    for _, table in runs(batches, column):
        yield table


def runs(batches: Iterable[Any], column: str) -> Iterator[tuple[Any, Any]]:
    """(value, rows) of each run of rows with the same value; one that comes back is an error."""
    import pyarrow as pa

    done: set[Any] = set()
    pending: list[Any] = []
    current: Any = None
    for batch in batches:
        values = batch.column(column).to_numpy()
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
        for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
            value = values[start].item()
            if pending and value != current:
                yield current, pa.concat_tables(pending)
                done.add(current)
                pending = []
            if value in done:
                raise GeneralistError(
                    f"the rows of episode {value} do not stand together: sort them by {column!r}."
                )
            current = value
            pending.append(batch.slice(start, stop - start))
    if pending:
        yield current, pa.concat_tables(pending)
