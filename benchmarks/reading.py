"""How fast rows of tokens come from a collected folder, and how much memory that takes.

A row is 1,024 tokens (`--window`) that stand together in a block of a shard. All subjects deliver
the same rows in the same random order, each row as a copy into one array, which is checked:

    python -m benchmarks.reading data/quickstart

reader: our shards by memory map, blocks verified when first used, a row found by its number.
memmap: `np.memmap` over a flat file of these rows and nothing else; no shards, no checksums.
webdataset: a tar with one `.npy` a row, through `.decode()`. Its tar is written in the order that
    is asked for, so it need not shuffle and reads straight on.
windows: what training reads: rows of headers and timesteps, packed, with positions, targets and
    tasks. These are other rows, made of several stretches each; a row is checked to be a function
    of its number alone.

What is written stands in a temporary folder and in the page cache, as the data do after the
warm-up: disks are not measured.

Memory: what a process of its own gains when it opens the folder and then reads every row of it
once, for the folder as it is and for one `--repeat` times as large (the same shards under several
names). private is memory of the process; mapped are pages of the files, which the system keeps
anyway and takes back when it needs room.

Legend: R = rows of a call, L = tokens of a row.
"""

from __future__ import annotations

import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from itertools import accumulate
from multiprocessing import get_context
from os import sysconf
from pathlib import Path

import numpy as np
import torch
import webdataset
from rich.console import Console

from benchmarks.measure import (
    Rate,
    interleaved,
    print_facts,
    print_rates,
    print_table,
    rates,
    timing_parser,
    write_json,
)
from generalist.data.manifest import Manifest
from generalist.data.mixture import open_mixture
from generalist.data.reader import TaskData, dataset_folders
from generalist.data.shards import npy_bytes
from generalist.training.data import open_data
from generalist.training.recipe import DataRecipe, Recipe

WINDOWS_AT_ONCE = 64  # rows of a batch, so that its arrays stay small as in training

Source = Callable[[], Iterable[np.ndarray]]  # R rows (L,), anew at each call


