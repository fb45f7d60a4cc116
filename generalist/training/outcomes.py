"""The losses of a world model: the outcomes of actions, and the observations that follow.

Shapes: n = actions of one kind of observation, K = tokens of an observation, D = hidden size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor

from generalist.modeling.embedders import Embedders
from generalist.tokenization.outcomes import OUTCOME
from generalist.training.losses import OrdinalTargets, token_losses
from generalist.training.passes import Outcomes

SIGMA_BINS = 1.0
"""Deviation of the Gaussian target of an observation's bin. A state goes into the next prediction,
so it has to be sharper than an action."""


class HeadRows:
    """Rows of the output embedding by their ids.

    It is cut once: the gradient of each further cut would be as large as all of it.

    Args:
        table: (V, D).
        ranges: (start, stop) of the vocabulary's ranges, which cover it in order; none: one piece.
    """

    def __init__(self, table: Tensor, ranges: Sequence[tuple[int, int]]) -> None:
        self._ranges = list(ranges) or [(0, len(table))]
        self.pieces = table.split([stop - start for start, stop in self._ranges])

    def of(self, start: int, stop: int) -> Tensor:
        """(stop - start, D) rows of ids within one range."""
        number = bisect_right(self._ranges, start, key=lambda each: each[0]) - 1
        first = self._ranges[number][0]
        return self.pieces[number][start - first : stop - first]


def outcome_losses(
    embedders: Embedders,
    head: HeadRows,
    hidden: Tensor,
    outcomes: Outcomes,
    ordinal: OrdinalTargets,
) -> Tensor:
    """Losses of all tokens of some outcomes, row by row: (n (3 + K),) float32, in nats.

    Args:
        embedders: of the model.
        head: rows of its output embedding.
        hidden: (n, D) states at the actions.
        outcomes: what came of them.
        ordinal: how targets of scalars spread.
    """
    world, ids = embedders.form.world, outcomes.ids
    assert world is not None, "a form without a world model has no outcomes"
    own = embedders.worlds[outcomes.name]
    states = own.outcome_states(hidden)
    ends = torch.cat([head.of(each, each + 1) for each in (world.goes_on, world.is_over)])
    over = (ids[:, 0] == world.is_over).long()
    bins = head.of(world.first, world.first + world.bins)
    earned = (states[:, 1:] @ bins.T).float()  # (n, 2, bins): the reward, the return after it
    # As large a part of the range as with the bins of actions.
    sigma = ordinal.sigma_bins * world.bins / (ordinal.stop - ordinal.start)
    spread = OrdinalTargets(0, world.bins, sigma)
    once = torch.zeros_like(over, dtype=torch.bool)
    found = [
        token_losses((states[:, 0] @ ends.T).float(), over, once, spread),
        token_losses(earned[:, 0], ids[:, 1] - world.first, once, spread),
        token_losses(earned[:, 1], ids[:, 2] - world.first, ~once, spread),
    ]
    after = ids[:, OUTCOME:]
    states = own.token_states(hidden, embedders.by_name[outcomes.name].rows(after))
    first = 0
    for run in own.signature.runs:
        part = slice(first, first := first + run.count)
        given = (states[:, part], outcomes.before[:, part] - run.start)
        table = head.of(run.start, run.start + run.rows)
        logits = own.logits(*(x.flatten(0, 1) for x in given), table, run)
        targets = (after[:, part] - run.start).flatten()
        is_ordinal = torch.full_like(targets, run.kind == "bins", dtype=torch.bool)
        near = OrdinalTargets(0, run.rows, SIGMA_BINS)
        losses = token_losses(logits, targets, is_ordinal, near)
        found += losses.view(-1, run.count).unbind(1)
    return torch.stack(found, dim=1).flatten()
