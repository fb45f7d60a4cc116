"""One flipped bit of any file of a real dataset is an error that names the file, or harmless."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from generalist.collecting.collect import collect
from generalist.errors import GeneralistError
from generalist.shards.manifest import DatasetHeader, Manifest
from generalist.shards.reader import TaskData
from generalist.shards.validate import validate
from generalist.windows.spec import dataset_spec
from tests.bits import every_bit, flipped

TASK = "gym/CartPole-v1"
JSON_FILES = ["dataset.json", "manifest.json"]
EVERY = [131, pytest.param(1, marks=pytest.mark.slow)]  # each of so many bits
SHARD_BITS = [150, pytest.param(2_000, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def collected(tmp_path_factory, without_frames) -> Path:
    """Real episodes in two shards, with labels and an index; read only."""
    root = tmp_path_factory.mktemp("collected")
    without_frames.save_pretrained(root / "processor")
    tasks = [{"task": TASK, "episodes": 4, "max_steps": 12, "noise": 0.5}]
    spec = dataset_spec({"shard_tokens": 150, "tasks": tasks})
    collect(spec, root / "data", 0, progress=False, processor=str(root / "processor"))
    folder = root / "data" / TASK
    TaskData(folder)  # makes the index
    assert len(list(folder.glob("shard-*.tar"))) == 2
    return folder


@pytest.fixture
def folder(collected: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(collected, tmp_path / "task"))


def content(folder: Path) -> Any:
    """All that training takes from a folder."""
    data = TaskData(folder)
    arrays = [
        None if array is None else array.tolist()
        for i in range(len(data))
        for array in (data.tokens(i), data.rewards(i), data.labels(i))
    ]
    return data.header, data.layout, data.manifest, data.records[:], arrays


def problem_of(read: Callable[[], Any], expected: Any) -> str | None:
    """What the error says; None where the content is as it was."""
    try:
        found = read()
    except GeneralistError as error:
        return str(error)
    assert found == expected
    return None


def replace(path: Path, damaged: bytes) -> None:
    """Another file under the same name: the old one may still be mapped."""
    fresh = path.with_name("fresh")
    fresh.write_bytes(damaged)
    os.replace(fresh, path)


def unseal(path: Path) -> None:
    """What a version before checksums would have written."""
    value = json.loads(path.read_text())
    del value["checksum"]
    path.write_text(json.dumps(value, indent=1))


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("name", JSON_FILES)
def test_a_bit_of_a_json_file_is_named_or_harmless(folder: Path, name: str, every: int) -> None:
    path = folder / name
    written, expected = path.read_bytes(), content(folder)
    changes = 0
    for damaged in every_bit(written, every):
        replace(path, damaged)
        problem = problem_of(lambda: content(folder), expected)
        assert problem is None or str(path) in problem
        report = validate(folder)
        assert report.ok == (problem is None) and all(name in each for each in report.problems)
        changes += problem is not None
    assert changes > len(written) * 8 / every / 2, "most bits matter"
    replace(path, written)
    assert content(folder) == expected and validate(folder).ok


@pytest.mark.parametrize("name", JSON_FILES)
def test_files_of_before_there_were_checksums_are_read(folder: Path, name: str) -> None:
    expected = content(folder)
    unseal(folder / name)
    assert content(folder) == expected and validate(folder).ok


@pytest.mark.parametrize("every", [131, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", JSON_FILES)
def test_without_a_checksum_no_bit_is_a_raw_error(folder: Path, name: str, every: int) -> None:
    path = folder / name
    unseal(path)
    for damaged in every_bit(path.read_bytes(), every):
        replace(path, damaged)
        try:
            content(folder)
        except GeneralistError as error:
            assert str(folder) in str(error)
        validate(folder)


def bits_of(path: Path, count: int) -> Iterable[bytes]:
    """The content of a file with one bit flipped, `count` times at random."""
    written, rng = path.read_bytes(), random.Random(0)
    return (flipped(written, rng.randrange(8 * len(written))) for _ in range(count))


@pytest.mark.parametrize("count", SHARD_BITS)
def test_a_bit_of_a_shard_is_named_or_padding(folder: Path, count: int) -> None:
    path, expected = folder / "shard-00001.tar", content(folder)
    for damaged in bits_of(path, count):
        replace(path, damaged)
        problem = problem_of(lambda: content(folder), expected)
        assert problem is None or str(path) in problem
        (found,) = validate(folder).problems
        assert str(path) in found


def test_every_bit_of_an_array_header_is_named(folder: Path) -> None:
    """numpy reads it as Python, whose parser has errors of its own."""
    path = folder / "shard-00001.tar"
    member = next(m for m in Manifest.read(folder).shards[1].members if "tokens" in m.name)
    written = path.read_bytes()
    for bit in range(8 * member.offset, 8 * (member.offset + 128), 3):
        replace(path, flipped(written, bit))
        with pytest.raises(GeneralistError, match=r"shard-00001\.tar"):
            content(folder)


def test_a_bit_of_the_index_is_harmless(folder: Path) -> None:
    path, expected = folder / "index.bin", content(folder)
    written = path.read_bytes()
    for damaged in every_bit(written, 37):
        replace(path, damaged)
        assert content(folder) == expected
    assert path.read_bytes() == written


def test_every_bit_of_the_end_of_the_index_is_harmless(folder: Path) -> None:
    """The checksum does not cover the sixteen bytes that it stands in."""
    path, expected = folder / "index.bin", TaskData(folder).episodes.tolist()
    written = path.read_bytes()
    for bit in range(8 * (len(written) - 16), 8 * len(written)):
        replace(path, flipped(written, bit))
        assert TaskData(folder).episodes.tolist() == expected


@pytest.mark.parametrize("name", ["episodes", "steps", "tokens", "relabelled"])
def test_a_count_that_disagrees_with_the_shard_is_found(folder: Path, name: str) -> None:
    manifest = Manifest.read(folder)
    setattr(manifest.shards[1], name, getattr(manifest.shards[1], name) + 1)
    manifest.write(folder)
    (problem,) = validate(folder).problems
    assert "shard-00001.tar" in problem and f"{name}, the manifest" in problem


def test_what_a_writer_finds_damaged_is_named(folder: Path) -> None:
    """`collect` goes through the records of what is there before it adds to it."""
    path = folder / "shard-00001.tar"
    written = path.read_bytes()
    member = next(m for m in Manifest.read(folder).shards[1].members if "episodes" in m.name)
    for damaged in (flipped(written, 8 * member.offset), written[:700], b""):
        replace(path, damaged)
        with pytest.raises(GeneralistError, match=r"shard-00001\.tar is damaged"):
            list(Manifest.read(folder).records(folder))
    path.unlink()
    with pytest.raises(GeneralistError, match=r"shard-00001\.tar is damaged"):
        list(Manifest.read(folder).records(folder))


@pytest.mark.parametrize(
    "change",
    [
        {"layout": {}},
        {"layout": []},
        {"layout": {"separator": 1, "fields": []}},
        {"layout": {"separator": 1, "fields": [{"role": "action", "path": [], "start": 0}]}},
        {"vocabulary": {"ranges": [["text", "many"]]}},
        {"vocabulary": {"ranges": 3}},
        {"collection": None},
        {"task": "../../CartPole-v1"},
        {"task": None},
        {"counts": None, "more": 1},
        {"format": 2},
    ],
)
def test_a_header_of_another_form_is_named(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "dataset.json"
    unseal(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(GeneralistError, match=r"dataset\.json"):
        content(folder)
    assert "dataset.json" in validate(folder).problems[0]


def test_a_timestep_of_many_tokens_is_not_allocated(folder: Path) -> None:
    header = DatasetHeader.read(folder)
    codec = {"kind": "text", "shape": [], "dtype": "str", "slot": 10**18, "text_size": 8}
    header.layout["fields"][0]["codec"] = codec
    header.write(folder, {})
    with pytest.raises(GeneralistError, match=r"dataset\.json.*of 100000000000000000\d"):
        content(folder)