class Rows:
    """The rows of some tasks' blocks, by number: (L,) views of the mapped files."""

    def __init__(self, tasks: Sequence[TaskData], window: int) -> None:
        self.window, self.dtype = window, tasks[0].vocabulary.dtype
        self._blocks = [sample for data in tasks for sample in data.samples]
        counts = [len(block.tokens) // window for block in self._blocks]
        self._first = [0, *accumulate(counts)]  # number of each block's first row, and the end

    def __len__(self) -> int:
        return self._first[-1]

    def __getitem__(self, number: int) -> np.ndarray:
        block = bisect_right(self._first, number) - 1
        start = (number - self._first[block]) * self.window
        return self._blocks[block].tokens[start : start + self.window]


def draw(rows: int, count: int, seed: int) -> list[int]:
    """`count` different numbers below `rows` (all of them where that is fewer), shuffled."""
    return np.random.default_rng(seed).permutation(rows)[:count].tolist()


def memmap_source(rows: Rows, order: list[int], path: Path) -> Source:
    """Write the rows as a flat file, in the order they have in the data, and map it."""
    stored = sorted(order)
    with open(path, "wb") as file:
        for number in stored:
            file.write(rows[number].tobytes())
    # As a plain array: slices of np.memmap's own class are slower, which is not the point here.
    flat = np.asarray(np.memmap(path, rows.dtype, mode="r"))
    starts = (np.searchsorted(stored, order) * rows.window).tolist()
    return lambda: (flat[start : start + rows.window] for start in starts)


def webdataset_source(rows: Rows, order: list[int], path: Path) -> Source:
    """Write the rows as a tar of one `.npy` each, in the order asked for, and read it."""
    with webdataset.TarWriter(str(path), encoder=False) as tar:
        for place, number in enumerate(order):
            tar.write({"__key__": f"{place:08d}", "npy": npy_bytes(rows[number])})
    dataset = webdataset.WebDataset(str(path), shardshuffle=False).decode()
    return lambda: (sample["npy"] for sample in dataset)


def deliver(source: Source, out: np.ndarray) -> np.ndarray:
    """Copy a source's rows into `out` (R, L), where the next call will put them again."""
    for place, row in enumerate(source()):
        out[place] = row
    return out


def windows_source(root: Path, window: int, count: int) -> Source:
    """The ids of training's own windows 0 to `count` - 1, made with all that belongs to them."""
    windows = open_data(Recipe(data=DataRecipe(root=root, window_tokens=window))).windows

    def source() -> Iterator[np.ndarray]:
        for start in range(0, count, WINDOWS_AT_ONCE):
            yield from windows.batch(start, min(WINDOWS_AT_ONCE, count - start)).input_ids

    alone = {n: windows.batch(n, 1).input_ids[0] for n in range(0, count, max(1, count // 8))}
    for number, row in enumerate(source()):
        if number in alone:
            check("windows", row, alone[number])
    return source


def check(name: str, delivered: np.ndarray, expected: np.ndarray) -> None:
    """Raise RuntimeError where a subject does not deliver the rows that it should."""
    if not np.array_equal(delivered, expected):
        raise RuntimeError(f"{name} does not deliver the rows it was asked for; times are void.")


def measure(root: Path, window: int, count: int, rounds: int, folder: Path) -> dict[str, Rate]:
    """Rates of all subjects, in rows a second, on at most `count` rows; writes into `folder`."""
    rows = Rows(open_mixture(root).tasks, window)
    order = draw(len(rows), count, seed=0)
    if not order:
        raise SystemExit(f"{root} holds no block of {window} tokens; choose a smaller --window.")
    sources: dict[str, Source] = {
        "reader": lambda: (rows[number] for number in order),
        "memmap": memmap_source(rows, order, folder / "rows.bin"),
        "webdataset": webdataset_source(rows, order, folder / "rows.tar"),
    }
    expected = np.stack([rows[number] for number in order])
    out = np.empty_like(expected)
    for name, source in sources.items():
        out[:] = 0
        check(name, deliver(source, out), expected)
    sources["windows"] = windows_source(root, window, len(order))
    calls = {name: partial(deliver, source, out) for name, source in sources.items()}
    return rates(interleaved(calls, rounds), len(order))


@dataclass
class Memory:
    """What reading a folder through takes, in MiB gained by the process."""

    times: int  # how often the folder's shards are there
    tokens: int
    opening_private: float
    reading_private: float
    reading_mapped: float


def resident() -> np.ndarray:
    """(2,) MiB of this process in memory: its own, and pages of mapped files."""
    pages = list(map(int, Path("/proc/self/statm").read_text().split()))
    return np.array([pages[1] - pages[2], pages[2]]) * sysconf("SC_PAGE_SIZE") / 2**20


def memory_of_reading(root: Path, window: int, times: int) -> Memory:
    """Open a folder and read each row once."""
    before = resident()
    tasks = open_mixture(root).tasks
    opened = resident()
    row = np.empty(window, tasks[0].vocabulary.dtype)
    rows = Rows(tasks, window)
    for number in range(len(rows)):
        row[:] = rows[number]
    gained = resident() - opened
    total = sum(data.index.counts["tokens"] for data in tasks)
    return Memory(times, total, float((opened - before)[0]), float(gained[0]), float(gained[1]))


def enlarge(root: Path, folder: Path, times: int) -> Path:
    """`folder` as a copy of `root` with each shard `times` times, by links that take no room."""
    for source in dataset_folders(root):
        target = folder / source.relative_to(root)
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "dataset.json", target)
        shards = []
        for entry in Manifest.read(source).shards:
            for number in range(times):
                name = f"{number:05d}-{entry.name}"
                (target / name).symlink_to((source / entry.name).resolve())
                shards.append(replace(entry, name=name))
        Manifest(shards).write(target)
    return folder


def measure_memory(root: Path, window: int, sizes: Sequence[int], folder: Path) -> list[Memory]:
    """Memory for each size of the data, in a fresh process each: freed memory is used again."""
    found = []
    for times in sizes:
        large = enlarge(root, folder / f"times-{times}", times)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found.append(pool.submit(memory_of_reading, large, window, times).result())
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure rates and memory, and print tables."""
    parser = timing_parser("reading", __doc__, None, rounds=5)
    parser.add_argument("data", type=Path, help="a folder of shards")
    parser.add_argument("--window", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=16384, help="rows of a call, at most")
    parser.add_argument("--repeat", type=int, default=20, help="times the data, for memory")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        found = measure(given.data, given.window, given.rows, given.rounds, Path(name))
        memory = measure_memory(given.data, given.window, [1, given.repeat], Path(name))
    speed = {subject: each.per_second for subject, each in found.items()}
    facts = {
        "times_webdataset": speed["reader"] / speed["webdataset"],
        "times_memmap": speed["reader"] / speed["memmap"],
        "windows_times_webdataset": speed["windows"] / speed["webdataset"],
        "windows_times_memmap": speed["windows"] / speed["memmap"],
    }
    console = Console()
    title = f"rows of {given.window} tokens, {given.threads} thread(s)"
    print_rates(console, title, found.values(), "rows/s")
    print_facts(console, facts)
    columns = "times the data", "tokens", "opening, private", "reading, private", "reading, mapped"
    print_table(console, "memory, MiB", columns, map(astuple, memory))
    result = {"threads": given.threads, "window": given.window, "facts": facts}
    result["rates"] = [asdict(each) for each in found.values()]
    write_json(given.json, {**result, "memory": [asdict(each) for each in memory]})


if __name__ == "__main__":
    main()
