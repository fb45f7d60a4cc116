"""How much memory reading and collecting take, and that it does not grow with the data.

    python -m benchmarks.memory data/quickstart --gigabytes 100 --episodes 12

Reading (`--gigabytes`): what processes of their own gain when they open, read through and pack
windows of the data made that large: episodes of a task again and again until a shard is full, and
that shard under as many names as it takes. Once with a hundredth of it, to see what grows.
private is memory of the process; mapped are pages of files, which the system keeps anyway and takes
back when it needs room. Peaks, looked at after every block or batch.

Collecting (`--episodes`): one task is collected by two processes, and every process is looked at
ten times a second: its most private memory in the first half of the episodes and in the second.
Episodes of a game (`--task`) are long, and a second of it is frames of a megabyte.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from os import getpid, sysconf
from pathlib import Path

import numpy as np

from benchmarks.measure import alone, print_table, screen, write_json
from generalist.collecting.collect import collect
from generalist.shards.manifest import Manifest, ShardEntry
from generalist.shards.reader import TaskData, dataset_folders
from generalist.shards.shards import SHARD_TOKENS, EncodedEpisode, ShardWriter
from generalist.training.data import open_data
from generalist.training.recipe import DataRecipe, Recipe
from generalist.windows.mixture import open_mixture
from generalist.windows.spec import dataset_spec

WINDOWS_AT_ONCE = 64


@dataclass
class Memory:
    """What data of a size take: seconds, and MiB that a process gains at its peak."""

    gigabytes: float
    shards: int
    episodes: int
    index_seconds: float  # the first opening, which makes the index
    index_private: float
    opening_seconds: float  # any later one
    opening_private: float
    reading_private: float  # each block verified, and each row of it copied
    reading_mapped: float
    windows_private: float
    windows_mapped: float
    windows_per_second: float


class Peak:
    """The most memory this process was seen to gain since it was made."""

    def __init__(self) -> None:
        self._before = self._most = resident()

    def look(self) -> None:
        """See how much there is now."""
        self._most = np.maximum(self._most, resident())

    @property
    def gained(self) -> tuple[float, float]:
        """MiB of the process itself, and of mapped files."""
        self.look()
        private, mapped = (self._most - self._before).tolist()
        return private, mapped


def resident(process: int | str = "self") -> np.ndarray:
    """(2,) MiB of a process in memory: its own, and pages of mapped files."""
    pages = list(map(int, Path(f"/proc/{process}/statm").read_text().split()))
    return np.array([pages[1] - pages[2], pages[2]]) * sysconf("SC_PAGE_SIZE") / 2**20


def timed_opening(root: Path) -> tuple[list[TaskData], float, float]:
    """The tasks below a folder, the seconds that opening them took, and the private MiB."""
    peak, start = Peak(), time.perf_counter()
    tasks = open_mixture(root).tasks
    return tasks, time.perf_counter() - start, peak.gained[0]


def make_index(root: Path) -> tuple[float, float]:
    """Seconds and private MiB of the first opening."""
    return timed_opening(root)[1:]


def open_and_read(root: Path, window: int) -> tuple[float, ...]:
    """Open a folder again and copy each row of it once: seconds, and MiB as in Memory."""
    tasks, seconds, opening = timed_opening(root)
    peak = Peak()
    row = np.empty(window, tasks[0].vocabulary.dtype)
    for data in tasks:
        for sample in data.samples:
            tokens = sample.tokens
            for start in range(0, len(tokens) - window + 1, window):
                row[:] = tokens[start : start + window]
            peak.look()
    return seconds, opening, *peak.gained


def pack(root: Path, window: int, count: int) -> tuple[float, ...]:
    """Make training's windows: MiB of its own and of files, and windows a second."""
    windows = open_data(Recipe(data=DataRecipe(root=root, window_tokens=window))).windows
    peak, began = Peak(), time.perf_counter()
    for start in range(0, count, WINDOWS_AT_ONCE):
        windows.batch(start, WINDOWS_AT_ONCE)
        peak.look()
    return *peak.gained, count / (time.perf_counter() - began)


def fill_shards(root: Path, folder: Path, shard_tokens: int) -> Path:
    """`folder` with one full shard of each task, of its episodes again and again."""
    for source in dataset_folders(root):
        data = TaskData(source)
        target, size = folder / source.relative_to(root), {"shard_tokens": shard_tokens}
        with ShardWriter(target, data.header, **size) as writer:
            written = 0
            for number in itertools.cycle(range(len(data))):
                record = {k: v for k, v in data.record(number).items() if k != "offset"}
                tokens = data.tokens(number)
                written += len(tokens)
                parts = tokens, data.rewards(number), data.labels(number)
                writer.add(EncodedEpisode(*parts, record))
                if written >= shard_tokens:
                    break
    return folder


