"""Keys and values of rows that are attended to one after the other, as suits a CPU.

Keys lie as (D, N), so that the dot products of one query run along memory: less time than PyTorch's
`scaled_dot_product_attention` takes, which wants them as (N, D). They are float32 whatever the
model is: in bfloat16 PyTorch has a kernel compiled for every new length.

Legend: P = tokens of the pass, H / K = attention / key heads, G = H / K, D = head dimension,
N = capacity of a row, c = new tokens of one row, T = its tokens, the new ones included.
"""

from __future__ import annotations

import torch

from generalist.decoding.cache import RowPlan


class SeparateRows:
    """Keys and values of rows. Memory that is never used is not touched.

    Args:
        rows: how many.
        capacity: N.
        scaling: factor on the scores of attention.
    """

    def __init__(self, rows: int, capacity: int, scaling: float) -> None:
        self.count, self.capacity, self.scaling = rows, capacity, scaling
        # Of each layer the keys of its rows, each (K, D, N), and the values, each (K, N, D).
        self._layers: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []
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
            rows, device = (self.count, heads), keys.device
            stored = (
                torch.zeros(*rows, width, self.capacity, device=device),
                torch.zeros(*rows, self.capacity, width, device=device),
            )
            self._layers.append((list(stored[0]), list(stored[1])))
        row_keys, row_values = self._layers[layer]
        for row, start, count, offset in plan.spans:
            new = slice(offset, offset + count)
            row_keys[row].narrow(2, start, count).copy_(keys[new].permute(1, 2, 0))
            row_values[row].narrow(1, start, count).copy_(values[new].transpose(0, 1))

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
        row_keys, row_values = self._layers[layer]
        for row, start, count, offset in plan.spans:
            keys = row_keys[row].narrow(2, 0, start + count)
            values = row_values[row].narrow(1, 0, start + count)
            parts.append(self._attend(exact[offset : offset + count], keys, values, start))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(queries.dtype)

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
        for keys, values in self._layers:
            keys[target][:, :, :tokens] = keys[source][:, :, :tokens]
            values[target][:, :tokens] = values[source][:, :tokens]
