from __future__ import annotations

import io
import json
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.seeds import EVALUATION_SEED
from generalist.shards.files import DiskFull
from generalist.shards.manifest import DatasetHeader, Manifest
from generalist.shards.reader import TaskData
from generalist.shards.shards import ShardWriter, append_episodes
from generalist.tokenization.layout import document_layout
from tests.dataset_folders import (
    VOCABULARY,
    control_layout,
    grid_layout,
    make_episode,
    make_header,
    write_task,
)

LAYOUT = control_layout()
TASK = "gym/Toy-v0"
SMALL = {"block_tokens": 600, "shard_tokens": 1200}


def contents(folder: Path) -> list[tuple]:
    data = TaskData(folder)
    return [
        (data.tokens(i).tolist(), data.rewards(i).tolist(), data.record(i)["seed"])
        for i in range(len(data))
    ]


@pytest.mark.parametrize("layout", [LAYOUT, grid_layout(), document_layout(VOCABULARY)])
@pytest.mark.parametrize("labelled", [False, True])
def test_what_is_written_is_read(tmp_path: Path, layout, labelled: bool) -> None:
    episodes = [make_episode(layout, 3 + 5 * i, i, labelled and i % 2 == 0) for i in range(9)]
    with ShardWriter(tmp_path, make_header(TASK, layout), **SMALL) as writer:
        for episode in episodes:
            writer.add(episode)
    data = TaskData(tmp_path)
    assert len(data) == writer.episodes_written == 9
    for i, episode in enumerate(episodes):
        assert data.tokens(i).dtype == VOCABULARY.dtype
        np.testing.assert_array_equal(data.tokens(i), episode.tokens)
        np.testing.assert_array_equal(data.rewards(i), episode.rewards.astype(np.float32))
        executed = episode.tokens.reshape(-1, layout.tokens_per_timestep)
        executed = executed[:, layout.positions.chosen].ravel()
        expected = executed if episode.labels is None else episode.labels
        found = data.labels(i)
        np.testing.assert_array_equal(executed if found is None else found, expected)
        record = data.record(i)
        assert record["steps"] == len(episode.rewards)
        assert record["return"] == pytest.approx(float(data.rewards(i).sum(dtype=np.float64)))
        assert data.episodes[i]["return"] == record["return"]


def test_labels_are_stored_only_where_one_differs(tmp_path: Path) -> None:
    same = make_episode(LAYOUT, 10, 0)
    executed = same.tokens.reshape(-1, LAYOUT.tokens_per_timestep)[:, LAYOUT.positions.chosen]
    same.labels = executed.ravel()
    with ShardWriter(tmp_path, make_header(TASK, LAYOUT)) as writer:
        writer.add(same)
    assert TaskData(tmp_path).labels(0) is None
    names = [m.name for m in Manifest.read(tmp_path).shards[0].members]
    assert not any("labels" in name for name in names)
    with ShardWriter(tmp_path, make_header(TASK, LAYOUT)) as writer:
        writer.add(make_episode(LAYOUT, 10, 1, labelled=True))
    counts = Manifest.read(tmp_path).counts()
    assert counts["relabelled"] == TaskData(tmp_path).record(1)["relabelled"] > 0


def test_any_webdataset_reader_can_read_it(folder: Path) -> None:
    import webdataset

    shards = sorted(str(path) for path in folder.glob("shard-*.tar"))
    assert len(shards) == 2
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(samples) == 4
    tokens = [np.load(io.BytesIO(s["tokens.npy"]), allow_pickle=False) for s in samples]
    records = [json.loads(s["episodes.json"]) for s in samples]
    data = TaskData(folder)
    expected = np.concatenate([data.tokens(i) for i in range(len(data))])
    np.testing.assert_array_equal(np.concatenate(tokens), expected)
    assert [r["seed"] for block in records for r in block] == list(range(16))
    assert len({s["__key__"] for s in samples}) == len(samples)
    assert all("labels.npy" in s and "rewards.npy" in s for s in samples)


def test_the_same_episodes_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_task(tmp_path / name, TASK, LAYOUT, [20] * 12, True, **SMALL)
    for path in sorted((tmp_path / "a").rglob("*.*")):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        if path.is_file():
            assert path.read_bytes() == other.read_bytes(), path


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError, GeneralistError])
def test_interrupted_and_continued_is_as_uninterrupted(tmp_path: Path, interruption) -> None:
    whole = write_task(tmp_path / "whole", TASK, LAYOUT, [20] * 12, True, **SMALL)
    parts = tmp_path / "parts"
    with pytest.raises(interruption):
        with ShardWriter(parts, make_header(TASK, LAYOUT), **SMALL) as writer:
            for seed in range(7):
                writer.add(make_episode(LAYOUT, 20, seed, True, instruction=None))
            raise interruption("stop")
    with ShardWriter(parts, make_header(TASK, LAYOUT), **SMALL) as writer:
        assert writer.episodes_written == 7 and writer.seeds == set(range(7))
        for seed in range(12):
            if seed not in writer.seeds:
                writer.add(make_episode(LAYOUT, 20, seed, True, instruction=None))
    assert contents(parts) == contents(whole)


