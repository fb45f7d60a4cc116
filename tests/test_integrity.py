"""Checksums find every flipped bit, and a manifest names no file outside its folder."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.errors import GeneralistError
from generalist.integrity import (
    MANIFEST,
    parse_json,
    read_json,
    sealed,
    unsealed,
    verify,
    write_folder,
)
from tests.bits import every_bit, flipped

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "checksum"), JSON, max_size=4))
def test_a_sealed_object_comes_back(value: dict[str, Any]) -> None:
    again = parse_json(json.dumps(sealed(value), indent=1).encode(), "a.json")
    assert unsealed(again, "a.json") == value


@given(
    st.dictionaries(st.sampled_from(["a", "ab", "ä", "1"]), JSON, min_size=1, max_size=3), st.data()
)
def test_a_flipped_bit_of_a_sealed_file_is_named_or_harmless(value, data) -> None:
    content = json.dumps(sealed(value), indent=1, ensure_ascii=False).encode()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    try:
        found = unsealed(parse_json(flipped(content, bit), "a.json"), "a.json")
    except GeneralistError as error:
        assert "a.json" in str(error)
    else:
        # A damaged key `checksum` is an unknown key, which the file's reader refuses.
        assert found == value or found.keys() - value.keys()


@pytest.mark.parametrize(
    "content",
    ["", "{", "\xff", "[" * 100_000, '{"a": 1, "a": 2}', "9" * 5000],
    ids=["empty", "cut", "no-text", "deep", "key-twice", "huge-number"],
)
def test_what_is_no_json_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(GeneralistError, match=r"a\.json cannot be read as JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(GeneralistError, match=r"b\.json does not exist"):
        read_json(tmp_path / "b.json")


def test_what_is_no_object_is_named() -> None:
    with pytest.raises(GeneralistError, match="a.json is damaged: it holds a list"):
        unsealed([], "a.json")
    with pytest.raises(GeneralistError, match="a.json is damaged.*checksum"):
        unsealed({**sealed({"a": 1}), "a": 2}, "a.json")
    assert unsealed({"a": 1}, "of an older version") == {"a": 1}


# Folders


def two_files(folder: Path) -> None:
    (folder / "own").mkdir()
    (folder / "own" / "a.json").write_text('{"a": 1}')
    (folder / "weights.bin").write_bytes(bytes(range(64)))
    (folder / "README.md").write_text("no scores")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "folder", two_files)
    return tmp_path / "folder"


def problems(folder: Path, name: str) -> Iterator[str | None]:
    """What `verify` says for each flipped bit of a file; None for nothing."""
    path = folder / name
    content = path.read_bytes()
    for damaged in every_bit(content):
        path.write_bytes(damaged)
        try:
            verify(folder)
        except GeneralistError as error:
            yield str(error)
        else:
            yield None
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["own/a.json", "weights.bin"])
def test_every_flipped_bit_of_every_file_is_found(folder: Path, name: str) -> None:
    verify(folder)
    found = list(problems(folder, name))
    assert None not in found and all(str(folder / name) in each for each in found)
    verify(folder)


@pytest.mark.parametrize("old", [False, True])
def test_every_flipped_bit_of_a_manifest_is_found_or_in_its_white_space(
    folder: Path, old: bool
) -> None:
    path = folder / MANIFEST
    if old:  # of a version that wrote no checksum
        manifest = json.loads(path.read_text())
        del manifest["checksum"]
        path.write_text(json.dumps(manifest, indent=2))
        verify(folder)
    content = path.read_bytes()
    for damaged, problem in zip(every_bit(content), problems(folder, MANIFEST), strict=True):
        if problem is None:
            assert json.loads(damaged) == json.loads(content)
        else:
            assert str(folder) in problem


def test_a_file_that_is_missing_or_has_another_size_is_named(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"1234")
    with pytest.raises(GeneralistError, match="weights.bin is damaged: it has 4 bytes, not 64"):
        verify(folder)
    (folder / "weights.bin").unlink()
    with pytest.raises(GeneralistError, match="weights.bin is damaged: it is missing"):
        verify(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(GeneralistError, match="manifest.json does not exist"):
        verify(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "own/../../secret", "", ".", "own//a", "a\\b", "a\0b"]
)
def test_a_manifest_names_nothing_outside_its_folder(folder: Path, name: str) -> None:
    entry = {"bytes": 1, "sha256": "0" * 64}
    (folder / MANIFEST).write_text(json.dumps(sealed({"files": {name: entry}})))
    with pytest.raises(GeneralistError, match="is no name of a file within the folder"):
        verify(folder)


@pytest.mark.parametrize(
    "files",
    [None, [], {"a": None}, {"a": {"bytes": 1}}, {"weights.bin": {"bytes": 1, "sha256": 1}}],
)
def test_a_manifest_of_another_form_is_refused(folder: Path, files: Any) -> None:
    for manifest in ({"files": files}, {"files": {}, "more": 1}):
        (folder / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(GeneralistError, match="is damaged"):
            verify(folder)


def test_a_promise_of_many_bytes_is_only_compared(folder: Path) -> None:
    entry = {"bytes": 10**18, "sha256": "0" * 64}
    (folder / MANIFEST).write_text(json.dumps(sealed({"files": {"weights.bin": entry}})))
    with pytest.raises(GeneralistError, match="it has 64 bytes, not 1000000000000000000"):
        verify(folder)


def test_a_full_disk_is_one_sentence_and_keeps_the_older_folder(tmp_path: Path) -> None:
    folder = tmp_path / "step-00000001"
    write_folder(folder, lambda target: (target / "a").write_text("old"))

    def full(target: Path) -> None:
        (target / "a").write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(GeneralistError, match="No space left.*same command"):
        write_folder(folder, full)
    assert (folder / "a").read_text() == "old"
    assert os.listdir(tmp_path) == [folder.name]


def test_the_card_may_change(folder: Path) -> None:
    (folder / "README.md").write_text("scores")
    (folder / "report.html").write_text("<p>not of the manifest</p>")
    verify(folder)
