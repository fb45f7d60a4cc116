"""Keys and values of rows on a CPU: attended to one after the other, or those alike at once.

Keys lie as (D, N), so that the dot products of one query run along memory: less time than PyTorch's
`scaled_dot_product_attention` takes, which wants them as (N, D). They are float32 whatever the
model is: in bfloat16 PyTorch has a kernel compiled for every new length.

Legend: P = tokens of the pass, H / K = attention / key heads, G = H / K, D = head dimension,
N = capacity of a row, c = new tokens of one row, T = its tokens, the new ones included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from generalist.decoding.cache import RowPlan

TOGETHER = 4
"""So many rows that are alike are attended to at once; of fewer, one after the other is faster."""


class _Layer(NamedTuple):
    """Keys and values of a layer, and of each of its rows alone.

    Attributes:
        keys: (rows, K, D, N).
        values: (rows, K, N, D).
        row_keys: of each row, (K, D, N).
        row_values: of each row, (K, N, D).
    """

    keys: torch.Tensor
    values: torch.Tensor
    row_keys: list[torch.Tensor]
    row_values: list[torch.Tensor]

    @classmethod
    def of(cls, keys: torch.Tensor, values: torch.Tensor) -> _Layer:
        return cls(keys, values, list(keys), list(values))


class SeparateRows:
    """Keys and values of rows. Memory that is never used is not touched.

    Args:
        rows: how many.
        capacity: N.
        scaling: factor on the scores of attention.
    """

    def __init__(self, rows: int, capacity: int, scaling: float) -> None:
        self.count, self.capacity, self.scaling = rows, capacity, scaling
        self._layers: list[_Layer] = []
        self._masks = torch.empty(0, 0)

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor, plan: RowPlan) -> None:
        """Append new keys and values to the rows that a plan feeds.

        Args:
            layer: number of the layer.
            keys: (P, K, D).
            values: (P, K, D).
            plan: of the pass.
        """
        if layer == len(self._layers):  # by one append, so that Ctrl-C leaves no half a layer
            _, heads, width = keys.shape
            each, device = (self.count, heads), keys.device
            self._layers.append(
                _Layer.of(
                    torch.zeros(*each, width, self.capacity, device=device),
                    torch.zeros(*each, self.capacity, width, device=device),
                )
            )
        stored = self._layers[layer]
        for rows, start, count, offset in plan.runs:
            where = slice(start, start + count)
            part = slice(offset, offset + count * len(range(self.count)[rows]))
            own_keys, own_values = (x[part].unflatten(0, (-1, count)) for x in (keys, values))
            stored.keys[rows, :, :, where] = own_keys.permute(0, 2, 3, 1)
            stored.values[rows, :, where] = own_values.transpose(1, 2)

    def attend(self, layer: int, queries: torch.Tensor, plan: RowPlan) -> torch.Tensor:
        """Causal attention of each row's new tokens to its own keys.

        Args:
            layer: number of the layer.
            queries: (P, H, D).
            plan: of the pass.

        Returns:
            (P, H D) of the dtype of `queries`.
        """
        parts, exact = [], queries.float()
        stored = self._layers[layer]
        for rows, start, count, offset in plan.runs:
            number, total = len(range(self.count)[rows]), start + count
            own = exact[offset : offset + number * count]
            if number < TOGETHER:
                for row, each in zip(range(self.count)[rows], own.split(count), strict=True):
                    keys = stored.row_keys[row].narrow(2, 0, total)
                    values = stored.row_values[row].narrow(1, 0, total)
                    parts.append(self._attend(each, keys, values, start))
            else:
                keys, values = stored.keys[rows, :, :, :total], stored.values[rows, :, :total]
                parts.append(self._attend_together(own, keys, values, start))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(queries.dtype)

    def _attend_together(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int
    ) -> torch.Tensor:
        """(n c, H, D) on (n, K, D, T) and (n, K, T, D) to (n c, H D): n rows alike, at once."""
        number, key_heads, width, total = keys.shape
        heads, count = queries.shape[1], len(queries) // number
        # A key head at a time: the rows of one lie at equal distances, so that nothing is copied.
        grouped = queries.view(number, count, key_heads, -1, width).permute(2, 0, 3, 1, 4)
        grouped = grouped.reshape(key_heads, number, -1, width) * self.scaling
        found = []
        for head, own in enumerate(grouped):
            scores = torch.bmm(own, keys[:, head])
            if count > 1:
                scores.view(number, -1, count, total).add_(self._mask(start, count, scores))
            found.append(torch.bmm(scores.softmax(-1), values[:, head]))
        by_token = torch.stack(found, dim=1).view(number, key_heads, -1, count, width)
        return by_token.permute(0, 3, 1, 2, 4).reshape(number * count, heads * width)

    def _attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int
    ) -> torch.Tensor:
        """(c, H, D) on (K, D, T) and (K, T, D) to (c, H D).

        The G query heads that share a key head lie along the query axis: keys are not repeated.
        """
        count, heads, width = queries.shape
        key_heads, total = len(keys), keys.shape[2]
        grouped = queries.view(count, key_heads, -1, width).permute(1, 2, 0, 3)
        scores = torch.bmm(grouped.reshape(key_heads, -1, width) * self.scaling, keys)
        if count > 1:
            scores.view(key_heads, -1, count, total).add_(self._mask(start, count, scores))
        attended = torch.bmm(scores.softmax(-1), values)
        by_token = attended.view(key_heads, -1, count, width).permute(2, 0, 1, 3)
        return by_token.reshape(count, heads * width)

    def _mask(self, start: int, count: int, like: torch.Tensor) -> torch.Tensor:
        """(c, T) additive: of the keys, new token i sees the first start + i + 1.

        A part of one table whose row i sees the first capacity + i + 1 of its columns.
        """
        if len(self._masks) < count or self._masks.dtype != like.dtype:
            size = 1 << (count - 1).bit_length()
            table = like.new_full((size, self.capacity + size), float("-inf"))
            self._masks = table.triu(self.capacity + 1)
        return self._masks[:count, self.capacity - start : self.capacity + count]

    @torch.inference_mode()
    def copy_prefix(self, source: int, target: int, tokens: int) -> None:
        """Give row `target` the first `tokens` keys and values of row `source`."""
        for layer in self._layers:
            layer.keys[target, :, :, :tokens] = layer.keys[source, :, :, :tokens]
            layer.values[target, :, :tokens] = layer.values[source, :, :tokens]

    @torch.inference_mode()
    def copy_rows(
        self, sources: Sequence[int], targets: Sequence[int], first: int, stop: int
    ) -> None:
        """Give each target row the keys and values of its source, of tokens `first` to `stop`."""
        old, new = torch.tensor(sources), torch.tensor(targets)
        for layer in self._layers:
            keys, values = layer.keys[:, :, :, first:stop], layer.values[:, :, first:stop]
            for part in (keys, values):  # in half the time that indexing takes
                part.index_copy_(0, new, part.index_select(0, old))
