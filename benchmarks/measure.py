"""What the benchmarks share: timing side by side, and what the machine itself can do."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


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
    name: str, description: str | None, sizes: Mapping[str, object], rounds: int
) -> argparse.ArgumentParser:
    """The options that all timing benchmarks have."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", action="append", choices=sizes, help="default 3M")
    parser.add_argument("--window", type=int, default=1024, help="tokens")
    parser.add_argument("--rounds", type=int, default=rounds, help="calls of each subject")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as JSON")
    return parser
