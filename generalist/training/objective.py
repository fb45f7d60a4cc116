"""The objective of imitation: a model, and its losses at target positions.

Shapes: B = rows, L = window tokens, D = hidden size, V = vocabulary size, M = targets in the pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from generalist.modeling.attention import attention_by
from generalist.modeling.embedders import embedders_of
from generalist.modeling.flash import ATTENTION_NAME
from generalist.modeling.segments import hidden_at
from generalist.training.losses import OrdinalTargets, token_losses
from generalist.training.outcomes import HeadRows, outcome_losses
from generalist.training.passes import (
    ForwardPass,
    LinedSegments,
    PackedRows,
    SoftTargets,
    Targets,
)


class TokenObjective(nn.Module):
    """A causal LM together with its loss, so that a wrapper (DDP, DeepSpeed) sees one module.

    Args:
        model: predicts the next token.
        ordinal: how targets of scalars spread.
        ranges: (start, stop) of the vocabulary's ranges, which cover it in order.
        full_every: see LossRecipe.full_every.

    Attributes:
        segments: whether batches are segments end to end; False at first.
        half: whether these are multiplied in bfloat16; False at first.
        flash: whether rows are attended to by flash attention, which takes a GPU and 16 bits;
            False at first.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ordinal: OrdinalTargets,
        *,
        ranges: Sequence[tuple[int, int]] = (),
        full_every: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.ordinal = ordinal
        self.ranges = list(ranges)
        self.full_every = full_every
        self.segments = False
        self.half = False
        self.flash = False

    def forward(self, batch: ForwardPass) -> Tensor:
        """Losses of all targets: (M,) float32 cross entropies in nats."""
        targets = batch.plain_targets
        embedders = embedders_of(self.model)
        parts = [targets.index, *(each.index for each in batch.outcomes)]
        hidden, *at_actions = self._hidden_at(batch, parts)
        head = HeadRows(self.model.get_output_embeddings().weight, self.ranges)
        losses = [self._token_losses(hidden, targets, batch.soft, head)]
        if embedders is not None and embedders.worlds:
            for each, own in zip(batch.outcomes, at_actions, strict=True):
                losses.append(outcome_losses(embedders, head, own, each, self.ordinal))
            losses[0] = losses[0] + embedders.idle_worlds(each.name for each in batch.outcomes)
        return losses[0] if len(losses) == 1 else torch.cat(losses)

    def _hidden_at(self, batch: ForwardPass, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """(n, D) final hidden states at the (n,) flat places of each part, which are ascending."""
        index, order = parts[0], None
        if len(parts) > 1:
            index, order = torch.cat(list(parts)).sort()
        if isinstance(batch, LinedSegments):
            given = self._embeddings(batch), batch.position_ids, batch.segment_lengths
            hidden = hidden_at(self.model.get_decoder(), *given, index, self.half)
        else:
            hidden = self._hidden_of_rows(batch).flatten(0, 1).index_select(0, index)
        if order is None:
            return [hidden]
        return hidden.index_select(0, order.argsort()).split([len(part) for part in parts])

    def _token_losses(
        self, hidden: Tensor, targets: Targets, soft: SoftTargets | None, head: HeadRows
    ) -> Tensor:
        """(M,) losses of targets that are predicted at once from (M, D) hidden states."""
        if self.full_every > 1:
            return self._losses_by_range(hidden, targets, soft, head.pieces)
        logits = self.model.get_output_embeddings()(hidden).float()  # (M, V)
        return token_losses(logits, targets.ids, targets.ordinal, self.ordinal, soft)

    def _embeddings(self, batch: ForwardPass) -> Tensor:
        """What goes into the first block: (B, L, D) of rows, (T, D) of segments."""
        hidden = self.model.get_input_embeddings()(batch.input_ids)
        embedders = embedders_of(self.model)
        if embedders is None:
            return hidden
        return embedders(hidden.flatten(0, -2), batch.embedded).view(hidden.shape)

    def _hidden_of_rows(self, batch: PackedRows) -> Tensor:
        """(B, L, D) final hidden states."""
        decoder = self.model.get_decoder()
        # attention_mask=None and use_cache=False let transformers find the packed segments in the
        # position ids and keep them apart; any other call leaks between them.
        tokens = {"inputs_embeds": self._embeddings(batch), "position_ids": batch.position_ids}
        call = partial(decoder, **tokens, attention_mask=None, use_cache=False)
        if not self.flash:
            return call().last_hidden_state
        with attention_by(decoder.config, ATTENTION_NAME):
            return call(segment_starts=batch.segment_starts).last_hidden_state

    def _losses_by_range(
        self,
        hidden: Tensor,
        batch: Targets,
        soft: SoftTargets | None,
        tables: Sequence[Tensor],
    ) -> Tensor:
        """(M,) losses; most of them with a softmax over the target's own range of ids."""
        targets, ordinal = batch.ids, batch.ordinal
        head = self.model.get_output_embeddings().weight  # (V, D)
        stops = torch.tensor([stop for _, stop in self.ranges], device=targets.device)
        group = torch.bucketize(targets, stops, right=True)  # (M,) which range a target is in
        large = torch.tensor([2 * len(table) > len(head) for table in tables])
        every_nth = batch.order % self.full_every == 0
        # A range with most of the ids is not worth a softmax of its own.
        group[every_nth | large.to(group.device)[group]] = len(tables)
        losses, rows = [], []
        for number, (table, start) in enumerate(
            [*zip(tables, (start for start, _ in self.ranges), strict=True), (head, 0)]
        ):
            mine = (group == number).nonzero().squeeze(1)
            if len(mine):
                logits = F.linear(hidden.index_select(0, mine), table).float()
                spec = self.ordinal.shifted(start)
                own = None if soft is None else soft.among(mine, start)
                given = targets[mine] - start, ordinal[mine]
                losses.append(token_losses(logits, *given, spec, own))
                rows.append(mine)
        if not losses:
            return hidden.sum(dim=1)  # no targets: (0,), with a gradient of zero
        return torch.cat(losses)[torch.cat(rows).argsort()]
