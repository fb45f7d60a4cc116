"""The body of a Llama or Qwen3 model on a GPU: few kernels, recorded once as a CUDA graph.

A pass of a few tokens is some hundred small kernels, and a CPU takes longer to launch them than a
GPU to run them. Here a layer is ten or eleven (`kernels.py`), and a graph launches all of them as
one. It works on the same memory every time, so what a pass is given is written there first, in one
copy; and it has the same shape every time, so a pass is filled up to one of few shapes, with tokens
whose keys go to a row that nobody reads.

Legend: P = tokens of the pass, R = rows fed, both filled up; H / K = attention / key heads,
D = head dimension, N = capacity of a row, E = hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from generalist.decoding.cache import RowPlan
from generalist.decoding.packed import packed
from generalist.gpu import has_triton

LARGEST = 4096
"""Passes of more tokens keep a GPU busy for longer than a CPU takes to launch them."""

WIDTHS, DTYPES = (16, 32, 64, 128), (torch.float32, torch.bfloat16, torch.float16)
"""Of a head, and of the weights."""


class Shape(NamedTuple):
    """What passes that share a graph have in common.

    Attributes:
        tokens: P.
        rows: R.
        longest: most new tokens of a row.
        every: whether the state of every token is asked for, not of each row's last alone.
        added: whether vectors are added to the embeddings.
    """

    tokens: int
    rows: int
    longest: int
    every: bool
    added: bool

    @classmethod
    def of(cls, plan: RowPlan, *, every: bool, added: bool) -> Shape:
        """The smallest shape that a pass fits into.

        Args:
            plan: of the pass.
            every: whether the state of every token is asked for.
            added: whether vectors are added to the embeddings.
        """
        tokens, rows = sum(plan.new_tokens), len(plan.rows)
        longest = max(plan.new_tokens)
        if longest == 1:  # as many tokens as rows, also when filled up
            return cls(filled_up(rows), filled_up(rows), 1, True, added)
        tokens = max(filled_up(tokens), filled_up(rows) + 1)
        return cls(tokens, filled_up(rows), filled_up(longest), every, added)


def filled_up(number: int) -> int:
    """The next of 1, 2, ..., 8, 9, ..., 16, 18, ..., 32, 36, ...: at most an eighth more."""
    step = 1 << max(0, (number - 1).bit_length() - 4)
    return -(-number // step) * step


class GraphedPass:
    """As `LeanPass`, for a model that `can_be_graphed`.

    Memory for all rows is taken at once.

    Args:
        model: the model.
        rows: how many.
        capacity: N.
    """

    def __init__(self, model: Any, rows: int, capacity: int) -> None:
        from generalist.decoding.kernels import Kernels

        self.body = body = model.base_model
        self.weights, self.kernels = packed(body), Kernels(body, capacity)
        config, width = body.config, body.layers[0].self_attn.head_dim
        self._spare = rows  # takes what fills up
        # Of every layer, (layers, 2, rows, K, N, D): one copy gives a row what another begins with.
        shape = len(body.layers), 2, rows + 1, config.num_key_value_heads, capacity, width
        self._stored = torch.zeros(shape, dtype=body.dtype, device=body.device)
        self._passes: dict[Shape, _Pass] = {}
        self._version = self.weights.version
        # Graphs share what they compute in: one runs at a time, and its result is copied at once.
        self.pool = torch.cuda.graph_pool_handle() if body.device.type == "cuda" else None

    def refresh(self, thoroughly: bool = False) -> None:
        """As `LeanPass.refresh`."""
        self.weights.refresh(self.body, thoroughly)
        if self.weights.version != self._version:  # graphs would read the weights of before
            self._passes.clear()
            self._version = self.weights.version

    @torch.inference_mode()
    def copy_prefix(self, source: int, target: int, tokens: int) -> None:
        """Give row `target` the first `tokens` keys and values of row `source`."""
        self._stored[:, :, target, :, :tokens] = self._stored[:, :, source, :, :tokens]

    @torch.inference_mode()
    def copy_rows(
        self, sources: Sequence[int], targets: Sequence[int], first: int, stop: int
    ) -> None:
        """Give each target row the keys and values of its source, of tokens `first` to `stop`."""
        old, new = (torch.tensor(rows, device=self.body.device) for rows in (sources, targets))
        part = self._stored[:, :, :, :, first:stop]
        part.index_copy_(2, new, part.index_select(2, old))

    def __call__(
        self,
        tokens: Sequence[int] | torch.Tensor,
        plan: RowPlan,
        asked: Sequence[int],
        added: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As `PlainPass.__call__`."""
        shape = Shape.of(plan, every=max(asked) > 1, added=added is not None)
        if shape not in self._passes:
            self._passes[shape] = _Pass(self, shape)
        one = self._passes[shape]
        one.inputs.fill(tokens, plan, self._spare)
        if added is not None:
            one.inputs.added[: len(added)].copy_(added)
        hidden = one.run()
        return hidden[plan.last(asked)] if max(asked) > 1 else hidden[: len(asked)].clone()

    def run(self, inputs: Inputs) -> torch.Tensor:
        """The pass itself, as it is recorded.

        Returns:
            (R, E) final states of each row's last new token, or (P, E) of every token.
        """
        kernels = self.kernels
        hidden = functional.embedding(inputs.ids, self.body.embed_tokens.weight)
        if inputs.shape.added:
            hidden = hidden + inputs.added
        layers = [*self.weights.layers, self.weights.last]
        spans = inputs.query_starts, inputs.rows, inputs.counts, inputs.shape.longest
        for layer, (keys, values) in zip(layers, self._stored, strict=True):
            projected = layer.qkv(kernels.norm(hidden, layer.input_norm))
            where = inputs.positions, inputs.token_rows, keys, values
            queries = kernels.turn(projected, layer.head_norm, *where)
            if layer is self.weights.last and not inputs.shape.every:
                queries, hidden = queries[inputs.last], hidden[inputs.last]
                spans = inputs.single_starts, inputs.rows, inputs.counts, 1
            attended = kernels.attend(queries, keys, values, *spans)
            hidden = layer.output.add_to(hidden, attended)
            opened = kernels.gate(layer.gate_up(kernels.norm(hidden, layer.mlp_norm)))
            hidden = layer.down.add_to(hidden, opened)
        return kernels.norm(hidden, self.weights.norm)


