"""Soft labels are stored beside labels, checked like all else, and change no other shard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.shards.manifest import Manifest
from generalist.shards.reader import TaskData
from generalist.shards.remote import INDEX
from generalist.shards.sample import DamagedShard
from generalist.shards.shards import EncodedEpisode, ShardWriter
from generalist.shards.soft_labels import soft_label_rows
from generalist.shards.validate import validate
from generalist.tokenization.layout import Layout
from generalist.windows.inspect import describe
from tests.dataset_folders import (
    VOCABULARY,
    control_layout,
    grid_layout,
    make_episode,
    make_header,
    write_task,
)

TASK = "board/Made"
LAYOUT = grid_layout()
FIRST, STOP = LAYOUT.legal[0]
SMALL = {"block_tokens": 1_500, "shard_tokens": 3_000}


def visits_of(seed: int, steps: int) -> np.ndarray:
    """(steps, actions) counts, with zeros; every third step has none."""
    visits = np.random.default_rng(seed).integers(0, 5, (steps, STOP - FIRST)).astype(np.uint16)
    visits[:, 0] += 1
    visits[::3] = 0
    return visits


def episode_of(
    seed: int, steps: int, visits: np.ndarray | None, layout: Layout = LAYOUT
) -> EncodedEpisode:
    found = make_episode(layout, steps, seed, labelled=True)
    if visits is not None:
        ids = np.broadcast_to(FIRST + np.arange(visits.shape[1]), visits.shape)
        found.soft_labels = soft_label_rows(ids, visits, VOCABULARY)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Episodes in several blocks and shards; every fourth has no soft labels."""
    folder = tmp_path / TASK
    with ShardWriter(folder, make_header(TASK, LAYOUT), **SMALL) as writer:
        for seed in range(16):
            steps = 5 + seed
            writer.add(episode_of(seed, steps, visits_of(seed, steps) if seed % 4 else None))
    assert len(Manifest.read(folder).shards) > 1
    return folder


def test_distributions_come_back_as_they_were_given(folder: Path) -> None:
    for _ in range(2):  # without an index, and with it
        data = TaskData(folder)
        steps_with = 0
        for number in range(len(data)):
            row = data.row(number)
            soft = data.sample(row.sample).soft_labels
            visits = visits_of(number, row.steps) * bool(number % 4)
            dense = np.zeros(visits.shape)
            if soft is not None:
                step, ids, mass = soft.of(row.first_step, row.steps)
                dense[step, ids - FIRST] = mass
            total = visits.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(dense, visits / np.maximum(total, 1), rtol=1e-6)
            steps_with += int((total > 0).sum())
            assert data.record(number).get("soft_labels", 0) == (total > 0).sum()
    assert Manifest.read(folder).counts()["soft_labels"] == steps_with
    assert describe(folder)[0].soft_labels == steps_with / data.steps
    report = validate(folder)
    assert report.ok, report.problems


def test_anybody_reads_them_without_this_package(folder: Path) -> None:
    import io

    import webdataset

    shard = str(folder / "shard-00000.tar")
    sample = next(iter(webdataset.WebDataset(shard, shardshuffle=False)))
    rows = np.load(io.BytesIO(sample["soft_labels.npy"]), allow_pickle=False)
    assert rows.dtype.names == ("step", "id", "weight")
    first = json.loads(sample["episodes.json"])[0]["steps"]  # the first episode has none
    assert rows["step"][0] == first + 1 and rows["weight"].max() > 1


def test_shards_without_any_stay_as_they_were(tmp_path: Path) -> None:
    """An older reader knows neither the key in the manifest nor the format of the index."""
    folder = write_task(tmp_path, TASK, LAYOUT, [5, 6], True)
    with ShardWriter(folder, make_header(TASK, LAYOUT)) as writer:
        writer.add(make_episode(LAYOUT, 4, 9))
    data = TaskData(folder)
    assert data.sample(0).soft_labels is None
    shards = json.loads((folder / "manifest.json").read_text())["shards"]
    assert not any("soft_labels" in shard for shard in shards)
    assert "soft" not in (folder / "README.md").read_text()
    assert b'"format": 1, "manifest"' in (folder / INDEX).read_bytes()
    with ShardWriter(folder, make_header(TASK, LAYOUT)) as writer:  # and take some later
        writer.add(episode_of(3, 9, visits_of(3, 9)))
    data = TaskData(folder)
    assert data.sample(0).soft_labels is None and data.sample(2).soft_labels is not None
    assert b'"format": 2, "manifest"' in (folder / INDEX).read_bytes()
    assert validate(folder).ok


def test_every_damaged_byte_is_an_error(folder: Path) -> None:
    entry = Manifest.read(folder).shards[0]
    member = next(m for m in entry.members if m.name.endswith("soft_labels.npy"))
    path = folder / entry.name
    whole = path.read_bytes()
    for at in (*range(0, 128, 7), member.size - 1):
        damaged = bytearray(whole)
        damaged[member.offset + at] ^= 4
        path.write_bytes(damaged)
        assert not validate(folder).ok, at
        with pytest.raises(DamagedShard, match="soft_labels.npy"):
            assert TaskData(folder).sample(0).soft_labels
    path.write_bytes(whole)
    assert validate(folder).ok


def with_change(column: str, value: float) -> EncodedEpisode:
    episode = episode_of(1, 9, visits_of(1, 9))
    assert episode.soft_labels is not None
    episode.soft_labels[column][2] = value
    return episode


@pytest.mark.parametrize(
    ("episode", "problem"),
    [
        (with_change("weight", -1), "weighs nothing"),
        (with_change("weight", np.nan), "weighs nothing"),
        (with_change("step", 8), "not sorted"),
        (with_change("id", 7), "not sorted"),
        (episode_of(1, 8, visits_of(1, 9)), "beyond the 8 steps"),
    ],
)
def test_what_is_no_distribution_over_actions_is_refused(
    tmp_path: Path, episode: EncodedEpisode, problem: str
) -> None:
    with ShardWriter(tmp_path, make_header(TASK, LAYOUT)) as writer:
        with pytest.raises(GeneralistError, match=f"episode of seed 1: .*{problem}"):
            writer.add(episode)


def test_actions_that_are_no_choice_of_one_token_have_none(tmp_path: Path) -> None:
    for actions, problem in ((2, "only actions of one token"), (1, "bin of a number")):
        layout = control_layout(3, actions)
        episode = make_episode(layout, 9, 1)
        episode.soft_labels = episode_of(1, 9, visits_of(1, 9)).soft_labels
        with ShardWriter(tmp_path / str(actions), make_header(TASK, layout)) as writer:
            with pytest.raises(GeneralistError, match=problem):
                writer.add(episode)
