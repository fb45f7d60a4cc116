"""Files of a source: in which order they are read, and what a file is that cannot be read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from generalist.errors import GeneralistError

PARQUET = b"PAR1"  # a parquet file begins and ends with it
_HEAD_BYTES = 64
EMPTY = "is empty"
LFS_POINTER = "is a Git LFS pointer, not the file itself: run `git lfs pull`"
UNKNOWN = "is of another kind"
# The first bytes of what is often found in place of a file, what it is, and what to do about it.
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", LFS_POINTER),
    (b"PARE", "is an encrypted parquet file, which is not opened: export it without encryption"),
    (b"\x89HDF", "is an HDF5 file"),
    (b"ARROW1", "is an Arrow file"),
    (b"\x1f\x8b", "is compressed by gzip: unpack it first"),
    (b"PK\x03\x04", "is a zip archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd: unpack it first"),
    (b"BZh", "is compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "is compressed by xz: unpack it first"),
    (b"\xff\xfe", "is UTF-16 text: convert it to UTF-8 (iconv -f utf-16 -t utf-8)"),
    (b"\xfe\xff", "is UTF-16 text: convert it to UTF-8 (iconv -f utf-16 -t utf-8)"),
    (b"<!doctype html", "is a web page, perhaps the answer to a download that failed"),
    (b"<html", "is a web page, perhaps the answer to a download that failed"),
)


def in_natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sort paths with the numbers in them as numbers: part-2 before part-10."""
    return sorted(paths, key=lambda path: [_pieces(part) for part in path.parts])


def _pieces(name: str) -> tuple[list[str | int], str]:
    # Splitting by a group alternates text and digits, so only like is compared with like.
    pieces = re.split(r"([0-9]+)", name)
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def order_facts(files: Sequence[Path]) -> dict[str, str]:
    """State the order in a dataset's header where it is not that of the names as words.

    Versions that read files in that order must not continue in this one, nor the other way round.
    """
    return {} if list(files) == sorted(files) else {"order": "natural"}


def files_below(folder: Path, pattern: str) -> list[Path]:
    """List the files below a folder whose names match, in natural order.

    Linked folders are followed, each folder once; what a leading dot hides is left out.
    """
    pattern = pattern.removeprefix("**/")
    found: list[Path] = []
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(root)
        if here in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(here)
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = (Path(root, name) for name in names if not name.startswith("."))
        found += [path for path in below if path.relative_to(folder).match(pattern)]
    return in_natural_order(path for path in found if path.is_file())


def what_it_is(path: Path) -> str:
    """Say in half a sentence what a file is that is not what it should be: `is empty`."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(PARQUET)))
            tail = file.read()
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if not size:
        return EMPTY
    if head.startswith(PARQUET):
        if tail == PARQUET and size > 2 * len(PARQUET):
            return "is a damaged parquet file: download it again"
        return "is a parquet file that was cut short: download it again"
    for start, kind in _KINDS:
        if head.lower().startswith(start.lower()):
            return kind
    return UNKNOWN


def check_it_is_there(path: Path) -> None:
    """Raise GeneralistError for a Git LFS pointer, an empty file or one that is not there."""
    if not path.is_file():
        raise GeneralistError(f"{path} does not exist.")
    kind = what_it_is(path)
    if kind in (EMPTY, LFS_POINTER):
        raise GeneralistError(f"{path} {kind}.")
