"""The body of a Llama or Qwen3 model with less ado: what acting runs where it knows the model.

Acting feeds few tokens at a time, so what a pass costs besides its arithmetic counts. Here a layer
is some fifty small operations on packed weights (`packed.py`), and the last layer computes queries,
output and MLP only for the tokens whose state is asked for. A test holds it equal to the model's
own forward pass, which serves all other architectures.

Legend: P = tokens of the pass, M = states asked for, H / K = attention / key heads, h = any heads,
D = head dimension, E = hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from generalist.decoding.cache import RowPlan
from generalist.decoding.packed import PackedLayer, packed, rotations
from generalist.decoding.rows import SeparateRows


class LeanPass:
    """Forward passes of one model that `is_known`, on a CPU.

    Args:
        model: the model.
        rows: how many.
        capacity: most tokens of a row.
    """

    def __init__(self, model: Any, rows: int, capacity: int) -> None:
        self.body = model.base_model
        self.weights = packed(self.body)
        config, attention = model.config, self.body.layers[0].self_attn
        self.width = attention.head_dim
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        epsilon = self.body.norm.variance_epsilon
        self._floor = {  # of the length of a vector, by its width
            width: torch.tensor((width * epsilon) ** 0.5)
            for width in (config.hidden_size, self.width)
        }
        self.rotations = rotations(self.body, capacity)
        self.rows = SeparateRows(rows, capacity, attention.scaling)

    def refresh(self, thoroughly: bool = False) -> None:
        """Take the model's weights as they are now, as `PackedBody.refresh` does."""
        self.weights.refresh(self.body, thoroughly)

    def copy_prefix(self, source: int, target: int, tokens: int) -> None:
        """Give row `target` the first `tokens` keys and values of row `source`."""
        self.rows.copy_prefix(source, target, tokens)

    def copy_rows(
        self, sources: Sequence[int], targets: Sequence[int], first: int, stop: int
    ) -> None:
        """Give each target row the keys and values of its source, of tokens `first` to `stop`."""
        self.rows.copy_rows(sources, targets, first, stop)

    def __call__(
        self,
        tokens: Sequence[int] | torch.Tensor,
        plan: RowPlan,
        asked: Sequence[int],
        added: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As `PlainPass.__call__`."""
        ids = torch.as_tensor(tokens)
        hidden = functional.embedding(ids, self.body.embed_tokens.weight)
        if added is not None:
            hidden = hidden + added
        rotation = self.rotations[plan.position_ids[0]][:, None]  # (P, 1, D / 2)
        for index, layer in enumerate(self.weights.layers):
            normed = self._norm(hidden, layer.input_norm)
            queries, keys, values = self._projected(normed, layer, rotation)
            self.rows.write(index, keys, values, plan)
            hidden = self._mixed(index, layer, hidden, queries, plan)
        hidden = self._last(hidden, rotation, plan, asked)
        return self._norm(hidden, self.weights.norm)

    def _last(
        self, hidden: torch.Tensor, rotation: torch.Tensor, plan: RowPlan, asked: Sequence[int]
    ) -> torch.Tensor:
        """The last layer.

        Args:
            hidden: (P, E).
            rotation: (P, 1, D / 2) complex64.
            plan: of the pass.
            asked: of each of the first rows, how many states are wanted; M in all.

        Returns:
            (M, E) of the tokens whose states are asked for.
        """
        count = sum(asked)
        index, layer = len(self.weights.layers), self.weights.last
        normed = self._norm(hidden, layer.input_norm)
        if len(hidden) == count:
            queries, keys, values = self._projected(normed, layer, rotation)
            self.rows.write(index, keys, values, plan)
            return self._mixed(index, layer, hidden, queries, plan)
        keys, values = self._split(layer.keys_values(normed), self.key_heads)
        self.rows.write(index, self._turned(keys, layer, self.heads, rotation), values, plan)
        last, plan = plan.last(asked), plan.last_only(asked)
        queries = layer.queries(normed[last]).view(count, -1, self.width)
        queries = self._turned(queries, layer, 0, rotation[last])
        return self._mixed(index, layer, hidden[last], queries, plan)

    def _mixed(
        self,
        index: int,
        layer: PackedLayer,
        hidden: torch.Tensor,
        queries: torch.Tensor,
        plan: RowPlan,
    ) -> torch.Tensor:
        """A layer after its projections: attention and the MLP.

        Args:
            index: number of the layer.
            layer: its weights.
            hidden: (M, E).
            queries: (M, H, D).
            plan: whose queries these are.

        Returns:
            (M, E).
        """
        hidden = layer.output.added(hidden, self.rows.attend(index, queries, plan))
        gate, up = layer.gate_up(self._norm(hidden, layer.mlp_norm)).chunk(2, dim=1)
        return layer.down.added(hidden, functional.silu(gate).mul_(up))

    def _projected(
        self, normed: torch.Tensor, layer: PackedLayer, rotation: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(P, E) to queries (P, H, D), keys and values (P, K, D)."""
        turned, values = self._split(layer.qkv(normed), self.heads + self.key_heads)
        turned = self._turned(turned, layer, 0, rotation)
        return turned[:, : self.heads], turned[:, self.heads :], values

    def _split(self, states: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(P, h D) to the first heads, (P, first, D), and the others."""
        states = states.view(len(states), -1, self.width)
        return states[:, :first], states[:, first:]

    def _turned(
        self, states: torch.Tensor, layer: PackedLayer, first: int, rotation: torch.Tensor
    ) -> torch.Tensor:
        """Normalise heads, where the model does, and rotate them.

        Rotary positions (Su et al. 2021, section 3.4.2): numbers rotated together are neighbours
        here, the parts of one complex number.

        Args:
            states: (P, h, D).
            layer: the weights.
            first: number of the first of these heads.
            rotation: (P, 1, D / 2) complex64.

        Returns:
            (P, h, D).
        """
        if layer.head_norm is not None:
            heads = layer.head_norm[first : first + states.shape[1]]
            states = self._norm(states, heads)
        pairs = torch.view_as_complex(states.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * rotation).flatten(-2).to(states.dtype)

    def _norm(self, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Root mean square norm (Zhang and Sennrich 2019), computed in float32.

        x / sqrt(mean(x^2) + epsilon), written with the length of x: three operations, not six.

        Args:
            states: (..., width).
            weight: (width,) float32, the norm's times sqrt(width).

        Returns:
            (..., width) of the dtype of `states`.
        """
        length = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=torch.float32)
        length = torch.hypot(length, self._floor[states.shape[-1]])
        return (states / length * weight).to(states.dtype)