class _Pass:
    """Passes of one shape.

    Args:
        graphed: what runs them.
        shape: their shape.
    """

    def __init__(self, graphed: GraphedPass, shape: Shape) -> None:
        self.inputs = Inputs(shape, graphed.body)
        self._graphed = graphed
        self._is_recorded = graphed.body.device.type == "cuda" and shape.tokens <= LARGEST
        self._recording: tuple[torch.cuda.CUDAGraph, torch.Tensor] | None = None

    def run(self) -> torch.Tensor:
        """Final states for what `inputs` hold; valid until the next call."""
        if not self._is_recorded:
            return self._graphed.run(self.inputs)
        if self._recording is None:
            self._graphed.run(self.inputs)  # compiles and loads what is needed
            graph = torch.cuda.CUDAGraph()  # a new one where Ctrl-C has interrupted the last
            with torch.cuda.graph(graph, pool=self._graphed.pool):
                hidden = self._graphed.run(self.inputs)
            self._recording = graph, hidden
        graph, hidden = self._recording
        graph.replay()
        return hidden


class Inputs:
    """What passes of a shape are given, in one piece of memory here and one on the GPU.

    Args:
        shape: the shape.
        body: the model's body.

    Attributes:
        shape: the shape.
        ids: (P,) int32.
        positions: (P,) int32, of the tokens in their rows.
        token_rows: (P,) int32, the row of each token.
        query_starts: (R + 1,) int32, where each row's new tokens begin, and where the last ends.
        rows: (R,) int32, the number of each row.
        counts: (R,) int32, how many keys it has, the new ones included.
        last: (R,) int32, where in the pass its last new token stands.
        single_starts: (R + 1,) int32, `query_starts` where each row has one new token.
        added: (P, E) of the body's dtype, for the embeddings; (P, 0) where the shape has none.
    """

    def __init__(self, shape: Shape, body: Any) -> None:
        self.shape, device = shape, body.device
        width = body.config.hidden_size if shape.added else 0
        self.added = torch.zeros(shape.tokens, width, dtype=body.dtype, device=device)
        sizes = [*[shape.tokens] * 3, shape.rows + 1, *[shape.rows] * 3]
        self._host = torch.zeros(sum(sizes), dtype=torch.int32, pin_memory=device.type == "cuda")
        self._device = torch.zeros_like(self._host, device=device)
        self._parts = [part.numpy() for part in self._host.split(sizes)]
        self.ids, self.positions, self.token_rows, *spans = self._device.split(sizes)
        self.query_starts, self.rows, self.counts, self.last = spans
        self.single_starts = torch.arange(shape.rows + 1, dtype=torch.int32, device=device)
        self._copied = torch.cuda.Event() if device.type == "cuda" else None

    def fill(self, tokens: Sequence[int] | torch.Tensor, plan: RowPlan, spare: int) -> None:
        """Write a pass here, filled up to the shape.

        Args:
            tokens: the ids, here or on the GPU, where they stay.
            plan: of the pass.
            spare: the row that takes what fills up.
        """
        if self._copied is not None:
            self._copied.synchronize()  # what was written before has been read
        ids, positions, token_rows, query_starts, rows, counts, last = self._parts
        fed, new = np.array(plan.rows), np.array(plan.new_tokens)
        cached, ends = np.array(plan.cached_tokens), new.cumsum()
        given, count = len(tokens), len(fed)
        ids[:given], ids[given:] = 0 if isinstance(tokens, torch.Tensor) else tokens, 0
        positions[:given] = np.arange(given) + np.repeat(cached - (ends - new), new)
        positions[given:] = 0
        token_rows[:given], token_rows[given:] = np.repeat(fed, new), spare
        query_starts[1 : count + 1], query_starts[count + 1 :] = ends, given
        rows[:count], rows[count:] = fed, spare
        counts[:count], counts[count:] = cached + new, 0
        last[:count], last[count:] = ends - 1, 0
        self._device.copy_(self._host, non_blocking=True)
        if isinstance(tokens, torch.Tensor):
            self.ids[:given].copy_(tokens)
        if self._copied is not None:
            self._copied.record()


def can_be_graphed(body: Any) -> bool:
    """Whether a body that `is_known` lies on an NVIDIA GPU that `kernels.py` can be run on."""
    fits = body.dtype in DTYPES and body.layers[0].self_attn.head_dim in WIDTHS
    return fits and has_triton(body.device)
