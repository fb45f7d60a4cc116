"""What the benchmarks share: timing side by side, and what the machine itself can do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(
    subjects: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call of each subject, called in turns (A B A B ...), after a warm-up.

    In turns, because a machine that slows down for a while then slows all of them down.
    """
    for subject in subjects.values():
        for _ in range(warm_up):
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


def matrix_vector_bandwidth(total_bytes: int, dtype: torch.dtype = torch.float32) -> float:
    """Bytes a second of a bare matrix-vector product over so many bytes of weights.

    The weights are split into matrices of 768 columns, so that none of them stays in a cache unless
    all of them do, as in a model of that size. Median of ten passes.
    """
    columns, rows = 768, 3072
    size = torch.empty(0, dtype=dtype).element_size()
    count = max(1, total_bytes // (columns * rows * size))
    weights = [torch.randn(rows, columns).to(dtype) for _ in range(count)]
    vector = torch.randn(columns).to(dtype)
    times = []
    for _ in range(11):
        start = time.perf_counter()
        for weight in weights:
            torch.mv(weight, vector)
        times.append(time.perf_counter() - start)
    return count * columns * rows * size / statistics.median(times[1:])
