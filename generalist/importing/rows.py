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
from generalist.importing.arrow import is_list, is_number, plain_array, to_text, to_tree
from generalist.importing.episodes import EpisodeCutter, counters_in, counts_of, first_fall
from generalist.importing.source import Load, Recording
from generalist.importing.tables import EpisodeRows, TableSlice

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


@dataclass(frozen=True, kw_only=True)
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


class Rows:
    """Recordings from the slices of a table, whose schema is known.

    row_is_episode: whether a row holds a whole episode; None where the columns are to tell: an
        episode column that is asked for, or the types.
    notes: where is said what had to be guessed.
    """

    def __init__(
        self,
        columns: Columns,
        schema: Any,  # pyarrow.Schema
        *,
        row_is_episode: bool | None = None,
        notes: list[str] | None = None,
    ) -> None:
        told = columns.episode is not None
        self.columns = columns = columns.found_in(schema.names)
        self._notes = [] if notes is None else notes
        if row_is_episode is None:
            row_is_episode = not told and _row_is_episode(columns, schema)
        self.row_is_episode = row_is_episode
        if not row_is_episode and columns.episode is None:
            raise UsageError(
                "a row is a single step here, and no column is known to number the episodes; "
                f"there are {', '.join(schema.names)}. Say which with --episode-column NAME."
            )
        counters = counters_in(schema, columns.names)
        if row_is_episode:  # one number for all steps counts none
            counters = tuple(name for name in counters if is_list(schema.field(name).type))
        self._counters = counters
        ends = columns.terminated
        self._ends = ends if ends and is_number(schema.field(ends).type) else None
        self.names = [*columns.names, *counters]

    def recordings(self, slices: Iterable[TableSlice]) -> Iterator[Load]:
        """Yield what reads each episode, in order.

        Raises GeneralistError that names file and row, where rows do not say their episode or
        those of an episode do not stand together.
        """
        for rows in self._episodes(slices):
            yield Load(functools.partial(self.recording, rows), rows.where)

    def _episodes(self, slices: Iterable[TableSlice]) -> Iterator[EpisodeRows]:
        if not self.row_is_episode:
            for _, rows in self.cutter().episodes(slices):
                yield rows
            return
        for found in slices:
            for row in range(len(found)):
                yield EpisodeRows((found.part(row, row + 1),))

    def cutter(self) -> EpisodeCutter:
        """Make what cuts rows that are steps into episodes."""
        assert self.columns.episode is not None
        return EpisodeCutter(
            self.columns.episode,
            counters=self._counters,
            terminated=self._ends,
            notes=self._notes,
        )

    def recording(self, rows: EpisodeRows) -> Recording:
        """Read an episode.

        Raises GeneralistError for columns of different lengths, values that are missing or cannot
        be kept, and counters that do not rise.
        """
        columns = self.columns
        steps = len(self._steps(rows, columns.action[0]))
        if not steps:
            raise GeneralistError("it has no steps.")
        self._check_order(rows)
        rewards = np.zeros(steps, np.float32)
        if columns.reward is not None:
            rewards = self._numbers(rows, columns.reward, steps)
        terminated = False
        if columns.terminated is not None:
            flags = self._steps(rows, columns.terminated)
            terminated = bool(self._numbers(rows, columns.terminated, len(flags))[-1:].any())
        instruction = None
        if columns.instruction is not None:
            instruction = to_text(self._steps(rows, columns.instruction), columns.instruction)
        return Recording(
            observations=self._trees(rows, columns.observation),
            actions=self._trees(rows, columns.action),
            rewards=rewards,
            terminated=terminated,
            truncated=not terminated,
            instruction=instruction,
        )

    def _trees(self, rows: EpisodeRows, names: tuple[str, ...]) -> Any:
        """One column as it is, several as a dict."""
        trees = {name: to_tree(self._steps(rows, name), name) for name in names}
        return trees[names[0]] if len(names) == 1 else trees

    def _numbers(self, rows: EpisodeRows, name: str, steps: int) -> np.ndarray:
        """(T,) one number a step, which LeRobot's files hold as (T, 1)."""
        tree = to_tree(self._steps(rows, name), name)
        values = np.asarray(tree) if not isinstance(tree, dict) else np.empty(0)
        if values.size != steps:
            raise GeneralistError(
                f"{name} holds values of shape {values.shape}, where {steps} steps need one "
                "number each."
            )
        return values.reshape(steps)

    def _check_order(self, rows: EpisodeRows) -> None:
        for name in self._counters:
            counts = counts_of(self._steps(rows, name))
            step = first_fall(name, counts)
            if step is None:
                continue
            place = rows.place(0 if self.row_is_episode else step)
            said = f"{counts[step - 1]:g}, {counts[step]:g}" if step else f"{counts[step]:g}"
            raise GeneralistError(
                f"{name} does not rise at step {step}, {place}: it is {said} there. Sort the "
                "rows, or take the column out if it does not count steps."
            )

    def _steps(self, rows: EpisodeRows, name: str) -> Any:
        """The values of a column step by step: all its rows, or what its one row lists."""
        values = plain_array(rows.table.column(name))
        if not self.row_is_episode:
            return values
        if is_list(values.type):
            if values.null_count:
                raise GeneralistError(f"{name} has no value.")
            return values.flatten()
        return values  # one value for the whole episode, such as an instruction


def _row_is_episode(columns: Columns, schema: Any) -> bool:
    """Whether a row holds a whole episode: then both its actions and its rewards are lists."""
    import pyarrow as pa

    kinds = [schema.field(name).type for name in (columns.action[0], columns.reward) if name]
    if not all(map(is_list, kinds)):
        return False
    if columns.episode is None:
        return True
    # A list of always one reward is a feature of shape [1].
    always_one = pa.types.is_fixed_size_list(kinds[-1]) and kinds[-1].list_size == 1
    return columns.reward is not None and not always_one
