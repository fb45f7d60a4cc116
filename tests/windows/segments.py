"""Segments read back from rows by the rules of windows, not by the sampler's code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.shards.reader import TaskData
from generalist.windows.batch import IGNORE, Batch
from generalist.windows.windows import WindowSampler
from tests.dataset_folders import VOCABULARY

BEGIN = VOCABULARY.special("begin")
PAD = VOCABULARY.special("pad")
DEMONSTRATION_END = VOCABULARY.special("demonstration_end")
END = VOCABULARY.special("end")
INSTRUCTIONS = ("go to the red ball", "go to the box", "go to the grey key")


def header_of(data: TaskData, instruction: str | None) -> np.ndarray:
    """begin, a token for the task, one for the instruction."""
    if data.layout.is_document:
        return np.array([BEGIN])
    ids = [BEGIN, 100 + len(data.task)]
    if instruction is not None:
        ids += [VOCABULARY.special("instruction"), 200 + INSTRUCTIONS.index(instruction)]
    return np.array(ids)


def sampler(tasks: list[TaskData], length: int = 512, **options: Any) -> WindowSampler:
    return WindowSampler(tasks, [1.0] * len(tasks), header_of, window_tokens=length, **options)


def row_of(packed: WindowSampler, number: int) -> Batch:
    """One row: arrays of shape (L,)."""
    batch = packed.batch(number, 1)
    arrays = {name: each[0] for name, each in vars(batch).items() if isinstance(each, np.ndarray)}
    return Batch(**arrays, given=batch.given)


@dataclass
class Segment:
    """A segment read back from a row by the rules, not by the sampler's code."""

    task: int
    header: np.ndarray
    demonstration: np.ndarray
    tokens: np.ndarray  # (n, S)
    targets: np.ndarray  # (n, S)
    ordinal: np.ndarray  # (n, S)


def segments_of(row: Batch, tasks: list[TaskData]) -> list[Segment]:
    found = []
    used = int((row.task_index >= 0).sum())
    starts = [j for j in range(used) if row.position_ids[j] == 0]
    for start, stop in zip(starts, [*starts[1:], used], strict=True):
        ids, targets = row.input_ids[start:stop], row.targets[start:stop]
        assert (row.position_ids[start:stop] == np.arange(stop - start)).all()
        assert ids[0] == BEGIN and len(set(row.task_index[start:stop])) == 1
        task = int(row.task_index[start])
        layout = tasks[task].layout
        size = layout.tokens_per_timestep
        header = (
            1 if layout.is_document else 4 if ids[2] == VOCABULARY.special("instruction") else 2
        )
        ends = np.nonzero(ids == DEMONSTRATION_END)[0]
        body = int(ends[0]) + 1 if len(ends) else header
        assert (targets[:body] == IGNORE).all() and not row.ordinal[start : start + body].any()
        assert (stop - start - body) % size == 0 and stop - start > body
        parts = (array.reshape(-1, size) for array in (ids[body:], targets[body:]))
        ordinal = row.ordinal[start + body : stop].reshape(-1, size)
        demonstration = ids[header : max(header, body - 1)].reshape(-1, size)
        found.append(Segment(task, ids[:header], demonstration, *parts, ordinal))
    return found


def identify(tokens: np.ndarray, data: TaskData) -> tuple[int, int]:
    """(episode, first step) of (n, S) timesteps, which must be those of one episode."""
    start = data.layout.fields[0].start
    if data.layout.is_document:
        for episode in range(len(data)):
            shown = np.append(data.tokens(episode), END)
            windows = np.lib.stride_tricks.sliding_window_view(shown, min(len(tokens), len(shown)))
            if windows.shape[1] == len(tokens):
                hits = np.nonzero((windows == tokens.ravel()).all(axis=1))[0]
                if len(hits):
                    return episode, int(hits[0])
        raise AssertionError("this text is in no document")
    first, episode = int(tokens[0, 0] - start), int(tokens[0, 1] - start)
    size = data.layout.tokens_per_timestep
    expected = data.tokens(episode)[first * size : (first + len(tokens)) * size]
    np.testing.assert_array_equal(tokens.ravel(), expected)
    return episode, first


def identify_by_seed(tokens: np.ndarray, data: TaskData) -> int:
    """Number of the episode whose seed the second token tells."""
    seed = int(tokens[0, 1] - data.layout.fields[0].start)
    return next(i for i in range(len(data)) if data.record(i)["seed"] == seed)
