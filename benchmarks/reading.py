"""How fast rows of tokens come from a collected folder, and how long training waits for them.

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

Waiting (`--train-minutes 1`): the share of a training run's time that it waits for windows, with
the quickstart's recipe without its corrections.

Legend: R = rows of a call, L = tokens of a row.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
import webdataset

from benchmarks.measure import (
    Rate,
    alone,
    interleaved,
    print_facts,
    print_rates,
    rates,
    screen,
    timing_parser,
    write_json,
)
from generalist.shards.reader import TaskData
from generalist.shards.shards import npy_bytes
from generalist.training.data import open_data
from generalist.training.loop import train
from generalist.training.recipe import DataRecipe, Recipe, load_recipe
from generalist.windows.mixture import open_mixture

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


def measure_waiting(root: Path, minutes: float, folder: Path) -> dict[str, float]:
    """The share of training's time that it waits, and its speed, once it has started."""
    overrides = {
        "data.root": root,
        "schedule.minutes": minutes,
        "corrections.tasks": "{}",
        "trackers": "[]",
        "output_dir": folder,
    }
    recipe = load_recipe("quickstart", [f"{key}={value}" for key, value in overrides.items()])
    alone(train, recipe)
    lines = (folder / "log.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines][1:]  # in the first it starts its processes
    names = {"data_wait_share": "share of training time waiting for data"}
    names["tokens_per_second"] = "training tokens a second"
    return {names[key]: statistics.mean(row[key] for row in log) for key in names}


def main(arguments: list[str] | None = None) -> None:
    """Measure rates, and on demand waiting, and print a table."""
    parser = timing_parser("reading", __doc__, None, rounds=5)
    parser.add_argument("data", type=Path, help="a folder of shards")
    parser.add_argument("--window", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=16384, help="rows of a call, at most")
    parser.add_argument("--train-minutes", type=float, default=0, help="for waiting")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    console = screen()
    with tempfile.TemporaryDirectory() as name:
        found = measure(given.data, given.window, given.rows, given.rounds, Path(name))
        speed = {subject: each.per_second for subject, each in found.items()}
        facts = {
            "times_webdataset": speed["reader"] / speed["webdataset"],
            "times_memmap": speed["reader"] / speed["memmap"],
            "windows_times_webdataset": speed["windows"] / speed["webdataset"],
            "windows_times_memmap": speed["windows"] / speed["memmap"],
        }
        title = f"rows of {given.window} tokens, {given.threads} thread(s)"
        print_rates(console, title, found.values(), "rows/s")
        if given.train_minutes:
            facts |= measure_waiting(given.data, given.train_minutes, Path(name) / "run")
        print_facts(console, facts)
    result = {"threads": given.threads, "window": given.window, "facts": facts}
    result["rates"] = [asdict(each) for each in found.values()]
    write_json(given.json, result)


if __name__ == "__main__":
    main()