def test_a_flush_interrupted_anywhere_is_done_again(tmp_path: Path, monkeypatch) -> None:
    """Ctrl-C after the shard was renamed, before the manifest: nothing twice, nothing lost."""
    original, calls = Manifest.write, []

    def interrupted(self: Manifest, folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 2:  # the first is that of the empty folder
            raise KeyboardInterrupt
        original(self, folder)

    monkeypatch.setattr(Manifest, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        with ShardWriter(tmp_path, make_header(TASK, LAYOUT), **SMALL) as writer:
            for seed in range(20):
                writer.add(make_episode(LAYOUT, 25, seed))
    assert [seed for _, _, seed in contents(tmp_path)] == list(range(8))


def collect_until(folder: Path, moment: int) -> None:
    """Write 24 episodes; die at the given rename, before it (positive) or after it (negative)."""
    count, rename = 0, os.replace

    def replace(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count == moment:
            os._exit(9)
        rename(source, target)
        if count == -moment:
            os._exit(9)

    os.replace = replace
    with ShardWriter(folder, make_header(TASK, LAYOUT), **SMALL) as writer:
        for seed in range(24):
            if seed not in writer.seeds:
                writer.add(make_episode(LAYOUT, 25, seed, True))


def in_a_fork(target, *arguments) -> int | None:
    import webdataset  # noqa: F401 - once here, not in each fork

    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5, 6, -3, -4, -6])
def test_killed_at_any_rename_it_continues(tmp_path: Path, moment: int) -> None:
    folder = tmp_path / "d"
    assert in_a_fork(collect_until, folder, moment) == 9
    assert in_a_fork(collect_until, folder, 0) == 0
    assert [seed for _, _, seed in contents(folder)] == list(range(24))
    listed = {shard.name for shard in Manifest.read(folder).shards}
    left = {path.name for path in folder.iterdir()}
    assert left == listed | {"README.md", "dataset.json", "manifest.json", "index.bin", ".lock"}


def write_with_little_room(folder: Path, bytes_allowed: int) -> None:
    """Real disk errors: the kernel refuses to let any file of this process grow further."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_allowed, bytes_allowed))
    try:
        with ShardWriter(folder, make_header(TASK, LAYOUT), shard_tokens=100_000) as writer:
            for seed in range(3):
                writer.add(make_episode(LAYOUT, 20, seed))
            writer.flush()
            for seed in range(3, 400):
                writer.add(make_episode(LAYOUT, 100, seed))
    except DiskFull as error:
        os._exit(28 if "shard-00001.tar" in str(error) and "make room" in str(error) else 1)


def test_a_full_disk_leaves_a_valid_dataset_that_continues(tmp_path: Path) -> None:
    assert in_a_fork(write_with_little_room, tmp_path, 60_000) == 28
    assert [seed for _, _, seed in contents(tmp_path)] == [0, 1, 2]
    assert not list(tmp_path.glob("*.partial"))
    with ShardWriter(tmp_path, make_header(TASK, LAYOUT)) as writer:
        writer.add(make_episode(LAYOUT, 100, 3))
    assert [seed for _, _, seed in contents(tmp_path)] == [0, 1, 2, 3]


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, make_header(TASK, LAYOUT)):
        with pytest.raises(GeneralistError, match="Another process"):
            ShardWriter(tmp_path, make_header(TASK, LAYOUT))
    ShardWriter(tmp_path, make_header(TASK, LAYOUT)).close()


def test_another_vocabulary_or_layout_is_refused(folder: Path) -> None:
    header = make_header(TASK, LAYOUT)
    header.vocabulary_fingerprint = "feedfacefeedface"
    with pytest.raises(GeneralistError) as error:
        ShardWriter(folder, header)
    assert VOCABULARY.fingerprint in str(error.value) and "feedfacefeedface" in str(error.value)
    with pytest.raises(GeneralistError, match="another layout"):
        ShardWriter(folder, make_header(TASK, control_layout(5)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": np.zeros(13)}, "do not make"),
        ({"tokens": np.full(60, 60_000)}, "outside"),
        ({"rewards": np.full(10, np.nan)}, "not finite"),
        ({"labels": np.zeros(3)}, "labels do not make"),
        ({"record": {"seed": EVALUATION_SEED}}, "kept for evaluation"),
    ],
)
def test_a_wrong_episode_is_refused_with_its_seed(tmp_path: Path, change, message) -> None:
    episode = make_episode(LAYOUT, 10, 7)
    for name, value in change.items():
        setattr(episode, name, value)
    with ShardWriter(tmp_path, make_header(TASK, LAYOUT)) as writer:
        with pytest.raises(GeneralistError, match=message):
            writer.add(episode)
        assert writer.episodes_written == 0


def test_append_adds_to_an_existing_folder(folder: Path) -> None:
    more = [make_episode(LAYOUT, 10, 100 + i, True, source="dagger") for i in range(3)]
    assert append_episodes(folder, more) == 3
    data = TaskData(folder)
    assert len(data) == 19
    assert [r.get("source") for r in data.records[-3:]] == ["dagger"] * 3
    counts = json.loads((folder / "dataset.json").read_text())["counts"]
    assert counts == Manifest.read(folder).counts() and counts["episodes"] == 19


def test_the_header_survives_json(tmp_path: Path) -> None:
    header = make_header(TASK, grid_layout(), noise=[0.0, 0.2])
    ShardWriter(tmp_path, header).close()
    assert DatasetHeader.read(tmp_path) == header
