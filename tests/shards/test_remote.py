"""Datasets behind a URL: the same rows as from a disk, whatever fails on the way."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from generalist.errors import GeneralistError, UsageError
from generalist.shards.index import INDEX
from generalist.shards.manifest import Manifest
from generalist.shards.reader import DamagedShard, TaskData
from generalist.shards.remote import local_root
from generalist.shards.shards import append_episodes
from generalist.windows.windows import WindowSampler
from tests.bits import every_bit
from tests.dataset_folders import control_layout, make_episode, write_task
from tests.shards.test_reader import flipped_bit
from tests.windows.test_windows import equal, header_of

TASK = "gym/Toy-v0"
LAYOUT = control_layout()
PLENTY = 10**9


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A root of one task of ten shards."""
    sizes = {"block_tokens": 300, "shard_tokens": 600}
    write_task(tmp_path / "there", TASK, LAYOUT, [25] * 40, True, **sizes)
    return tmp_path / "there"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def urls(root: Path) -> dict[str, str]:
    """The same files behind two kinds of URL."""
    memory = fsspec.filesystem("memory")
    memory.rm("/bucket", recursive=True) if memory.exists("/bucket") else None
    memory.put(str(root), "/bucket/data", recursive=True)
    return {"file": f"file://{root}", "memory": "memory://bucket/data"}


def opened(url: str, cache: Path, room: int = PLENTY) -> TaskData:
    return TaskData(local_root(url, cache=cache, cache_bytes=room) / TASK)


def shards_in(cache: Path) -> list[Path]:
    return sorted(cache.rglob("shard-*.tar"))


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_rows_are_those_of_the_folder_itself(there: Path, cache: Path, kind: str) -> None:
    here = TaskData(there / TASK)  # which makes the index
    url = urls(there)[kind]
    data = opened(url, cache)
    assert not shards_in(cache), "opening downloads no shard where an index lies beside them"
    one, other = (
        WindowSampler([each], [1.0], header_of, window_tokens=128, seed=4) for each in (here, data)
    )
    assert equal(one.batch(0, 3), other.batch(0, 3))
    assert 1 <= len(shards_in(cache)) < 10, "what is not needed is not downloaded"
    assert equal(one.batch(3, 200), other.batch(3, 200))
    assert data.records[:] == here.records[:]
    assert data.index.fingerprint == here.index.fingerprint
    times = [path.stat().st_ino for path in shards_in(cache)]
    again = WindowSampler([opened(url, cache)], [1.0], header_of, window_tokens=128, seed=4)
    assert equal(one.batch(50, 50), again.batch(50, 50)), "a run that is resumed"
    assert [path.stat().st_ino for path in shards_in(cache)] == times, "they are downloaded once"


def test_without_an_index_it_is_made_here(there: Path, cache: Path) -> None:
    url = urls(there)["file"]
    assert opened(url, cache).tokens(3).tolist() == TaskData(there / TASK).tokens(3).tolist()
    made = next(cache.rglob(INDEX)).stat().st_ino
    (there / TASK / INDEX).unlink()
    opened(url, cache)
    assert next(cache.rglob(INDEX)).stat().st_ino == made


def test_few_shards_stay_where_there_is_little_room(there: Path, cache: Path) -> None:
    here = TaskData(there / TASK)
    size = Manifest.read(there / TASK).shards[0].bytes
    data = opened(urls(there)["file"], cache, 3 * size)
    for i in np.random.default_rng(1).permutation(40).tolist():
        data = opened(urls(there)["file"], cache, 3 * size) if i == 20 else data
        assert data.tokens(i).tolist() == here.tokens(i).tolist()
        assert len(shards_in(cache)) <= 3
    newest = max(shards_in(cache), key=lambda path: path.stat().st_mtime_ns)
    oldest = min(shards_in(cache), key=lambda path: path.stat().st_mtime_ns)
    missing = next(n for n in range(10) if not (oldest.parent / f"shard-{n:05d}.tar").exists())
    TaskData(oldest.parent).samples[2 * missing].tokens  # noqa: B018 - it is the reading that counts
    assert newest.exists() and not oldest.exists(), "the one used longest ago goes"


def test_what_arrives_damaged_is_never_opened(there: Path, cache: Path) -> None:
    TaskData(there / TASK)
    flipped_bit(there / TASK)  # in shard 1: the store itself holds something else
    data = opened(f"file://{there}", cache)
    with pytest.raises(DamagedShard, match=r"shard-00001\.tar.*sha256"):
        data.tokens(4)
    assert not shards_in(cache) and not list(cache.rglob("*.partial"))
    data.tokens(0)
    root = local_root(f"file://{there}", cache=cache, cache_bytes=PLENTY)
    left = TaskData(root / TASK, skip_damaged=True)
    assert len(left.damaged) == 1 and len(left) == 36


