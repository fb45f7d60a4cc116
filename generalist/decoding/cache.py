"""A static key-value cache with rows of their own length, for plain Hugging Face causal LMs.

One forward pass feeds several rows, each with its own number of new tokens. The new tokens of all
rows are laid end to end in one sequence of batch size 1, so that every linear layer of the model
works on exactly the tokens there are, without padding. Only attention must know the rows: the
model is called with `RowCache` as its `past_key_values` and with our attention function, which
lets each row attend to its own cached keys and to nothing else. The model's code is unchanged.

Legend: P = tokens of the pass (all rows), R = rows fed, c = new tokens of one row,
H = attention heads, K = key-value heads, G = H / K, N = capacity of a row, D = head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from generalist.errors import GeneralistError

ATTENTION_NAME = "generalist_rows"


class RowPlan:
    """Which rows one forward pass feeds.

    Args:
        rows: number of each row in the cache.
        cached_tokens: how many tokens each has already.
        new_tokens: how many each gets.
        device: where the pass runs.
        padded: attend to all rows in one call on padded tensors, which suits accelerators;
            otherwise row by row on views of the cache, which on a CPU saves both the copies and
            the padding.
    """

    def __init__(
        self,
        rows: Sequence[int],
        cached_tokens: Sequence[int],
        new_tokens: Sequence[int],
        device: torch.device,
        padded: bool,
    ) -> None:
        self.rows = list(rows)
        self.cached_tokens = list(cached_tokens)
        self.new_tokens = list(new_tokens)
        self.device = device
        self.padded = padded
        self._masks: dict[tuple[int, int], torch.Tensor] = {}

    @cached_property
    def position_ids(self) -> torch.Tensor:
        """(1, P) int64: each new token's position in its own row."""
        parts = (range(start, start + count) for _, start, count, _ in self.spans)
        return torch.tensor([list(chain.from_iterable(parts))], device=self.device)

    def last(self, asked: Sequence[int]) -> torch.Tensor:
        """Where in the pass the last new tokens of the first rows stand.

        Args:
            asked: how many of each row; M in all.

        Returns:
            (M,) int64, row by row.
        """
        places: list[int] = []
        for count, (_, _, new, offset) in zip(asked, self.spans, strict=False):
            places.extend(range(offset + new - count, offset + new))
        return torch.tensor(places, device=self.device)

    @cached_property
    def token_rows(self) -> torch.Tensor:
        """(P,) int64: the row of each new token."""
        return torch.repeat_interleave(torch.tensor(self.rows), torch.tensor(self.new_tokens)).to(
            self.device
        )

    def last_only(self, asked: Sequence[int]) -> RowPlan:
        """For the first rows, a plan whose queries are their last `asked[i]` new tokens alone."""
        ends = (s + c for s, c in zip(self.cached_tokens, self.new_tokens, strict=True))
        starts = [end - count for end, count in zip(ends, asked, strict=False)]
        return RowPlan(self.rows[: len(asked)], starts, asked, self.device, self.padded)

    @cached_property
    def spans(self) -> list[tuple[int, int, int, int]]:
        """(row, cached tokens, new tokens, offset in the pass) of each row fed."""
        offsets = accumulate(self.new_tokens, initial=0)
        return list(zip(self.rows, self.cached_tokens, self.new_tokens, offsets, strict=False))

    @cached_property
    def runs(self) -> list[tuple[slice, int, int, int]]:
        """(rows, cached tokens, new tokens, offset in the pass) of neighbours that are alike.

        Rows of a run have as many tokens, as many of them new, and equal distances.
        """
        found: list[tuple[slice, int, int, int]] = []
        for row, start, count, offset in self.spans:
            if found:
                rows, *alike, first = found[-1]
                step = row - rows.stop + 1 if rows.step is None else rows.step
                if alike == [start, count] and step > 0 and row == rows.stop - 1 + step:
                    found[-1] = slice(rows.start, row + 1, step), start, count, first
                    continue
            found.append((slice(row, row + 1), start, count, offset))
        return found

    def causal_mask(self, start: int, count: int, groups: int, dtype: torch.dtype) -> torch.Tensor:
        """The additive mask of one row; kept, because it is the same in every layer.

        Args:
            start: tokens it has.
            count: c.
            groups: G.
            dtype: of the mask.

        Returns:
            (G c, start + c), 0 or -inf.
        """
        key = (start, count)
        if key not in self._masks:
            mask = torch.full((count, start + count), float("-inf"), dtype=dtype).triu(start + 1)
            self._masks[key] = mask.repeat(groups, 1).to(self.device)
        return self._masks[key]

    @cached_property
    def gather(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the padded path needs, with c the most new tokens and N the most tokens of a row.

        Returns:
            (R,) int64 rows; (R, c) int64, for each padded query its token in the pass;
            (R, 1, c, N) bool, whether it may see each key; (P,) int64, for each token its place
            among the padded ones.
        """
        longest = max(self.new_tokens)
        used = max(s + c for s, c in zip(self.cached_tokens, self.new_tokens, strict=True))
        counts, starts = torch.tensor(self.new_tokens), torch.tensor(self.cached_tokens)
        column = torch.arange(longest)
        real = column[None] < counts[:, None]
        offsets = counts.cumsum(0) - counts
        token = torch.where(real, offsets[:, None] + column, offsets[:, None])
        visible = torch.arange(used) <= (starts[:, None] + column)[..., None]
        place = torch.arange(len(self.rows) * longest).view(real.shape)[real]
        tensors = torch.tensor(self.rows), token, visible[:, None], place
        return tuple(t.to(self.device) for t in tensors)


class RowCache(Cache):
    """Keys and values of `rows` rows of up to `capacity` tokens, allocated once per layer.

    Memory of rows that are never used is not touched, hence costs nothing on most systems.

    Args:
        rows: how many.
        capacity: N.

    Attributes:
        rows: how many.
        capacity: N.
        plan: of the next forward pass; set it before the pass.
    """

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__(layers=[])
        self.rows = rows
        self.capacity = capacity
        self.plan: RowPlan | None = None
        # Keys and values of each layer, both (rows, K, N, D).
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new keys and values into their rows.

        Args:
            key_states: (1, K, P, D).
            value_states: (1, K, P, D).
            layer_idx: number of the layer.

        Returns:
            Keys and values of the layer, (rows, K, N, D) each.
        """
        if layer_idx == len(self._layers):  # by one append, so that Ctrl-C leaves no half a layer
            self._layers.append((self._stored(key_states), self._stored(value_states)))
        keys, values = self._layers[layer_idx]
        plan = self.plan
        assert plan is not None, "set RowCache.plan before the forward pass"
        if plan.padded:
            where = plan.token_rows, slice(None), plan.position_ids[0]
            keys[where] = key_states[0].transpose(0, 1)
            values[where] = value_states[0].transpose(0, 1)
        else:
            for row, start, count, offset in plan.spans:
                keys[row, :, start : start + count] = key_states[0, :, offset : offset + count]
                values[row, :, start : start + count] = value_states[0, :, offset : offset + count]
        return keys, values

    def _stored(self, states: torch.Tensor) -> torch.Tensor:
        _, heads, _, width = states.shape
        return states.new_zeros(self.rows, heads, self.capacity, width)

    @torch.inference_mode()
    def copy_prefix(self, source: int, target: int, tokens: int) -> None:
        """Give row `target` the first `tokens` keys and values of row `source`."""
        for stored in chain.from_iterable(self._layers):
            stored[target, :, :tokens] = stored[source, :, :tokens]

    @torch.inference_mode()
    def copy_rows(
        self, sources: Sequence[int], targets: Sequence[int], first: int, stop: int
    ) -> None:
        """Give each target row the keys and values of its source, of tokens `first` to `stop`."""
        for stored in chain.from_iterable(self._layers):
            stored[list(targets), :, first:stop] = stored[list(sources), :, first:stop]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Rows have lengths of their own; positions are always passed explicitly."""
        return 0


def row_attention(
    module: torch.nn.Module | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    row_plan: RowPlan | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of each row's new tokens to that row's own keys.

    The G query heads that share a key head are laid along the query axis, so that keys need not be
    repeated. It is what transformers calls by `ATTENTION_NAME`.

    Args:
        module: unused.
        query: (1, H, P, D) of the pass.
        key: (rows, K, N, D), the layer's whole cache.
        value: (rows, K, N, D).
        attention_mask: unused.
        scaling: factor on the scores.
        sliding_window: longest distance of a key, in models that have one.
        row_plan: the plan of the pass.

    Returns:
        (1, P, H, D), and None in place of weights.

    Raises:
        GeneralistError: the sliding window is shorter than a row.
    """
    assert row_plan is not None, "the decoder passes row_plan to the model"
    if sliding_window is not None and sliding_window < key.shape[2]:
        raise GeneralistError(
            f"The model attends to sliding windows of {sliding_window} tokens, but is to act in a "
            f"context of {key.shape[2]}; give window_tokens={sliding_window} or less."
        )
    _, heads, tokens, _ = query.shape
    key_heads, width = key.shape[1], value.shape[3]
    groups = heads // key_heads
    if row_plan.padded:
        return _padded_attention(query[0], key, value, scaling, row_plan), None
    out = query.new_empty(tokens, heads, width)
    for row, start, count, offset in row_plan.spans:
        end = start + count
        folded = query[0, :, offset : offset + count].reshape(1, key_heads, groups * count, -1)
        mask = row_plan.causal_mask(start, count, groups, query.dtype) if count > 1 else None
        attended = functional.scaled_dot_product_attention(
            folded,
            key[row : row + 1, :, :end],
            value[row : row + 1, :, :end],
            attn_mask=mask,
            scale=scaling,
        )
        out[offset : offset + count] = attended.view(heads, count, width).transpose(0, 1)
    return out[None], None


def _padded_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    plan: RowPlan,
) -> torch.Tensor:
    """The same for all rows at once: query (H, P, D); returns (1, P, H, D)."""
    rows, token, visible, place = plan.gather
    count, used = visible.shape[2:]
    heads, _, width = query.shape
    key_heads = key.shape[1]
    groups = heads // key_heads
    padded = query.transpose(0, 1)[token].transpose(1, 2)  # (R, H, c, D)
    folded = padded.reshape(len(rows), key_heads, groups * count, width)
    attended = functional.scaled_dot_product_attention(
        folded,
        key[rows, :, :used],
        value[rows, :, :used],
        attn_mask=visible.repeat(1, 1, groups, 1),
        scale=scaling,
    )
    by_token = attended.reshape(len(rows), heads, count, -1).transpose(1, 2).flatten(0, 1)
    return by_token[place][None]


AttentionInterface.register(ATTENTION_NAME, row_attention)
