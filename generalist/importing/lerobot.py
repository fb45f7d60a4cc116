"""LeRobot datasets of version 3: meta/info.json, meta/episodes/ and data/ in parquet files.

The layout as published: data files hold many episodes each, a row a step; meta/episodes says which
file an episode is in, and its rows there are those with its `episode_index`.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from generalist.errors import GeneralistError, UsageError
from generalist.importing.arrow import is_list
from generalist.importing.files import check_it_is_there, files_below
from generalist.importing.parquet import parquet_file, read_slices
from generalist.importing.rows import NO_REWARDS, Columns, Rows
from generalist.importing.source import Environment, Load, Recording
from generalist.importing.spaces import leaf_space
from generalist.importing.tables import EpisodeRows
from generalist.shards.files import read_json

if TYPE_CHECKING:
    from gymnasium.spaces import Space

_VERSION = "v3"
_ROWS = 4096  # read at once
_WORDS = ("string", "language")
_OBSERVATION, _ACTION = "observation.", "action"


class LeRobotSource:
    """Episodes of a LeRobot folder; its task in words becomes the instruction.

    All `observation.*` features that are no videos are observed, unless `columns` says which.
    """

    is_text = False
    environment: Environment | None = None

    def __init__(self, folder: str | Path, columns: Columns | None = None) -> None:
        self.folder = Path(folder).expanduser()
        self.name = str(folder)
        path = self.folder / "meta" / "info.json"
        if not path.is_file():
            raise UsageError(f"{folder} is not a LeRobot dataset: it has no meta/info.json.")
        check_it_is_there(path)
        info = read_json(path)
        version = str(info.get("codebase_version")) if isinstance(info, dict) else "unknown"
        if not version.startswith(_VERSION):
            raise GeneralistError(
                f"{folder} is of LeRobot's version {version}; {_VERSION} is read. LeRobot itself "
                "converts older ones."
            )
        self._features: dict[str, dict[str, Any]] = _features(path, info)
        self._data_path: str = info["data_path"]
        self.notes: list[str] = []
        self._columns = self._chosen(columns or Columns())
        if self._columns.reward is None:
            self.notes.append(NO_REWARDS)
        self.total: int | None = len(self._episodes)
        self.facts = {"from": "lerobot", "dataset": self.folder.resolve().name,
                      "columns": self._columns.to_dict()}  # fmt: skip

    def _chosen(self, columns: Columns) -> Columns:
        """Columns with the usual features filled in; what cannot be read is left out and noted."""
        kinds = {name: _unreadable(each["dtype"]) for name, each in self._features.items()}
        for name in (*columns.observation, *columns.action):
            if kind := kinds.get(name):
                raise UsageError(
                    f"{name} is {kind}, which is not imported; choose other columns, or export "
                    "the dataset with images or numbers."
                )
        readable = [name for name, kind in kinds.items() if not kind]
        seen = tuple(name for name in readable if name.startswith(_OBSERVATION))
        for kind in sorted({kind for kind in kinds.values() if kind}):
            names = sorted(n for n in kinds if kinds[n] == kind and n.startswith(_OBSERVATION))
            if names and not columns.observation:
                self.notes.append(f"What is {kind} is left out: {', '.join(names)}.")
        if not columns.observation and not seen:
            raise GeneralistError(
                f"{self.folder} has no {_OBSERVATION}* feature of images or numbers; "
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
        words = columns.instruction
        return chosen.found_in([*readable, *([words] if words in self._features else [])])

    def _if_there(self, name: str) -> str | None:
        return name if name in self._features else None

    @functools.cached_property
    def _episodes(self) -> list[dict[str, Any]]:
        """For each episode its number, file, length and task, in order."""
        import pyarrow.parquet as pq

        columns = ["episode_index", "data/chunk_index", "data/file_index", "length", "tasks"]
        found: dict[int, dict[str, Any]] = {}
        for path in files_below(self.folder / "meta" / "episodes", "*.parquet"):
            with parquet_file(path) as file:
                there = set(file.schema_arrow.names)
            if missing := sorted(set(columns[:4]) - there):
                raise GeneralistError(f"{path} has no column {missing[0]!r}.")
            wanted = [name for name in columns if name in there]
            for row, each in enumerate(pq.read_table(path, columns=wanted).to_pylist()):
                number = each["episode_index"]
                if any(each[name] is None for name in columns[:4]) or number in found:
                    raise GeneralistError(
                        f"Row {row} of {path} is of episode {number}, which stands there twice or "
                        "does not say its file and length."
                    )
                found[number] = each
        if not found:
            raise GeneralistError(f"{self.folder} has no meta/episodes/*/*.parquet with episodes.")
        return [found[number] for number in sorted(found)]

    def spaces(self) -> tuple[Space, Space] | None:
        """Dtypes and shapes of meta/info.json within the extremes of meta/stats.json.

        None where the statistics do not cover all of them.
        """
        path = self.folder / "meta" / "stats.json"
        stats = read_json(path) if path.is_file() else {}
        names = {*self._columns.observation, *self._columns.action}
        pictures = {name for name in names if self._features[name]["dtype"] == "image"}
        if pictures or not isinstance(stats, dict) or not names <= stats.keys():
            return None  # pictures may be stored in other shapes than the features say
        with parquet_file(self._file_of(self._episodes[0])) as file:
            schema = file.schema_arrow
        return (
            self._space(self._columns.observation, schema, stats),
            self._space(self._columns.action, schema, stats),
        )

    def _space(self, names: tuple[str, ...], schema: Any, stats: dict[str, Any]) -> Space:
        parts = {name: self._leaf(name, schema, stats[name]) for name in names}
        return parts[names[0]] if len(names) == 1 else spaces.Dict(parts)

    def _leaf(self, name: str, schema: Any, stats: dict[str, Any]) -> Space:
        feature = self._features[name]
        shape = tuple(feature["shape"])
        dtype = np.dtype(feature["dtype"])
        try:
            low, high = (np.array(stats[key], np.float64).reshape(shape) for key in ("min", "max"))
        except (KeyError, TypeError, ValueError) as error:
            raise GeneralistError(
                f"{self.folder}/meta/stats.json has no least and greatest value of shape {shape} "
                f"for {name}: {error}."
            ) from error
        if shape == (1,) and name in schema.names and not is_list(schema.field(name).type):
            shape, low, high = (), low[0], high[0]  # as such features are stored
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
        try:
            path = Path(self._data_path.format(chunk_index=chunk, file_index=file))
        except (AttributeError, LookupError, TypeError, ValueError):
            path = Path("..")
        if path.is_absolute() or ".." in path.parts:
            raise GeneralistError(
                f"{self.folder}/meta/info.json has the data_path {self._data_path!r}, which names "
                "no file of the dataset."
            )
        return self.folder / path

    def _recordings_in(self, path: Path, wanted: list[dict[str, Any]]) -> Iterator[Load]:
        """Whatever is wrong with the file, each of its episodes gets its turn."""
        waiting = deque(wanted)
        numbers = {each["episode_index"] for each in wanted}
        reason = f"{path} has no rows of it in their place, though meta/episodes says so."
        try:
            with parquet_file(path) as file:
                rows = Rows(self._columns, file.schema_arrow, row_is_episode=False)
            slices = read_slices(path, rows.names, rows=_ROWS)
            for number, found in rows.cutter().episodes(slices):
                if number not in numbers:
                    continue
                numbers.remove(number)
                while waiting[0]["episode_index"] != number:
                    absent = waiting.popleft()
                    numbers.remove(absent["episode_index"])
                    yield Load.failing(reason, self._where(path, absent))
                read = functools.partial(self._recording, rows, found, waiting.popleft())
                yield Load(read, found.where)
        except GeneralistError as error:
            reason = str(error)
        for facts in waiting:
            yield Load.failing(reason, self._where(path, facts))

    def _where(self, path: Path, facts: dict[str, Any]) -> str:
        return f"episode_index {facts['episode_index']} of {path}"

    def _recording(self, rows: Rows, found: EpisodeRows, facts: dict[str, Any]) -> Recording:
        steps = len(found.table)
        if steps != facts["length"]:
            raise GeneralistError(
                f"it has {steps} rows, where meta/episodes says {facts['length']}."
            )
        recording = rows.recording(found)
        tasks = facts.get("tasks") or []
        if recording.instruction is None and tasks:
            recording.instruction = "; ".join(tasks)
        return recording


def _unreadable(dtype: str) -> str | None:
    """What a feature is that cannot be read; None for numbers and images."""
    if dtype == "video":
        return "a video"
    if dtype == "image":
        return None
    try:
        return None if np.dtype(dtype).kind in "biuf" else "no number"
    except TypeError:
        return "text" if dtype in _WORDS else f"of type {dtype}"


def _features(path: Path, info: Any) -> dict[str, dict[str, Any]]:
    """The features of meta/info.json; GeneralistError where something of them is missing."""
    features = info.get("features")
    whole = isinstance(features, dict) and all(
        isinstance(each, dict) and {"dtype", "shape"} <= each.keys() for each in features.values()
    )
    if not whole or not isinstance(info.get("data_path"), str):
        raise GeneralistError(
            f"{path} is incomplete: expected features, each with dtype and shape, and data_path."
        )
    return features