class Breaking(LocalFileSystem):
    """A store whose connection breaks, or whose reader is killed, in the middle of a shard."""

    protocol = "breaking"
    left = -1  # bytes until it breaks; none where negative
    kills = False

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file = super().open(path, mode, **options)
        if not path.endswith(".tar") or Breaking.left < 0:
            return file
        read = file.read

        def broken(size: int = -1) -> bytes:
            if Breaking.left <= 0:
                os._exit(9) if Breaking.kills else None
                raise ConnectionResetError("the connection was reset")
            piece = read(min(size, Breaking.left))
            Breaking.left -= len(piece)
            return piece

        file.read = broken
        return file


def read_all(url: str, cache: Path, left: int) -> None:
    Breaking.left, Breaking.kills = left, True
    data = opened(url, cache)
    for i in range(len(data)):
        data.tokens(i)


@pytest.mark.parametrize("kill", [False, True])
def test_an_interrupted_download_is_done_again(there: Path, cache: Path, kill: bool) -> None:
    here = TaskData(there / TASK)
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    url, size = f"breaking://{there}", Manifest.read(there / TASK).shards[0].bytes
    if kill:
        process = multiprocessing.get_context("fork").Process(
            target=read_all, args=(url, cache, 2 * size + 700)
        )
        process.start()
        process.join(60)
        assert process.exitcode == 9 and list(cache.rglob("*.partial"))
    else:
        Breaking.left = 2 * size + 700
        data = opened(url, cache)
        with pytest.raises(GeneralistError, match="could not be downloaded.*reset"):
            for i in range(40):
                data.tokens(i)
        assert not list(cache.rglob("*.partial"))
    assert len(shards_in(cache)) == 2, "only what is complete is there"
    Breaking.left = -1
    data = opened(url, cache)
    assert [data.tokens(i).tolist() for i in range(40)] == [
        here.tokens(i).tolist() for i in range(40)
    ]
    assert not list(cache.rglob("*.partial"))


def test_it_follows_what_changes_there(there: Path, cache: Path) -> None:
    url = f"file://{there}"
    data = opened(url, cache)
    kept = (data.folder / "shard-00000.tar").stat().st_ino if data.tokens(0) is not None else 0
    append_episodes(there / TASK, [make_episode(LAYOUT, 7, 90, True)])
    data = opened(url, cache)
    assert len(data) == 41 and data.record(40)["seed"] == 90
    assert (data.folder / "shard-00000.tar").stat().st_ino == kept
    for path in there.rglob("*"):
        path.unlink() if path.is_file() else None
    sizes = {"block_tokens": 300, "shard_tokens": 600}
    write_task(there, TASK, control_layout(), [24, 26] * 20, False, **sizes)
    data, here = opened(url, cache), TaskData(there / TASK)
    assert [data.tokens(i).tolist() for i in range(40)] == [
        here.tokens(i).tolist() for i in range(40)
    ]


def test_mistakes_are_sentences(tmp_path: Path, cache: Path) -> None:
    for url, words in (
        (f"file://{tmp_path}/nowhere", "holds no dataset"),
        ("nosuch://bucket", "nosuch"),
    ):
        with pytest.raises(GeneralistError, match=words):
            local_root(url, cache=cache, cache_bytes=PLENTY)
    with pytest.raises(UsageError, match="one plain URL"):
        local_root("simplecache::file:///data", cache=cache, cache_bytes=PLENTY)
    assert local_root(tmp_path, cache=cache, cache_bytes=PLENTY) == tmp_path


def test_a_flipped_bit_of_where_shards_come_from_is_named(there: Path, cache: Path) -> None:
    data = opened(f"file://{there}", cache)
    path = data.folder / "remote.json"
    written, expected = path.read_bytes(), data.tokens(39).tolist()
    for damaged in every_bit(written, 7):
        path.write_bytes(damaged)
        try:
            assert TaskData(data.folder).tokens(39).tolist() == expected
            assert json.loads(damaged) == json.loads(written)
        except GeneralistError as error:
            assert str(path) in str(error)


def test_a_cache_that_is_damaged_is_mended(there: Path, cache: Path) -> None:
    url = f"file://{there}"
    expected = opened(url, cache).tokens(39).tolist()
    for name in ("manifest.json", "dataset.json", "remote.json", INDEX):
        for path in cache.rglob(name):
            path.write_bytes(b"damaged")
    assert opened(url, cache).tokens(39).tolist() == expected
