"""Datasets behind a URL: a shard is downloaded into a local folder when it is first needed.

The folder is a dataset folder in which shards may be missing. A missing one is downloaded, compared
with the sha256 of the manifest, and only then renamed to its name. Reading is then as from a disk,
so order, resuming and the search for damage are the same. The least recently used shards are
evicted when the cache is full; it should hold all data, for rows are drawn from all shards.

Any URL that fsspec reads, s3:// gs:// hf:// memory:// file:// and so on; chained ones (`::`) are
refused, because some of what can be chained unpickles what it finds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from generalist.errors import GeneralistError, UsageError, needing
from generalist.integrity import DamagedFile, parse_json, read_json, sealed, unsealed
from generalist.shards.files import replacing, write_json
from generalist.shards.manifest import Manifest

INDEX = "index.bin"
SPEC_FILE = "spec.yaml"
"""What was collected into a root, with the weights of its tasks."""
CACHE = "~/.cache/generalist"
_SOURCE = "remote.json"
_MARK = ".generalist-cache"
"""A file at the head of a cache. It cannot come with a dataset, so a dataset cannot pretend to lie
in a cache and have the shards of others deleted there."""
_LOCK = ".download"
_ATTEMPTS = 2
_DESCRIPTION_BYTES = 2**30  # most that a dataset.json or manifest.json may take
_PIECE_BYTES = 2**20


def is_url(root: str | Path) -> bool:
    """Whether this is a URL and no folder."""
    return "://" in str(root)


@dataclass(frozen=True)
class Remote:
    """The source of a local folder's shards.

    Attributes:
        url: of the dataset folder.
        cache: local folder below which such folders lie.
        cache_bytes: most that all shards below `cache` may take.
    """

    url: str
    cache: str
    cache_bytes: int

    @classmethod
    def of(cls, folder: Path) -> Remote | None:
        """The source of a dataset folder; None for a folder that is complete by itself.

        Raises:
            GeneralistError: the folder lies in no cache that `local_root` made.
        """
        path = folder / _SOURCE
        if not path.exists():
            return None
        try:
            remote = cls(**unsealed(read_json(path), path))
            cache = Path(remote.cache).resolve()
        except (TypeError, ValueError) as error:
            raise DamagedFile(path, f"it names no source ({error})") from error
        own = folder.resolve().is_relative_to(cache) and (cache / _MARK).is_file()
        if not own or type(remote.cache_bytes) is not int or not is_url(remote.url):
            raise GeneralistError(
                f"{path} says that the shards are at {remote.url!r}, but the folder lies in no "
                "cache of this machine. Open the URL itself, or delete this file."
            )
        return remote

    def fetch(self, path: Path, *, size: int, sha256: str) -> str | None:
        """Download a shard to `path`; evicts the least recently used when the cache is full.

        Args:
            path: of the shard in the local folder.
            size: its bytes, by the manifest.
            sha256: its hash, by the manifest.

        Returns:
            None, or the reason why the downloaded shard is not the promised one.

        Raises:
            GeneralistError: it cannot be downloaded, or is larger than the cache.
        """
        with suppress(OSError):
            if path.stat().st_size == size:
                os.utime(path)  # used just now
                return None
        if size > self.cache_bytes:
            raise GeneralistError(
                f"{self.url}/{path.name} has {size:,} bytes by its manifest, more than the cache "
                f"{self.cache} may hold ({self.cache_bytes:,}); raise data.cache_gigabytes."
            )
        with _alone(path.parent):
            if path.exists() and path.stat().st_size == size:
                return None  # another process was faster
            for _ in range(_ATTEMPTS):
                if self._download(path, size=size, sha256=sha256):
                    self._make_room(path)
                    return None
        return f"what {self.url} holds under this name has another sha256 than in the manifest"

    def _download(self, path: Path, *, size: int, sha256: str) -> bool:
        """Download to `path`; returns False, with nothing there, where the content is another."""
        fs, folder = _filesystem(self.url)
        digest, left = hashlib.sha256(), size
        try:
            with replacing(path) as file, fs.open(f"{folder}/{path.name}", "rb") as source:
                while piece := source.read(min(_PIECE_BYTES, left + 1)):
                    left -= len(piece)
                    if left < 0:
                        raise _OtherContent
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
        """Evict the least recently used shards until the rest fits."""
        found = []
        for source in Path(self.cache).rglob(_SOURCE):  # shards without one were not downloaded
            for path in source.parent.glob("shard-*.tar"):
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


def local_root(root: str | Path, *, cache: Path | None, cache_bytes: int) -> Path:
    """`root` itself, or for a URL a local folder with the dataset folders below it.

    Args:
        root: a folder, or a URL that fsspec reads.
        cache: local folder below which such folders lie; None is ~/.cache/generalist.
        cache_bytes: most that all shards below `cache` may take.

    Raises:
        GeneralistError: no dataset is found there, or a name leads elsewhere.
        UsageError: the URL is a chain of filesystems.
    """
    if not is_url(root):
        return Path(root)
    url = str(root).rstrip("/")
    cache = Path(CACHE if cache is None else cache).expanduser().absolute()
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
    targets = {path: _inside(local, path, top).parent for path in headers}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / _MARK).touch()
        if local.exists():
            _drop_others(local, set(targets.values()))
        for path, target in targets.items():
            target.mkdir(parents=True, exist_ok=True)
            source = f"{url}/{target.relative_to(local)}" if target != local else url
            with _alone(target):
                _describe(fs, path.removesuffix("/dataset.json"), target)
                remote = Remote(source, str(cache), cache_bytes)
                write_json(target / _SOURCE, sealed(asdict(remote)))
        with suppress(GeneralistError), _alone(local):  # the tasks' weights, where it has any
            _copy(fs, f"{top}/{SPEC_FILE}", local / SPEC_FILE, _DESCRIPTION_BYTES)
    except OSError as error:
        raise GeneralistError(f"{url} cannot be kept in {local}: {error}.") from error
    return local


def _inside(local: Path, path: str, top: str) -> Path:
    """The local path of a file below `top`; GeneralistError where its name leads elsewhere."""
    parts = path.removeprefix(top).strip("/").split("/")
    strange = {"", ".", ".."} & set(parts) or set("\\\0") & set(path) or "::" in path
    if not path.startswith(top) or path[len(top) : len(top) + 1] not in ("/", "") or strange:
        raise GeneralistError(f"{path!r} is no path below {top!r}.")
    return local.joinpath(*parts)


def _drop_others(local: Path, folders: set[Path]) -> None:
    """Forget dataset folders that are no longer behind the URL."""
    for path in list(local.rglob("dataset.json")):
        if path.parent not in folders:
            shutil.rmtree(path.parent)


def _describe(fs: Any, source: str, target: Path) -> None:
    """Bring what describes a dataset up to date, and drop shards that are others by now."""
    _copy(fs, f"{source}/dataset.json", target / "dataset.json", _DESCRIPTION_BYTES)
    path = target / "manifest.json"
    content = _content(fs, f"{source}/manifest.json", _DESCRIPTION_BYTES)
    if path.exists() and path.read_bytes() == content:
        return
    where = f"{source}/manifest.json"
    manifest = Manifest.from_json(parse_json(content, where), where)
    now = {shard.name: shard.sha256 for shard in manifest.shards}
    before: dict[str, str] = {}
    with suppress(GeneralistError):  # it is not there yet, or damaged
        before = {shard.name: shard.sha256 for shard in Manifest.read(target).shards}
    for shard in target.glob("shard-*.tar"):  # before the manifest, which is always right
        if before.get(shard.name, "") != now.get(shard.name):
            shard.unlink()
    with suppress(GeneralistError):  # else it is made here, from all shards
        _copy(fs, f"{source}/{INDEX}", target / INDEX)
    with replacing(path) as file:
        file.write(content)


def _copy(fs: Any, source: str, target: Path, most: int | None = None) -> None:
    """Download a file in pieces; GeneralistError where it is not there or has over `most` bytes."""
    with replacing(target) as file:
        for piece in _pieces(fs, source, most):
            file.write(piece)


def _content(fs: Any, source: str, most: int) -> bytes:
    """A file of at most `most` bytes; GeneralistError where it cannot be read."""
    return b"".join(_pieces(fs, source, most))


def _pieces(fs: Any, source: str, most: int | None) -> Iterator[bytes]:
    """The bytes of a file, some at a time."""
    found = 0
    try:
        with fs.open(source, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                found += len(piece)
                if most is not None and found > most:
                    raise GeneralistError(f"{source} has more than {most:,} bytes; it is left out.")
                yield piece
    except (OSError, ValueError) as error:
        raise GeneralistError(f"{source} cannot be read: {error}.") from error


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
    """Hold a folder's downloads against other processes, which then find the file there."""
    with open(folder / _LOCK, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