def enlarge(root: Path, folder: Path, times: int) -> Path:
    """`folder` as a copy of `root` with each shard `times` times, by links that take no room."""
    for source in dataset_folders(root):
        target = folder / source.relative_to(root)
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "dataset.json", target)
        shards: list[ShardEntry] = []
        for entry in Manifest.read(source).shards:
            for _ in range(times):
                name = f"shard-{len(shards):05d}.tar"
                (target / name).symlink_to((source / entry.name).resolve())
                shards.append(replace(entry, name=name))
        Manifest(shards).write(target)
    return folder


def measure_memory(
    root: Path, window: int, gigabytes: Sequence[float], rows: int, folder: Path
) -> list[Memory]:
    """Memory for each size of the data, in fresh processes: freed memory is used again."""
    full = fill_shards(root, folder / "full", SHARD_TOKENS)
    entries = [entry for each in dataset_folders(full) for entry in Manifest.read(each).shards]
    found = []
    for size in gigabytes:
        times = max(1, round(size * 1e9 / sum(entry.bytes for entry in entries)))
        large = enlarge(full, folder / f"times-{times}", times)
        index = alone(make_index, large)
        read = alone(open_and_read, large, window)
        packed = alone(pack, large, window, rows)
        total = times * sum(entry.bytes for entry in entries) / 1e9
        episodes = times * sum(entry.episodes for entry in entries)
        found.append(Memory(total, times * len(entries), episodes, *index, *read, *packed))
    return found


@dataclass
class Collecting:
    """The most private MiB of a process, in the first half of the episodes and in the second."""

    process: str
    first_half: float
    second_half: float


class Watch(threading.Thread):
    """Looks at the private memory of this process and all below it, ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most: dict[int, list[float]] = {}
        self.half = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Look until it is ended."""
        while not self.ended.wait(0.1):
            for process in family(getpid()):
                try:
                    now = float(resident(process)[0])
                except (FileNotFoundError, ProcessLookupError):
                    continue
                halves = self.most.setdefault(process, [0.0, 0.0])
                halves[self.half] = max(halves[self.half], now)


def family(process: int) -> list[int]:
    """A process and all below it."""
    found = [process]
    for each in found:
        for thread in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, thread.read_text().split())
            except OSError:
                continue  # it has just ended
    return found


def measure_collecting(task: str, episodes: int, folder: Path) -> list[Collecting]:
    """Collect episodes of a task with two processes, and watch."""
    spec = dataset_spec({"noise": 0.2, "tasks": [{"task": task, "episodes": episodes}]})
    watch = Watch()
    watch.start()

    def on_progress(task: str, done: int, total: int) -> None:
        watch.half = int(2 * done > total)

    report = collect(spec, folder, workers=2, progress=False, on_progress=on_progress)
    watch.ended.set()
    watch.join()
    if report.failures:
        raise RuntimeError(report.failures[0])
    names = {getpid(): "writes"}
    return [
        Collecting(names.get(process, f"process {number}"), *halves)
        for number, (process, halves) in enumerate(sorted(watch.most.items()))
        if halves[1]
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure what was asked for, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("data", type=Path, help="a folder of shards")
    parser.add_argument("--gigabytes", type=float, default=0, help="size of the data to be read")
    parser.add_argument("--window", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=16384, help="windows that are packed")
    parser.add_argument("--episodes", type=int, default=0, help="to be collected")
    parser.add_argument("--task", default="atari/Pong", help="of which they are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as JSON")
    given = parser.parse_args(arguments)
    console, memory, collecting = screen(), [], []
    with tempfile.TemporaryDirectory() as name:
        if given.gigabytes:
            sizes = [given.gigabytes / 100, given.gigabytes]
            memory = measure_memory(given.data, given.window, sizes, given.rows, Path(name))
            columns = [f"{each.gigabytes:.4g} GB" for each in memory]
            names = [item.name for item in fields(Memory)][1:]
            rows = [(item, *(getattr(each, item) for each in memory)) for item in names]
            print_table(console, "reading: seconds, and MiB gained", ["", *columns], rows)
        if given.episodes:
            folder = Path(name) / "collected"
            collecting = alone(measure_collecting, given.task, given.episodes, folder)
            title = f"collecting {given.episodes} episodes of {given.task}: private MiB at most"
            columns = ["", "first half", "second half"]
            print_table(console, title, columns, [tuple(asdict(c).values()) for c in collecting])
    result = {"reading": [asdict(each) for each in memory]}
    write_json(given.json, {**result, "collecting": [asdict(each) for each in collecting]})


if __name__ == "__main__":
    main()
