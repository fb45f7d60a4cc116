"""A stranger's dataset: no name in it leads outside its folder, and nothing is allocated for it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from generalist.errors import GeneralistError
from generalist.integrity import sealed
from generalist.shards import index
from generalist.shards.index import INDEX
from generalist.shards.manifest import Manifest
from generalist.shards.reader import TaskData
from generalist.shards.remote import Remote, local_root
from generalist.shards.shards import ShardWriter, append_episodes
from generalist.shards.validate import validate
from tests.dataset_folders import control_layout, make_episode, make_header, write_task
from tests.hub import local_hub

TASK = "gym/Toy-v0"
LAYOUT = control_layout()
PLENTY = 10**9
NAMES = [
    "../../../victim/bashrc",
    "../victim/shard-00000.tar",
    "/victim/bashrc",
    "sub/shard-00000.tar",
    "..\\..\\victim",
    "shard-00000.tar\0",
    "shard-00000.tar\n",
    "shard-०००००.tar",
    "manifest.json",
    "",
    ".",
    None,
    7,
    ["shard-00000.tar"],
]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A stranger's root of one task of four shards."""
    sizes = {"block_tokens": 300, "shard_tokens": 600}
    write_task(tmp_path / "there", TASK, LAYOUT, [25] * 16, True, **sizes)
    return tmp_path / "there"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A folder that is there after the test as before it."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "bashrc").write_text("mine")
    (folder / "shard-00000.tar").write_text("mine too")
    yield folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "bashrc": "mine",
        "shard-00000.tar": "mine too",
    }


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None], seal: bool = True) -> None:
    """Change a manifest as a stranger would, who knows how it is sealed."""
    path = folder / "manifest.json"
    value = json.loads(path.read_text())
    del value["checksum"]
    change(value)
    path.write_text(json.dumps(sealed(value) if seal else value))


def paths_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def every_way(there: Path, tmp_path: Path) -> Iterator[Callable[[], object]]:
    """All that reads a root or writes to it: from the folder, from two kinds of URL."""
    folder = there / TASK
    memory = fsspec.filesystem("memory")
    memory.rm("/bucket", recursive=True) if memory.exists("/bucket") else None
    memory.put(str(there), "/bucket/data", recursive=True)

    def read(root: Path) -> None:
        data = TaskData(root / TASK)
        for number in range(len(data)):
            data.tokens(number)

    yield lambda: read(there)
    yield lambda: list(Manifest.read(folder).records(folder))
    yield lambda: ShardWriter(folder, make_header(TASK, LAYOUT))
    yield lambda: append_episodes(folder, [make_episode(LAYOUT, 9, 90)])
    for url in (f"file://{there}", "memory://bucket/data"):
        yield lambda url=url: read(local_root(url, cache=tmp_path / "cache", cache_bytes=PLENTY))


