"""Files that are either there in full or not at all, and disk errors said in words."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Any

from generalist.errors import GeneralistError
from generalist.integrity import read_json as read_json

PARTIAL = ".partial"
"""Suffix of a file being written; one that is found later was left by an interrupted run."""

_FULL = {errno.ENOSPC: "no space is left", errno.EDQUOT: "the quota is used up"}
_FULL[errno.EFBIG] = "the file size limit is reached"


class DiskFull(GeneralistError):
    """There was no room for a file; the one that stood in its place before is still there."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BufferedRandom]:
    """Open a binary file that takes the place of `path` only when all of it is on the disk.

    A link that stands at `path` or at its temporary name is replaced, never written through.

    Raises:
        DiskFull: there is no room; the file that stood at `path` before is still there.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        partial.unlink(missing_ok=True)
        with open(partial, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno in _FULL:
            raise DiskFull(
                f"Could not write {path}: {_FULL[error.errno]}. What was finished before is kept; "
                "make room and run the same command again to continue."
            ) from error
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one piece (see `replacing`)."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with replacing(path) as file:
        file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` against a second writer; the lock goes with the process, however it ends.

    Raises:
        GeneralistError: another process holds it, or it cannot be locked.
    """
    path = folder / ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise GeneralistError(f"{path} cannot be opened: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise GeneralistError(
                f"Another process is writing to {folder}; wait for it or choose another folder."
            ) from None
        yield
    finally:
        os.close(descriptor)
