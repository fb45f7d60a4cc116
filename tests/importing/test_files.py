"""In which order files are read, and what is said of those that cannot be."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.errors import GeneralistError
from generalist.importing.files import (
    check_it_is_there,
    files_below,
    in_natural_order,
    order_facts,
    what_it_is,
)


@given(st.lists(st.integers(0, 10**6), unique=True), st.sampled_from(["part-{}", "{}", "a{}b"]))
def test_numbers_in_names_are_numbers(numbers: list[int], name: str) -> None:
    paths = [
        Path("data", name.format(number)).with_suffix(".parquet") for number in sorted(numbers)
    ]
    shuffled = random.Random(0).sample(paths, len(paths))
    assert in_natural_order(shuffled) == paths


@given(st.lists(st.text("ab1203-_/²", min_size=1), unique=True))
def test_the_order_is_one_of_whatever_names(names: list[str]) -> None:
    paths = list({Path(name) for name in names})
    ordered = in_natural_order(paths)
    assert sorted(ordered) == sorted(paths)
    assert in_natural_order(reversed(ordered)) == ordered


def test_leading_zeros_and_folders() -> None:
    names = ["a/part-2", "a/part-10", "b/1", "b/01", "b/002", "b/2"]
    ordered = [str(path) for path in in_natural_order(map(Path, reversed(names)))]
    assert ordered == ["a/part-2", "a/part-10", "b/01", "b/1", "b/002", "b/2"]


def test_an_order_other_than_that_of_words_is_stated() -> None:
    assert order_facts([Path("part-1"), Path("part-2")]) == {}
    assert order_facts([Path("part-2"), Path("part-10")]) == {"order": "natural"}


def test_links_are_followed_once_and_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    (data / ".cache").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (data / "a.txt", data / "._a.txt", data / ".cache" / "b.txt", elsewhere / "c.txt"):
        path.write_text("text")
    (data / "note.md").write_text("text")
    (data / "more").symlink_to(elsewhere)
    (data / "loop").symlink_to(data)
    (data / "gone.txt").symlink_to(tmp_path / "nothing")
    found = [path.relative_to(data).as_posix() for path in files_below(data, "*.txt")]
    assert found == ["a.txt", "more/c.txt"]
    assert files_below(data, "**/*.txt") == files_below(data, "*.txt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"PAR1" + bytes(100), "a parquet file that was cut short"),
        (b"PAR1" + bytes(100) + b"PAR1", "a damaged parquet file"),
        (b"PARE" + bytes(100) + b"PARE", "an encrypted parquet file"),
        (gzip.compress(b"text", mtime=0), "compressed by gzip"),
        (b"PK\x03\x04...", "a zip archive"),
        (b"<!DOCTYPE html><html>", "a web page"),
        ("text".encode("utf-16"), "UTF-16 text"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"some text", "of another kind"),
    ],
)
def test_what_a_file_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert words in what_it_is(path)


def test_files_that_are_not_there_in_full(tmp_path: Path) -> None:
    with pytest.raises(GeneralistError, match="nothing does not exist"):
        check_it_is_there(tmp_path / "nothing")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(GeneralistError, match="pointer is a Git LFS pointer.*git lfs pull"):
        check_it_is_there(tmp_path / "pointer")
    (tmp_path / "file").write_text("{}")
    check_it_is_there(tmp_path / "file")