@pytest.mark.parametrize("seal", [True, False], ids=["sealed", "older"])
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_of_a_shard_leads_nowhere_else(
    there: Path, victim: Path, tmp_path: Path, name: Any, seal: bool
) -> None:
    rewrite(there / TASK, lambda value: value["shards"][1].update(name=name), seal)
    before = paths_below(tmp_path) - paths_below(there / TASK)
    for act in every_way(there, tmp_path):
        with pytest.raises(GeneralistError, match=r"manifest\.json"):
            act()
    with pytest.raises(GeneralistError, match=r"manifest\.json"):
        TaskData(there / TASK, skip_damaged=True)
    assert "manifest.json" in validate(there).problems[0]
    after = paths_below(tmp_path) - paths_below(there / TASK) - paths_below(tmp_path / "cache")
    assert after == before
    kept = {path.name for path in paths_below(tmp_path / "cache")}
    assert kept <= {"dataset.json", ".download", ".generalist-cache"}


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": 10**18},
        {"bytes": -1},
        {"bytes": 1e18},
        {"bytes": 10**40},
        {"tokens": 10**40},
        {"steps": "many"},
        {"episodes": True},
        {"return_sum": float("nan")},
        {"sha256": "0" * 63},
        {"sha256": None},
        {"members": None},
        {"members": [{"name": "a.tokens.npy", "offset": 512, "size": 10**18, "crc32": 0}]},
        {"members": [{"name": "a.tokens.npy", "offset": -512, "size": 8, "crc32": 0}]},
        {"members": [{"name": "a.tokens.npy", "offset": 0, "size": 8, "crc32": 0}]},
        {"members": [{"name": None, "offset": 512, "size": 8, "crc32": 0}]},
        {"members": [{"name": "a.tokens.npy", "offset": 512, "size": 8, "crc32": 2**32}]},
        {"more": 1},
    ],
    ids=str,
)
def test_a_promise_is_not_believed(there: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    rewrite(there / TASK, lambda value: value["shards"][1].update(change))
    tracemalloc.start()
    for act in every_way(there, tmp_path):
        with pytest.raises(GeneralistError, match=r"manifest\.json|shard-00001\.tar"):
            act()
    assert validate(there).problems
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_a_whole_manifest_of_promises_is_not_believed(there: Path, tmp_path: Path) -> None:
    """Sizes that agree with each other, of records that are read at once."""

    def promise(value: dict[str, Any]) -> None:
        value["shards"][1]["bytes"] = 2 * 10**18
        for member in value["shards"][1]["members"]:
            member["size"] = 10**18

    rewrite(there / TASK, promise)
    for act in every_way(there, tmp_path):
        with pytest.raises(GeneralistError, match=r"shard-00001\.tar"):
            act()
    assert len(TaskData(there / TASK, skip_damaged=True)) == 12


@pytest.mark.parametrize(
    "rejected", [{"../a": "b"}, {"": ""}, {"9" * 5000: "b"}, {"-1": "b"}, ["ab"], None]
)
def test_rejected_seeds_are_numbers(there: Path, rejected: Any) -> None:
    rewrite(there / TASK, lambda value: value.update(rejected=rejected))
    with pytest.raises(GeneralistError, match=r"manifest\.json"):
        Manifest.read(there / TASK)


def test_a_shard_that_stands_twice_is_refused(there: Path) -> None:
    rewrite(there / TASK, lambda value: value["shards"].append(value["shards"][0]))
    with pytest.raises(GeneralistError, match=r"manifest\.json.*twice"):
        TaskData(there / TASK)


# The index


def taken_apart(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """Body and footer of an index."""
    raw, tail = (folder / INDEX).read_bytes(), index._TAIL
    _, footer_bytes, _ = tail.unpack(raw[-tail.size :])
    return raw[: -tail.size - footer_bytes], json.loads(raw[-tail.size - footer_bytes : -tail.size])


def put_together(folder: Path, body: bytes, footer: Any) -> None:
    """Write an index whose own checksum is right."""
    text = json.dumps(footer).encode()
    tail = index._TAIL.pack(zlib.crc32(body + text), len(text), index._MAGIC)
    (folder / INDEX).write_bytes(body + text + tail)


def change_section(folder: Path, name: str, dtype: np.dtype, column: str, value: Any) -> None:
    """Put another value into all rows of a section, which moves to the end of the index."""
    body, footer = taken_apart(folder)
    own = {
        "shards": index._shard_dtype(footer["name_bytes"]),
        "blocks": index._block_dtype(footer["key_bytes"], 4),
    }
    first, count = footer["sections"][name]
    rows = np.frombuffer(body, own[name], count, first).astype(dtype)
    rows[column] = value
    body += bytes(-len(body) % 64)
    footer["sections"][name] = len(body), count
    footer["name_bytes"] = dtype["name"].itemsize if name == "shards" else footer["name_bytes"]
    put_together(folder, body + rows.tobytes(), footer)


@pytest.mark.parametrize("name", [b"../../victim/bashrc", b"/etc/passwd", b"a\xff", b"\\a"])
def test_an_index_names_no_other_file(there: Path, tmp_path: Path, name: bytes) -> None:
    folder = there / TASK
    expected = TaskData(folder).tokens(15).tolist()
    change_section(folder, "shards", index._shard_dtype(64), "name", name)
    for root in (
        there,
        local_root(f"file://{there}", cache=tmp_path / "cache", cache_bytes=PLENTY),
    ):
        assert name in (root / TASK / INDEX).read_bytes()
        assert TaskData(root / TASK).tokens(15).tolist() == expected
        assert name not in (root / TASK / INDEX).read_bytes(), "it is made again"


@pytest.mark.parametrize("number", [-1, 99])
def test_an_index_names_no_shard_that_is_not_there(there: Path, number: int) -> None:
    folder = there / TASK
    expected = TaskData(folder).tokens(15).tolist()
    dtype = index._block_dtype(taken_apart(folder)[1]["key_bytes"], 4)
    change_section(folder, "blocks", dtype, "shard", number)
    assert TaskData(folder).tokens(15).tolist() == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda footer: [],
        lambda footer: "footer",
        lambda footer: {},
        lambda footer: {**footer, "sections": None},
        lambda footer: {**footer, "key_bytes": 10**18},
        lambda footer: {**footer, "key_bytes": "8"},
        lambda footer: {**footer, "sections": {**footer["sections"], "episodes": [0, 10**18]}},
        lambda footer: {**footer, "sections": {**footer["sections"], "blocks": [-64, 1]}},
    ],
)
def test_an_index_of_another_form_is_made_again(there: Path, change: Callable) -> None:
    folder = there / TASK
    expected = TaskData(folder).tokens(15).tolist()
    right = (folder / INDEX).read_bytes()
    body, footer = taken_apart(folder)
    put_together(folder, body, change(footer))
    assert TaskData(folder).tokens(15).tolist() == expected
    assert (folder / INDEX).read_bytes() == right


