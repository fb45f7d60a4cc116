"""Checksums: of a JSON file by itself, and of a whole folder by its manifest.

A sealed JSON file holds the SHA-256 of its own content under the key `checksum`. `write_folder`
leaves manifest.json, itself sealed, with the size and the SHA-256 of every file beside it.
A flipped bit in any of them is an error that names the file, or it changes no content at all.

A file without the key `checksum` was written by an older version and is read as it is. So a file
of a known form must hold no unknown key: a damaged `checksum` is one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from generalist.errors import GeneralistError

MANIFEST = "manifest.json"
CARD = "README.md"
"""Not in the manifest: evaluation and a push to the Hub write into it later."""
_CHECKSUM = "checksum"
_COMMENT = "# checksum of the lines below, to be removed when they are changed: "


class DamagedFile(GeneralistError):
    """A file that is missing, or was changed since it was written."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(
            f"{path} is damaged: {reason}. Copy it again, or repeat the command that wrote it."
        )


# JSON files


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        GeneralistError: it is missing or no JSON; it is named.
    """
    try:
        return parse_json(path.read_bytes(), path)
    except FileNotFoundError:
        raise GeneralistError(f"{path} does not exist.") from None
    except OSError as error:
        raise GeneralistError(f"{path} cannot be read: {error.strerror}.") from error


def parse_json(content: bytes, path: Path | str) -> Any:
    """The value of JSON bytes.

    Args:
        content: the bytes.
        path: of their file, for errors.

    Raises:
        GeneralistError: they are no JSON, or a key stands twice in an object.
    """
    try:
        return json.loads(content, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise GeneralistError(f"{path} cannot be read as JSON: {error}.") from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError where a key stands twice, of which json would drop the first."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with its checksum as one more key."""
    return {**value, _CHECKSUM: _checksum(value)}


def unsealed(value: Any, path: Path | str) -> dict[str, Any]:
    """The object without its checksum, which is compared; an older file has none.

    Args:
        value: of a JSON file.
        path: of the file, for errors.

    Raises:
        DamagedFile: it is no object, or the checksum is not that of its content.
    """
    if not isinstance(value, dict):
        raise DamagedFile(path, f"it holds a {type(value).__name__}, not an object")
    content = {key: each for key, each in value.items() if key != _CHECKSUM}
    if _CHECKSUM in value and value[_CHECKSUM] != _checksum(content):
        raise DamagedFile(path, "its content does not have the checksum that it states")
    return content


def _checksum(value: dict[str, Any]) -> str:
    """SHA-256 over a JSON object, independent of white space and of the order of keys."""
    as_read = json.loads(json.dumps(value))  # keys that are numbers become words before sorting
    canonical = json.dumps(as_read, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


# YAML files


def sealed_text(text: str) -> str:
    """A text, such as YAML, below a comment that holds its checksum."""
    return f"{_COMMENT}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def check_text(path: Path) -> None:
    """Compare a text with the checksum in its first line, where it has one.

    Raises:
        DamagedFile: the checksum is another, or the file cannot be read.
    """
    try:
        first, _, rest = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise DamagedFile(path, f"it cannot be read ({error.strerror})") from error
    found = first.removeprefix(_COMMENT.encode())
    if found != first and found != hashlib.sha256(rest).hexdigest().encode():
        raise DamagedFile(
            path, "it was changed; if that was on purpose, remove its first line, the checksum"
        )


# Folders


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Make `folder` with the files that `write` puts into it, whole or not at all.

    Args:
        folder: replaced where it exists.
        write: called with an empty folder to fill.

    Raises:
        GeneralistError: the disk is full; an older folder is untouched.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        _write_manifest(temporary)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GeneralistError(
                f"No space left on the disk of {folder.parent}: {folder.name} was not saved, "
                "older checkpoints are untouched. Free some space and run the same command."
            ) from error
        raise
    if folder.exists():
        aside = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)
        os.rename(temporary, folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(temporary, folder)
    _flush(folder.parent)


def verify(folder: Path) -> None:
    """Compare every file of a folder from `write_folder` with the manifest.

    Files that the manifest does not list, such as the card, are not looked at.

    Raises:
        GeneralistError: a file is missing or was changed, perhaps the manifest itself; it is named.
    """
    path = folder / MANIFEST
    manifest = unsealed(read_json(path), path)
    files = manifest.get("files")
    if set(manifest) != {"files"} or not isinstance(files, dict):
        raise DamagedFile(path, "it is no manifest of files")
    for name, expected in files.items():
        if not _is_plain(name):
            raise DamagedFile(path, f"{name!r} is no name of a file within the folder")
        if not isinstance(expected, dict) or set(expected) != {"bytes", "sha256"}:
            raise DamagedFile(path, f"it does not state size and sha256 of {name}")
        _compare(folder / name, expected["bytes"], expected["sha256"])


def _is_plain(name: str) -> bool:
    """Whether a name of a manifest stays within the folder."""
    parts = name.split("/")
    return not {"", ".", ".."} & set(parts) and not set("\\\0") & set(name)


def _compare(path: Path, size_bytes: Any, sha256: Any) -> None:
    """Raise DamagedFile unless a file has this size and this hash."""
    try:
        if not path.is_file():
            raise DamagedFile(path, "it is missing")
        if (found := path.stat().st_size) != size_bytes:
            raise DamagedFile(path, f"it has {found} bytes, not {size_bytes}")
        if _sha256(path) != sha256:
            raise DamagedFile(path, "its sha256 is not that of the manifest")
    except OSError as error:
        raise DamagedFile(path, f"it cannot be read ({error.strerror})") from error


def _write_manifest(folder: Path) -> None:
    """Flush every file below `folder`, then write their sizes and hashes, and flush that."""
    manifest = folder / MANIFEST
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        _flush(path)
        if path.name == CARD or path == manifest:
            continue
        name = PurePosixPath(path.relative_to(folder))
        files[str(name)] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest.write_text(json.dumps(sealed({"files": files}), indent=2) + "\n")
    _flush(manifest)
    _flush(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
