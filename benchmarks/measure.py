"""What the benchmarks share: timing side by side, and what the machine itself can do."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


@dataclass
class Rate:
    """How long a call of a subject takes, and what it gets through in a second (at the median)."""

    subject: str
    median_ms: float
    least_ms: float
    per_second: float


def rates(seconds: Mapping[str, list[float]], amount: float) -> dict[str, Rate]:
    """Rates from the seconds of calls that get through `amount` of something each."""
    found = {}
    for name, values in seconds.items():
        median = statistics.median(values)
        found[name] = Rate(name, 1e3 * median, 1e3 * min(values), amount / median)
    return found


def screen() -> Console:
    """Where tables go; in a file or a pipe wide enough for all of their columns."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def print_table(
    console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """A table of names and numbers."""
    table = Table(*columns, title=title, title_justify="left")
    table.columns[0].no_wrap = True  # names are needed whole
    for row in rows:
        table.add_row(*(written(cell) for cell in row))
    console.print(table)


def written(value: Any) -> str:
    """A number to four digits, or all those before the point; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def print_rates(console: Console, title: str, found: Iterable[Rate], unit: str) -> None:
    """A table of rates; `unit` is what `per_second` counts."""
    columns = "subject", "median ms", "least ms", unit
    print_table(console, title, columns, (astuple(each) for each in found))


def print_facts(console: Console, facts: Mapping[str, Any]) -> None:
    """A line a fact."""
    for name, value in facts.items():
        console.print(f"{name}: {written(value)}")


def write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    """The result as JSON, where `--json` names a file."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1) + "\n")


def interleaved(
    subjects: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call of each subject, called in turns (A B A B ...), after a warm-up.

    In turns, because a machine that slows down for a while then slows all of them down.
    """
    for subject in subjects.values():
        subject()
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            start = time.perf_counter()
            subject()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def matrix_vector_bandwidth(total_bytes: int) -> float:
    """Bytes a second of a bare matrix-vector product over so many bytes of float32 weights.

    The weights are split into matrices of 768 columns, so that none of them stays in a cache unless
    all of them do, as in a model of that size. Median of ten passes.
    """
    columns, rows = 768, 3072
    matrix_bytes = 4 * columns * rows
    count = max(1, total_bytes // matrix_bytes)
    weights = [torch.randn(rows, columns) for _ in range(count)]
    vector = torch.randn(columns)
    times = []
    for _ in range(11):
        start = time.perf_counter()
        for weight in weights:
            torch.mv(weight, vector)
        times.append(time.perf_counter() - start)
    return count * matrix_bytes / statistics.median(times[1:])


def timing_parser(
    name: str, description: str | None, sizes: Mapping[str, object] | None, rounds: int
) -> argparse.ArgumentParser:
    """The options that all timing benchmarks have; with sizes also those of models."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    if sizes is not None:
        parser.add_argument("--size", action="append", choices=sizes, help="default 3M")
        parser.add_argument("--window", type=int, default=1024, help="tokens")
    parser.add_argument("--rounds", type=int, default=rounds, help="calls of each subject")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as JSON")
    return parser