# Names in a listing


class Listing(LocalFileSystem):
    """A store that lists what a stranger wants it to."""

    protocol = "listing"
    names: tuple[str, ...] = ()

    def find(self, path: str, *arguments: Any, **options: Any) -> list[str]:
        return [name.format(top=path) for name in Listing.names]


@pytest.mark.parametrize(
    "name",
    [
        "{top}/../../victim/dataset.json",
        "{top}/gym/../../../victim/dataset.json",
        "{top}-other/gym/Toy-v0/dataset.json",
        "/victim/dataset.json",
        "{top}/gym\\..\\victim/dataset.json",
        "{top}/gym/Toy\0/dataset.json",
        "{top}/gym//dataset.json",
        "{top}/gym/./dataset.json",
        "{top}/gym/x::memory:/dataset.json",
    ],
)
def test_a_name_in_a_listing_leads_nowhere_else(
    there: Path, victim: Path, tmp_path: Path, name: str
) -> None:
    fsspec.register_implementation("listing", Listing, clobber=True)
    Listing.names = (f"{{top}}/{TASK}/dataset.json", name)
    with pytest.raises(GeneralistError, match="is no path below"):
        local_root(f"listing://{there}", cache=tmp_path / "cache", cache_bytes=PLENTY)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["remote.json", ".download"])
