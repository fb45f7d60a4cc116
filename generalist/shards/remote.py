"""Datasets behind a URL: their shards come into a local folder one by one, when they are needed.

The folder holds what a dataset folder holds, but of the shards only some: one that is missing is
downloaded, compared with the sha256 of the manifest, and only then there under its name. Reading is
then as from a disk, so order, resuming and the search for damage are the same. Where the folder
grows too large, the shards that were used longest ago go. What it grows to should hold the data:
rows are drawn from all of them.

Any URL that fsspec reads, s3:// gs:// hf:// memory:// file:// and so on; chained ones (`::`) are
refused, because some of what can be chained unpickles what it finds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from generalist.errors import GeneralistError, UsageError, needing
from generalist.shards.files import read_json, replacing, write_json
from generalist.shards.manifest import Manifest

INDEX = "index.bin"
CACHE = "~/.cache/generalist"
_SOURCE = "remote.json"
_LOCK = ".download"
_ATTEMPTS = 2


def is_url(root: str | Path) -> bool:
    """Whether this is a URL and no folder."""
    return "://" in str(root)


@dataclass(frozen=True)
class Remote:
    """Where the shards of a local folder come from, and what all below `cache` may take."""

    url: str
    cache: str
    cache_bytes: int

    @classmethod
    def of(cls, folder: Path) -> Remote | None:
        """Source of a dataset folder; None for one that has no other."""
        path = folder / _SOURCE
        return cls(**read_json(path)) if path.exists() else None

    def fetch(self, path: Path, size: int, sha256: str) -> str | None:
        """Have a shard at `path`, and let go of others for it; else say what is wrong with it.

        Raises GeneralistError where it cannot be had at all.
        """
        with suppress(OSError):
            if path.stat().st_size == size:
                os.utime(path)  # used just now
                return None
        with _alone(path.parent):
            if path.exists() and path.stat().st_size == size:
                return None  # another process was faster
            for _ in range(_ATTEMPTS):
                if self._download(path, sha256):
                    self._make_room(path)
                    return None
        return f"what {self.url} holds under this name has another sha256 than in the manifest"

    def _download(self, path: Path, sha256: str) -> bool:
        """Whether what came is what was promised; only then it is at `path`."""
        fs, folder = _filesystem(self.url)
        digest = hashlib.sha256()
        try:
            with replacing(path) as file, fs.open(f"{folder}/{path.name}", "rb") as source:
                while piece := source.read(2**20):
                    digest.update(piece)
                    file.write(piece)
                if digest.hexdigest() != sha256:
                    raise _OtherContent
        except _OtherContent:
            return False
        except (OSError, ValueError) as error:
            raise GeneralistError(
                f"{self.url}/{path.name} could not be downloaded: {error}. Run the same command "
                "again to go on."
            ) from error
        return True

    def _make_room(self, newest: Path) -> None:
        """Delete the shards that were used longest ago, until all of them fit."""
        found = []
        for path in Path(self.cache).rglob("shard-*.tar"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.cache_bytes:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


class _OtherContent(Exception):
    """The bytes are not those of the manifest; `replacing` drops them."""


def local_root(root: str | Path, cache: Path | None, cache_bytes: int) -> Path:
    """`root`, or where it is a URL a local folder of the dataset folders below it.

    cache: where such folders lie; None is ~/.cache/generalist.

    Raises GeneralistError where no dataset can be found there.
    """
    if not is_url(root):
        return Path(root)
    url = str(root).rstrip("/")
    cache = Path(CACHE if cache is None else cache).expanduser()
    local = cache / hashlib.sha256(url.encode()).hexdigest()[:16]
    fs, top = _filesystem(url)
    try:
        fs.invalidate_cache()
        headers = sorted(path for path in fs.find(top) if path.endswith("/dataset.json"))
    except (OSError, ValueError) as error:
        raise GeneralistError(f"{url} cannot be read: {error}.") from error
    if not headers:
        raise GeneralistError(f"{url} holds no dataset (no dataset.json below it).")
    top = str(fs._strip_protocol(top)).rstrip("/")  # as the filesystem lists what is below it
    if local.exists():
        _drop_others(local, {_inside(local, path, top).parent for path in headers})
    for path in headers:
        target = _inside(local, path, top).parent
        target.mkdir(parents=True, exist_ok=True)
        source = f"{url}/{target.relative_to(local)}" if target != local else url
        with _alone(target):
            _describe(fs, path.removesuffix("/dataset.json"), target)
            write_json(target / _SOURCE, asdict(Remote(source, str(cache), cache_bytes)))
    with suppress(GeneralistError):  # the weights of its tasks, where it has any
        spec = _content(fs, f"{top}/spec.yaml")
        with replacing(local / "spec.yaml") as file:
            file.write(spec)
    return local


def _inside(local: Path, path: str, top: str) -> Path:
    """Local place of a file below `top`; raises GeneralistError where its name leads elsewhere."""
    parts = path.removeprefix(top).strip("/").split("/")
    if not path.startswith(top) or ".." in parts:
        raise GeneralistError(f"{path!r} is no path below {top!r}.")
    return local.joinpath(*parts)


def _drop_others(local: Path, folders: set[Path]) -> None:
    """Forget dataset folders that are no longer behind the URL."""
    for path in list(local.rglob("dataset.json")):
        if path.parent not in folders:
            shutil.rmtree(path.parent)


def _describe(fs: Any, source: str, target: Path) -> None:
    """Bring what describes a dataset up to date, and drop shards that are others by now."""
    with replacing(target / "dataset.json") as file:
        file.write(_content(fs, f"{source}/dataset.json"))
    content = _content(fs, f"{source}/manifest.json")
    path = target / "manifest.json"
    if path.exists() and path.read_bytes() == content:
        return
    now = Manifest.from_json(json.loads(content), f"{source}/manifest.json").shards
    before = Manifest.read(target).shards if path.exists() else []
    for entry in before:  # before the manifest: what is there is always what it says
        if (entry.name, entry.sha256) not in {(each.name, each.sha256) for each in now}:
            (target / entry.name).unlink(missing_ok=True)
    with suppress(GeneralistError):  # else it is made here, from all shards
        index = _content(fs, f"{source}/{INDEX}")
        with replacing(target / INDEX) as file:
            file.write(index)
    with replacing(path) as file:
        file.write(content)


def _content(fs: Any, path: str) -> bytes:
    """A small file; GeneralistError where it cannot be read."""
    try:
        return fs.cat_file(path)
    except (OSError, ValueError) as error:
        raise GeneralistError(f"{path} cannot be read: {error}.") from error


def _filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a URL, and the path within it."""
    with needing("Reading from a remote folder"):
        import fsspec

    if "::" in url:
        raise UsageError(f"{url!r} is a chain of filesystems; give one plain URL.")
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise GeneralistError(f"{url} cannot be read: {error}") from error
    return fs, str(path).rstrip("/")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder's downloads against other processes, which then find what came."""
    with open(folder / _LOCK, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
