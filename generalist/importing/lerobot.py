"""LeRobot datasets of version 3: meta/info.json, meta/episodes/ and data/ in parquet files.

The layout as published: data files hold many episodes each, a row a step; meta/episodes says which
file an episode is in, and its rows there are those with its `episode_index`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from generalist.errors import GeneralistError, UsageError
from generalist.importing.rows import NO_REWARDS, Columns, Rows, runs
from generalist.importing.source import Load, Recording
from generalist.importing.spaces import leaf_space
from generalist.shards.files import read_json

if TYPE_CHECKING:
    from gymnasium.spaces import Space

_VERSION = "v3"
_ROWS = 4096  # read at once
_OBSERVATION, _ACTION = "observation.", "action"


class LeRobotSource:
    """Episodes of a LeRobot folder; its task in words becomes the instruction.

    All `observation.*` features that are no videos are observed, unless `columns` says which.
    """

    is_text = False

    def __init__(self, folder: str | Path, columns: Columns | None = None) -> None:
        self.folder = Path(folder)
        self.name = str(folder)
        if not (self.folder / "meta" / "info.json").is_file():
            raise UsageError(f"{folder} is not a LeRobot dataset: it has no meta/info.json.")
        info = read_json(self.folder / "meta" / "info.json")
        version = str(info.get("codebase_version"))
        if not version.startswith(_VERSION):
            raise GeneralistError(
                f"{folder} is of LeRobot's version {version}; {_VERSION} is read. LeRobot itself "
                "converts older ones."
            )
        self._features: dict[str, Any] = info["features"]
        self._data_path: str = info["data_path"]
        self.notes: list[str] = []
        self._columns = self._chosen(columns or Columns())
        if self._columns.reward is None:
            self.notes.append(NO_REWARDS)
        self.total: int | None = len(self._episodes)
        self.facts = {"from": "lerobot", "dataset": self.folder.resolve().name,
                      "columns": self._columns.to_dict()}  # fmt: skip

    def _chosen(self, columns: Columns) -> Columns:
        """Columns with the usual features filled in; videos are left out and noted."""
        videos = {name for name, each in self._features.items() if each["dtype"] == "video"}
        for name in (*columns.observation, *columns.action):
            if name in videos:
                raise UsageError(
                    f"{name} is a video, and videos are not decoded; choose other columns, "
                    "or export the dataset with images."
                )
        seen = tuple(n for n in self._features if n.startswith(_OBSERVATION) and n not in videos)
        left_out = sorted(name for name in videos if not columns.observation)
        if left_out:
            self.notes.append(f"Videos are not decoded, so left out: {', '.join(left_out)}.")
        if not columns.observation and not seen:
            raise GeneralistError(
                f"{self.folder} has no {_OBSERVATION}* feature that is not a video; "
                f"there are {', '.join(self._features)}."
            )
        chosen = Columns(
            observation=columns.observation or seen,
            action=columns.action or (_ACTION,),
            reward=columns.reward or self._if_there("next.reward"),
            episode="episode_index",
            terminated=columns.terminated or self._if_there("next.done"),
            instruction=columns.instruction,
        )
        return chosen.found_in([name for name in self._features if name not in videos])

    def _if_there(self, name: str) -> str | None:
        return name if name in self._features else None

    @functools.cached_property
    def _episodes(self) -> list[dict[str, Any]]:
        """For each episode its number, file and task, in order."""
        import pyarrow.parquet as pq

        files = sorted((self.folder / "meta" / "episodes").rglob("*.parquet"))
        columns = ["episode_index", "data/chunk_index", "data/file_index", "length", "tasks"]
        found: list[dict[str, Any]] = []
        for file in files:
            there = set(pq.read_schema(file).names)
            if missing := sorted(set(columns[:4]) - there):
                raise GeneralistError(f"{file} has no column {missing[0]!r}.")
            wanted = [name for name in columns if name in there]
            found += pq.read_table(file, columns=wanted).to_pylist()
        if not found:
            raise GeneralistError(f"{self.folder} has no meta/episodes/*/*.parquet with episodes.")
        return sorted(found, key=lambda each: each["episode_index"])

    def spaces(self) -> tuple[Space, Space] | None:
        """Dtypes and shapes of meta/info.json within the extremes of meta/stats.json.

        None where the statistics do not cover all of them.
        """
        path = self.folder / "meta" / "stats.json"
        stats = read_json(path) if path.is_file() else {}
        names = {*self._columns.observation, *self._columns.action}
        pictures = {name for name in names if self._features[name]["dtype"] == "image"}
        if pictures or not names <= stats.keys():
            return None  # pictures may be stored in other shapes than the features say
        return (
            self._space(self._columns.observation, stats),
            self._space(self._columns.action, stats),
        )

    def _space(self, names: tuple[str, ...], stats: dict[str, Any]) -> Space:
        parts = {name: self._leaf(name, stats[name]) for name in names}
        return parts[names[0]] if len(names) == 1 else spaces.Dict(parts)

    def _leaf(self, name: str, stats: dict[str, Any]) -> Space:
        feature = self._features[name]
        shape = tuple(feature["shape"])
        dtype = np.dtype(feature["dtype"])
        low, high = (np.array(stats[key], np.float64).reshape(shape) for key in ("min", "max"))
        if np.issubdtype(dtype, np.floating):
            # An element that never changes has no range; the mu-law does for it.
            known = low < high
            low, high = np.where(known, low, -np.inf), np.where(known, high, np.inf)
        return leaf_space(shape, dtype, low, high)

    def recordings(self, first: int) -> Iterator[Load]:
        """From number `first` on, file by file."""
        wanted = self._episodes[first:]
        for path, episodes in itertools.groupby(wanted, key=self._file_of):
            yield from self._recordings_in(path, list(episodes))

    def _file_of(self, episode: dict[str, Any]) -> Path:
        chunk, file = episode["data/chunk_index"], episode["data/file_index"]
        return self.folder / self._data_path.format(chunk_index=chunk, file_index=file)

    def _recordings_in(self, path: Path, wanted: list[dict[str, Any]]) -> Iterator[Load]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        remaining = {each["episode_index"]: each for each in wanted}
        try:
            file = pq.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise GeneralistError(f"{path} cannot be read: {error}.") from error
        with file:
            rows = Rows(self._columns, file.schema_arrow)
            batches = file.iter_batches(_ROWS, columns=rows.columns.names)
            tables = (pa.Table.from_batches([batch]) for batch in batches)
            for number, table in runs(tables, "episode_index"):
                if number in remaining:
                    yield functools.partial(self._recording, rows, table, remaining.pop(number))
        if remaining:
            raise GeneralistError(
                f"{path} has no rows of episode {min(remaining)}, though meta/episodes says so."
            )

    def _recording(self, rows: Rows, table: Any, facts: dict[str, Any]) -> Recording:
        if table.num_rows != facts["length"]:
            raise GeneralistError(
                f"it has {table.num_rows} rows, where meta/episodes says {facts['length']}."
            )
        recording = rows.recording(table)
        tasks = facts.get("tasks") or []
        if recording.instruction is None and tasks:
            recording.instruction = "; ".join(tasks)
        return recording
