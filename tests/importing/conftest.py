"""What the importers' tests share: a processor on disk, and comparing shards with what went in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generalist.episode import Episode, tree_get
from generalist.shards.reader import TaskData
from generalist.tokenization.continuous import ContinuousCodec
from generalist.tokenization.processor import GeneralistProcessor


@pytest.fixture(scope="session")
def processor(without_frames: GeneralistProcessor, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("processor")
    without_frames.save_pretrained(folder)
    return str(folder)


def steps_table(episodes: Any, *, start: int = 0, **columns: Any) -> pa.Table:
    """A row a step: observed is the number of the row, counted from `start`."""
    steps = len(episodes)
    return pa.table({
        "observation": [[float(start + row)] for row in range(steps)],
        "action": [row % 2 for row in range(steps)],
        "reward": [0.0] * steps,
        "episode": episodes,
        **columns,
    })  # fmt: skip


def write_parts(folder: Path, tables: list[pa.Table]) -> Path:
    """Write part-0.parquet, part-1.parquet, ... into a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, table in enumerate(tables):
        pq.write_table(table, folder / f"part-{part}.parquet")
    return folder


def assert_same(folder: Path, processor: str, recorded: list[Episode]) -> TaskData:
    """Shards decode to the recorded arrays: integers exactly, floats to the centre of their bin."""
    loaded = GeneralistProcessor.from_pretrained(processor)
    data = TaskData(folder, loaded)
    assert [record["episode"] for record in data.records] == list(range(len(recorded)))
    for number, episode in enumerate(recorded):
        back = loaded.decode(data.tokens(number), data.layout)
        assert back.steps == episode.steps
        np.testing.assert_array_equal(data.rewards(number), episode.rewards)
        for field in data.layout.fields:
            tree, there = (
                (episode.observations, back.observations)
                if field.role == "observation"
                else (episode.actions, back.actions)
            )
            wanted, got = tree_get(tree, field.path), tree_get(there, field.path)
            if isinstance(field.codec, ContinuousCodec):
                assert np.all(np.abs(got - wanted) <= to_the_edge(field.codec, wanted))
            else:
                np.testing.assert_array_equal(got, wanted)
    return data


def to_the_edge(codec: ContinuousCodec, values: np.ndarray) -> np.ndarray:
    """How far the bin of each of (T, *shape) values reaches from its centre, and what rounds."""
    toolbox: Any = None  # bins need neither text nor frames
    codes = codec.encode(values, toolbox).astype(float)
    low, centre, high = (codec.decode(codes + side, toolbox) for side in (-0.5, 0.0, 0.5))
    return np.maximum(high - centre, centre - low) + 1e-5 * (1 + np.abs(values))
