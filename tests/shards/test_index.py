"""The index: the same episodes as the shards hold, made once, never believed when it is stale."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest

from generalist.shards import index, reader
from generalist.shards.index import INDEX
from generalist.shards.manifest import Manifest
from generalist.shards.reader import DamagedShard, TaskData
from generalist.shards.shards import append_episodes
from tests.dataset_folders import control_layout, make_episode, write_task
from tests.shards.test_reader import flipped_bit, flipped_bit_in_the_records, overwrite

LAYOUT = control_layout()
INSTRUCTIONS = ("to the left", None, "über die Straße")


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Episodes of several lengths, with and without instructions, in blocks of about three."""
    lengths = [5 + 3 * i for i in range(14)]
    sizes = {"block_tokens": 200, "shard_tokens": 500}
    return write_task(tmp_path, "gym/Toy-v0", LAYOUT, lengths, True, INSTRUCTIONS, **sizes)


def stored_records(folder: Path) -> list[dict]:
    """All records, read from the tars by `tarfile`."""
    found = []
    for entry in Manifest.read(folder).shards:
        with tarfile.open(folder / entry.name) as tar:
            for name in tar.getnames():
                if name.endswith(".episodes.json"):
                    found += json.loads(tar.extractfile(name).read())  # type: ignore[union-attr]
    return found


def test_it_says_what_the_records_say(told: Path) -> None:
    expected = stored_records(told)
    for data in (TaskData(told), TaskData(told)):  # made, and found
        assert list(data.records) == expected and data.records[-2:] == expected[-2:]
        assert data.record(-1) == expected[-1]
        rows = [data.index.row(i) for i in range(len(data))]
        for row, record in zip(rows, expected, strict=True):
            assert data.index.instruction(row.instruction) == record["instruction"]
            assert row[2:4] == (record["offset"], record["length"])
            assert (row.steps, row.return_) == (record["steps"], record["return"])
        assert data.index.counts == Manifest.read(told).counts()
        assert data.index.fingerprint == Manifest.read(told).fingerprint


def test_it_is_made_once(told: Path) -> None:
    TaskData(told)
    made = (told / INDEX).stat()
    TaskData(told)
    assert (told / INDEX).stat().st_ino == made.st_ino
    assert not list(told.glob("*.partial"))


def test_it_follows_what_is_appended(told: Path) -> None:
    before = len(TaskData(told))
    episodes = [make_episode(LAYOUT, 9, 50 + i, source="dagger", instruction=None) for i in (0, 1)]
    append_episodes(told, episodes)
    data = TaskData(told)
    assert len(data) == before + 2
    assert list(data.index.demonstrations) == list(range(before)), "corrections are none"


@pytest.mark.parametrize("where", [3, 0.3, 0.6, 0.9, -30, -1])
def test_a_damaged_index_is_made_again(told: Path, where: float) -> None:
    expected = TaskData(told).episodes.copy()
    raw = (told / INDEX).read_bytes()
    at = int(where * len(raw)) if isinstance(where, float) else where % len(raw)
    overwrite(told / INDEX, at, bytes([raw[at] ^ 16]))
    np.testing.assert_array_equal(TaskData(told).episodes, expected)
    assert (told / INDEX).read_bytes() == raw
    (told / INDEX).write_bytes(raw[: len(raw) // 2])
    np.testing.assert_array_equal(TaskData(told).episodes, expected)


def test_an_index_of_another_format_is_made_again(told: Path, monkeypatch) -> None:
    expected = TaskData(told).episodes.copy()
    old = (told / INDEX).read_bytes()
    monkeypatch.setattr(index, "FORMATS", {3: index.SUFFIXES})
    np.testing.assert_array_equal(TaskData(told).episodes, expected)
    assert (told / INDEX).read_bytes() != old


@pytest.mark.parametrize("damage", [flipped_bit, flipped_bit_in_the_records])
def test_damage_after_it_was_made_is_noticed(folder: Path, damage) -> None:
    TaskData(folder)
    damage(folder)
    data = TaskData(folder)
    with pytest.raises(DamagedShard, match="00001-0001"):
        for i in range(len(data)):
            data.tokens(i)
    left = TaskData(folder, skip_damaged=True)
    assert len(left) == 12 and len(left.records) == 12
    assert len(TaskData(folder)) == 16, "what was left out once is not left out for good"


def test_where_nothing_can_be_written_it_is_temporary(told: Path, monkeypatch) -> None:
    """Root may write anywhere, so the refusal is made here."""

    def refuse(*arguments: object) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    data = TaskData(told)
    assert list(data.records) == stored_records(told) and not (told / INDEX).exists()


def test_a_selection_is_some_of_the_episodes(told: Path) -> None:
    append_episodes(told, [make_episode(LAYOUT, 9, 50, source="dagger", instruction=None)])
    whole = TaskData(told)
    chosen = whole.select(np.array([1, 14, 5, 9])).select(np.array([0, 1, 3]))
    assert len(chosen) == 3 and len(whole) == 15
    assert list(chosen.demonstrations) == [0, 2], "the episode that was corrected is none"
    for one in (chosen, pickle.loads(pickle.dumps(chosen))):
        for number, before in enumerate((1, 14, 9)):
            assert one.record(number) == whole.record(before)
            assert one.episodes[number] == whole.episodes[before]
            for part in ("tokens", "rewards", "labels"):
                found = getattr(one, part)(number), getattr(whole, part)(before)
                np.testing.assert_array_equal(*found)
    prints = {each.fingerprint for each in (whole, chosen, whole.select(np.array([1])))}
    assert len(prints) == 3 and whole.fingerprint == Manifest.read(told).fingerprint


def open_and_count(folder: Path) -> int:
    return len(TaskData(folder))


def test_several_processes_may_be_the_first(told: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(open_and_count, [told] * 8) == [14] * 8
    assert sorted(path.name for path in told.glob("index*")) == [INDEX]


def mapped_shards(folder: Path) -> set[str]:
    """Shards of a folder that this process has mapped, as the kernel says."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if str(folder) in line and line.endswith(".tar")}


def test_few_shards_are_mapped_at_a_time(tmp_path: Path, monkeypatch) -> None:
    sizes = {"block_tokens": 200, "shard_tokens": 400}
    folder = write_task(tmp_path, "gym/Toy-v0", LAYOUT, [30] * 60, True, **sizes)
    expected = [TaskData(folder).tokens(i).tolist() for i in range(60)]
    shards = Manifest.read(folder).shards
    assert len(shards) >= 20
    monkeypatch.setattr(reader, "MAPPED_BYTES", 3 * shards[0].bytes)
    data = TaskData(folder)
    for i in np.random.default_rng(0).permutation(60).tolist() * 2:
        assert data.tokens(i).tolist() == expected[i]
        assert 1 <= len(mapped_shards(folder)) <= 3
    view = data.tokens(7)
    for i in range(60):
        data.tokens(i)
    assert view.tolist() == expected[7], "what was read stays, whatever is let go of"
    del data, view
    assert not mapped_shards(folder)


def test_a_shard_that_shrinks_later_is_noticed(tmp_path: Path, monkeypatch) -> None:
    """Reading a map beyond the end of its file would end the process."""
    sizes = {"block_tokens": 200, "shard_tokens": 400}
    folder = write_task(tmp_path, "gym/Toy-v0", LAYOUT, [30] * 60, True, **sizes)
    monkeypatch.setattr(reader, "MAPPED_BYTES", 1)
    data = TaskData(folder)
    data.tokens(0), data.tokens(59)
    with open(folder / "shard-00000.tar", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(DamagedShard, match="the file ends"):
        data.tokens(0)