def test_a_folder_of_the_name_of_a_file_is_one_sentence(
    there: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(there / TASK, tmp_path / "copy")
    shutil.copytree(tmp_path / "copy", there / TASK / name)
    with pytest.raises(GeneralistError, match="cannot be kept"):
        local_root(f"file://{there}", cache=tmp_path / "cache", cache_bytes=PLENTY)


def test_a_repository_of_the_hub_leads_nowhere_else(victim: Path, tmp_path: Path) -> None:
    """The real client of the Hub, whose server lists names of its own choice."""
    with local_hub() as hub:
        write_task(tmp_path / "there", TASK, LAYOUT, [25] * 4)
        good = {
            str(path.relative_to(tmp_path / "there")): path.read_bytes()
            for path in paths_below(tmp_path / "there" / TASK)
        }
        hub.repositories["someone/good"] = [good]
        bad = "../../../../victim"
        hub.repositories["someone/bad"] = [
            {**good, f"{bad}/dataset.json": good[f"{TASK}/dataset.json"]}
        ]
        code = (
            "import sys, pathlib\n"
            "from generalist.errors import GeneralistError\n"
            "from generalist.shards.remote import local_root\n"
            "from generalist.shards.reader import TaskData\n"
            "try:\n"
            "    cache = pathlib.Path(sys.argv[2])\n"
            "    root = local_root(sys.argv[1], cache=cache, cache_bytes=10**9)\n"
            f"    print(len(TaskData(root / {TASK!r}).tokens(3)))\n"
            "except GeneralistError as error:\n"
            "    print(error)\n"
        )
        said = {}
        for name in ("good", "bad"):
            done = subprocess.run(
                [sys.executable, "-c", code, f"hf://someone/{name}", str(tmp_path / name)],
                env={**os.environ, **hub.environment(tmp_path / "hub")},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
            said[name] = done.stdout.strip()
    assert said["good"] == str(25 * LAYOUT.tokens_per_timestep)
    assert "is no path below" in said["bad"]


# What lies in a folder that was unpacked here


def test_a_folder_cannot_pretend_to_lie_in_a_cache(there: Path, tmp_path: Path) -> None:
    """Else the shards of others would be deleted to make room for its own."""
    write_task(tmp_path / "mine", TASK, LAYOUT, [25] * 4)
    folder = there / TASK
    shard = folder / "shard-00003.tar"
    source = shutil.copytree(folder, tmp_path / "source" / TASK)
    shard.unlink()
    for cache in (tmp_path, there, there.parent.parent):
        remote = Remote(f"file://{source}", str(cache), 0)
        (folder / "remote.json").write_text(json.dumps(sealed(vars(remote))))
        with pytest.raises(GeneralistError, match=r"remote\.json.*lies in no cache"):
            TaskData(folder)
        assert "remote.json" in validate(there).problems[0]
    assert not shard.exists() and len(TaskData(tmp_path / "mine" / TASK)) == 4


def test_only_what_was_downloaded_makes_room(there: Path, tmp_path: Path) -> None:
    """A cache may be a folder that holds other things too."""
    mine = write_task(tmp_path / "cache", TASK, LAYOUT, [25] * 16, shard_tokens=600)
    TaskData(there / TASK)
    size = Manifest.read(there / TASK).shards[0].bytes
    data = TaskData(
        local_root(f"file://{there}", cache=tmp_path / "cache", cache_bytes=size) / TASK
    )
    for number in range(16):
        data.tokens(number)
    assert len(list(data.folder.glob("shard-*.tar"))) == 1
    assert len(list(mine.glob("shard-*.tar"))) == 4 and validate(mine).ok


def test_a_shard_is_not_downloaded_beyond_its_size(there: Path, tmp_path: Path) -> None:
    folder = there / TASK
    TaskData(folder)
    data = TaskData(
        local_root(f"file://{there}", cache=tmp_path / "cache", cache_bytes=PLENTY) / TASK
    )
    with open(folder / "shard-00003.tar", "ab") as file:
        file.truncate(50_000_000)
    with pytest.raises(GeneralistError, match=r"shard-00003\.tar"):
        data.tokens(15)
    assert not list((tmp_path / "cache").rglob("*.partial"))
    with pytest.raises(GeneralistError, match="more than the cache.*cache_gigabytes"):
        tiny = local_root(f"file://{there}", cache=tmp_path / "cache", cache_bytes=100)
        TaskData(tiny / TASK).tokens(0)


@pytest.mark.parametrize("name", ["manifest.json", "dataset.json", "shard-00004.tar", INDEX])
def test_a_link_in_a_folder_is_never_written_through(there: Path, victim: Path, name: str) -> None:
    """As an archive may hold it: at a name, or at the temporary name of one, that is written."""
    folder = there / TASK
    for link in (folder / f"{name}.partial", folder / name):
        if link.name in ("manifest.json", "dataset.json"):
            continue  # those are read
        link.unlink(missing_ok=True)
        link.symlink_to(victim / "bashrc")
    with contextlib.suppress(GeneralistError):
        append_episodes(folder, [make_episode(LAYOUT, 25, 90)] * 4)
    TaskData(folder)
    assert validate(folder).ok


def test_a_lock_that_is_a_link_is_refused(there: Path, victim: Path) -> None:
    lock = there / TASK / ".lock"
    lock.unlink()
    lock.symlink_to(victim / "new")
    with pytest.raises(GeneralistError, match=r"\.lock"):
        append_episodes(there / TASK, [make_episode(LAYOUT, 25, 90)])
