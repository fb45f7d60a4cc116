"""Rows of windows as the objective's input: tokens, and a flat list of their targets.

Shapes: B = rows, L = window tokens, T = tokens of all segments, M = targets in the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from generalist.modeling.embedders import Embedded
from generalist.training.passes import (
    ForwardPass,
    LinedSegments,
    Outcomes,
    PackedRows,
    SoftTargets,
    Targets,
)
from generalist.windows.batch import Batch, Given
from generalist.windows.outcomes import Foreseen


def to_tensors(batch: Batch, task_weights: np.ndarray, *, segments: bool) -> ForwardPass:
    """The objective's input: tokens, and a flat list of their targets.

    This finds the targets on the CPU, so that a device never waits for their number.

    Args:
        batch: B rows.
        task_weights: (folders,) float32 weight of one target of each task.
        segments: lay segments end to end, without padding.

    Returns:
        `LinedSegments` with `segments`, else `PackedRows`; on the CPU.
    """
    input_ids, position_ids = batch.input_ids, batch.position_ids
    # A segment's first token has no predecessor in its own segment, hence never a loss.
    has_target = (batch.targets >= 0) & (position_ids > 0)
    order = np.zeros(has_target.shape, np.int64)
    order[has_target] = _order(has_target, batch.targets)
    if not segments:
        starts = np.flatnonzero(position_ids == 0)
        where = np.flatnonzero(has_target)
        return PackedRows(
            input_ids=_tensor(input_ids),
            position_ids=_tensor(position_ids),
            segment_starts=_tensor(np.append(starts, position_ids.size).astype(np.int32)),
            targets=_with_outcomes(
                _targets(batch, task_weights, where=where, order=order),
                batch,
                task_weights,
            ),
            attended=int((position_ids + 1).sum()),
            embedded=_embedded(batch.given),
            outcomes=_outcomes(batch.foreseen),
            soft=_soft(batch, where),
        )
    kept, lengths = _end_to_end(batch, has_target)
    position_ids = position_ids.reshape(-1)[kept]
    index = np.flatnonzero(has_target.reshape(-1)[kept])
    targets = _targets(batch, task_weights, where=kept[index], order=order)
    place = np.empty(batch.input_ids.size, np.int64)  # of each token among those that are kept
    place[kept] = np.arange(len(kept))
    return LinedSegments(
        input_ids=_tensor(input_ids.reshape(-1)[kept]),
        position_ids=_tensor(position_ids),
        segment_lengths=lengths,
        targets=_with_outcomes(
            replace(targets, index=_tensor(index - ~batch.query.reshape(-1)[kept[index]])),
            batch,
            task_weights,
        ),
        attended=int((position_ids + 1).sum()),
        embedded=_embedded(replace(each, index=place[each.index]) for each in batch.given),
        outcomes=_outcomes(replace(each, index=place[each.index]) for each in batch.foreseen),
        soft=_soft(batch, kept[index]),
    )


def _with_outcomes(targets: Targets, batch: Batch, task_weights: np.ndarray) -> Targets:
    """Targets with those of outcomes behind them."""
    for each in batch.foreseen:
        of_task = task_weights[batch.task_index.reshape(-1)[each.index]].astype(np.float32)
        weight, tokens = (of_task[:, None] * each.weight).ravel(), each.ids.shape[1]
        own = Targets(
            index=_tensor(np.repeat(each.index, tokens)),
            ids=_tensor(each.ids.ravel()),
            ordinal=torch.zeros(each.ids.size, dtype=torch.bool),
            task=_tensor(np.repeat(batch.task_index.reshape(-1)[each.index], tokens)).long(),
            weight=_tensor(weight),
            count=_tensor(weight),
            order=torch.zeros(each.ids.size, dtype=torch.int64),
        )
        names = [field.name for field in fields(Targets)]
        joined = {n: torch.cat([getattr(targets, n), getattr(own, n)]) for n in names}
        targets = Targets(**joined)
    return targets


def _outcomes(foreseen: Iterable[Foreseen]) -> tuple[Outcomes, ...]:
    return tuple(
        Outcomes(
            name=each.name,
            index=_tensor(each.index),
            before=_tensor(each.before.astype(np.int64)),
            ids=_tensor(each.ids.astype(np.int64)),
        )
        for each in foreseen
        if len(each.index)
    )


def _soft(batch: Batch, where: np.ndarray) -> SoftTargets | None:
    """The distributions of a batch whose targets stand at (M,) flat places."""
    if batch.soft is None or not len(batch.soft.index):
        return None
    places, ids, mass = batch.soft.rows()
    number = np.empty(batch.targets.size, np.int64)  # of the target at each place
    number[where] = np.arange(len(where))
    order = number[places].argsort()
    return SoftTargets(
        number=_tensor(number[places][order]), ids=_tensor(ids[order]), mass=_tensor(mass[order])
    )


def _targets(
    batch: Batch, task_weights: np.ndarray, *, where: np.ndarray, order: np.ndarray
) -> Targets:
    """The targets at (M,) flat places of a batch; queries are predicted from where they are."""
    task = batch.task_index.reshape(-1)[where].astype(np.int64)
    of_task = task_weights[task].astype(np.float32)
    return Targets(
        index=_tensor(where - ~batch.query.reshape(-1)[where]),
        ids=_tensor(batch.targets.reshape(-1)[where]),
        ordinal=_tensor(batch.ordinal.reshape(-1)[where]),
        task=_tensor(task),
        weight=_tensor(of_task * batch.weight.reshape(-1)[where]),
        count=_tensor(of_task * batch.count.reshape(-1)[where]),
        order=_tensor(order.reshape(-1)[where]),
    )


def _embedded(given: Iterable[Given]) -> tuple[Embedded, ...]:
    return tuple(
        Embedded(name=each.name, ids=_tensor(each.ids), index=_tensor(each.index))
        for each in given
        if len(each.index)
    )


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _end_to_end(batch: Batch, has_target: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """(T,) flat places of all tokens, segment by segment without padding, and their lengths.

    Segments are sorted by length, then by number of targets: equal ones run in one call.
    """
    kept = np.flatnonzero(batch.task_index >= 0)
    starts = np.flatnonzero(batch.position_ids.reshape(-1)[kept] == 0)
    lengths = np.diff(starts, append=len(kept))
    counts = np.add.reduceat(has_target.reshape(-1)[kept].astype(np.int64), starts)
    by_kind = np.lexsort((counts, lengths))
    parts = np.split(kept, starts[1:])
    return np.concatenate([parts[i] for i in by_kind]), lengths[by_kind].tolist()


def _order(has_target: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(M,) int64 numbers of the targets within their row, from an offset that varies by row.

    `loss.full_every` selects every n-th target by them, the same ones however rows are split.
    """
    counts = has_target.sum(axis=1)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.where(has_target, targets, 0).sum(axis=1)
    return within + np.repeat(first, counts)
