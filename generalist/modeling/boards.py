"""A board as header and one position: the forward pass of self-play and of search.

The model and its embedders are those of the compact form; this is their plain forward pass over
`[header, observation]` with less work. A header is one position that knows its task alone, so its
keys and values serve all boards of the task: a board costs one position in place of two.

At that position attention chooses between two keys, the header's and its own. A softmax of two is
a sigmoid of the difference. Rotary positions matter by their difference alone, so the header's key
is turned back by one step and nothing else is turned.

The tables are trained in one of two ways. Where boards are all that is learned, the rows that they
use are parameters of their own, so that a step does not walk over the whole vocabulary. Where other
tasks are learned beside, which share rows with boards, the whole tables are.

The same hidden state gives both answers: the logits of the moves' ids, and, at three ids of the
range of returns, whether the game will be lost, drawn or won.

Legend: B = boards, K = cells, T = tasks, D = hidden size, H = heads, E = head dim, M = moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from generalist.errors import UsageError
from generalist.modeling.embedders import embedders_of
from generalist.modeling.fused import rms_norm, rotate
from generalist.modeling.segments import can_run_segments

OUTCOMES = 3  # lost, drawn, won


@dataclass(frozen=True)
class BoardIds:
    """Ids and rows that a board game uses.

    Attributes:
        signature: name of the embedder of boards.
        begin: id of the header.
        separator: id of the observation's position.
        first_cell: id of a cell's code 0.
        moves: ids of the M moves.
        outcomes: ids for lost, drawn and won.
        tasks: rows of the table of tasks, T.
    """

    signature: str
    begin: int
    separator: int
    first_cell: int
    moves: Sequence[int]
    outcomes: Sequence[int]
    tasks: Sequence[int]


@dataclass(frozen=True)
class _Layer:
    """The weights of a block, those that multiply the same input as one matrix."""

    input_norm: Tensor
    qkv: Tensor
    head_norm: Tensor | None  # (2 H, E) of queries and keys, where the model has them
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True)
class _Weights:
    layers: list[_Layer]
    given: Tensor  # (2, D), of header and observation
    keys: list[Tensor]  # of the T headers, (T, H, E) a block, turned back by one step
    values: list[Tensor]
    head: Tensor  # (M + 3, D)


class BoardNetwork(nn.Module):
    """The part of a model in the compact form that plays boards.

    Args:
        model: a plain causal LM with its embedders.
        ids: what boards use of its vocabulary.
        whole: train the whole model, its tables included; else what boards use of it alone, with
            their rows as parameters of their own, which `store` writes back.

    Raises:
        UsageError: the model is in the flat form, shows an observation as several positions, has
            no embedder of these boards, or is of an architecture whose inside is not known.
    """

    def __init__(self, model: PreTrainedModel, ids: BoardIds, *, whole: bool = False) -> None:
        super().__init__()
        _check(model, ids)
        self.body = model.get_decoder()
        self.ids = ids
        self._model = [model]  # in a list: its tables are no parameters of this module
        embedders = embedders_of(model)
        assert embedders is not None
        self.embedder = embedders.by_name[ids.signature]
        self.tasks = embedders.tasks
        self._whole = whole
        if not whole:
            given, head = self._rows_of_tables()
            self.given = nn.Parameter(given.detach().clone())
            self.head = nn.Parameter(head.detach().clone())
            self.body.embed_tokens.weight.requires_grad_(False)
        config = model.config
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self._packed: _Weights | None = None

    def _rows_of_tables(self) -> tuple[Tensor, Tensor]:
        """Of header and observation, (2, D), and of the head, (M + 3, D)."""
        tables, ids = _tables(self._model[0]), self.ids
        given, head = [ids.begin, ids.separator], [*ids.moves, *ids.outcomes]
        return tables[0][given], tables[-1][head]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.tasks.device

    @property
    def tables(self) -> list[nn.Parameter]:
        """What is looked up or compared with, not multiplied by."""
        if not self._whole:
            return [self.given, self.head, self.tasks, self.embedder.table]
        embedders = embedders_of(self._model[0])
        assert embedders is not None
        return [*_tables(self._model[0]), *embedders.tables]

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name: those that boards use, or all of the model."""
        module: nn.Module = self._model[0] if self._whole else self
        return {name: each for name, each in module.named_parameters() if each.requires_grad}

    @torch.no_grad()
    def store(self) -> PreTrainedModel:
        """The model, with the rows as they are now."""
        model, ids = self._model[0], self.ids
        if not self._whole:
            tables = _tables(model)
            tables[0][[ids.begin, ids.separator]] = self.given
            tables[-1][[*ids.moves, *ids.outcomes]] = self.head
        return model

    def forget(self) -> None:
        """Pack the weights anew for the next `judge`, because they have changed."""
        self._packed = None

    def forward(self, cells: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of moves (B, M) and of outcomes (B, 3).

        Args:
            cells: (B, K) uint8 codes.
            task: (B,) int64, which of the T tasks.
        """
        return self._answer(self._pack(), cells, task)

    @torch.inference_mode()
    def judge(self, cells: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, without gradients, on weights packed once."""
        if self._packed is None:
            self._packed = self._pack()
        return self._answer(self._packed, cells, task)

    def _answer(self, weights: _Weights, cells: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.embedder(cells.long() + self.ids.first_cell)[:, 0]
        hidden = weights.given[1] + seen  # (B, D)
        own = (len(cells), -1, weights.keys[0].shape[-1])
        for layer, keys, values in zip(weights.layers, weights.keys, weights.values, strict=True):
            query, key, value = self._projected(layer, hidden)
            # The header's score less the own one's, of which a sigmoid makes its share.
            gap = (query * (keys.index_select(0, task) - key)).sum(-1, keepdim=True)
            share = torch.sigmoid(gap * own[2] ** -0.5)
            mixed = torch.lerp(value, values.index_select(0, task), share)
            hidden = hidden + F.linear(mixed.flatten(1), layer.output)
            hidden = hidden + self._feed_forward(layer, hidden)
        logits = F.linear(self._norm(hidden, self.body.norm.weight), weights.head)
        return logits[:, :-OUTCOMES], logits[:, -OUTCOMES:]

    def _pack(self) -> _Weights:
        """The weights of all blocks, and what they say of the headers of all tasks."""
        layers = [self._packed_layer(block) for block in self.body.layers]
        rows = torch.tensor(self.ids.tasks, device=self.tasks.device)
        given, head = self._rows_of_tables() if self._whole else (self.given, self.head)
        hidden = given[0] + self.tasks.index_select(0, rows)  # (T, D)
        one = torch.ones(1, 1, dtype=torch.int64, device=hidden.device)
        cosine, sine = (
            table[0, :, None, : table.shape[-1] // 2] for table in self.body.rotary_emb(hidden, one)
        )
        keys, values = [], []
        for layer in layers:
            _, key, value = self._projected(layer, hidden)
            keys.append(rotate(key, cosine, -sine))
            values.append(value)
            hidden = hidden + F.linear(value.flatten(1), layer.output)  # it sees itself alone
            hidden = hidden + self._feed_forward(layer, hidden)
        return _Weights(layers, given, keys, values, head)

    def _packed_layer(self, block: Any) -> _Layer:
        attention, mlp = block.self_attn, block.mlp
        norms: list[Any] = [getattr(attention, f"{name}_norm", None) for name in "qk"]
        counts = self.heads, self.key_heads
        head_norm = None
        if norms[0] is not None:  # Qwen3 has them, Llama has not
            pairs = zip(norms, counts, strict=True)
            head_norm = torch.cat([norm.weight.expand(count, -1) for norm, count in pairs])
        return _Layer(
            input_norm=block.input_layernorm.weight,
            qkv=torch.cat([getattr(attention, f"{name}_proj").weight for name in "qkv"]),
            head_norm=head_norm,
            output=attention.o_proj.weight,
            mlp_norm=block.post_attention_layernorm.weight,
            gate_up=torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
            down=mlp.down_proj.weight,
        )

    def _projected(self, layer: _Layer, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (B, D), each (B, H, E)."""
        heads, key_heads = self.heads, self.key_heads
        projected = F.linear(self._norm(hidden, layer.input_norm), layer.qkv)
        projected = projected.unflatten(1, (heads + 2 * key_heads, -1))
        turned, value = projected.split([heads + key_heads, key_heads], dim=1)
        if layer.head_norm is not None:
            turned = self._norm(turned, layer.head_norm)
        query, key = turned.split([heads, key_heads], dim=1)
        if heads > key_heads:
            times = heads // key_heads
            key, value = (each.repeat_interleave(times, dim=1) for each in (key, value))
        return query, key, value

    def _feed_forward(self, layer: _Layer, hidden: Tensor) -> Tensor:
        gate, up = F.linear(self._norm(hidden, layer.mlp_norm), layer.gate_up).chunk(2, dim=1)
        return F.linear(F.silu(gate) * up, layer.down)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight, self.body.norm.variance_epsilon)


def _tables(model: PreTrainedModel) -> list[nn.Parameter]:
    """The input embedding, and the head where it is another."""
    tables = [model.get_input_embeddings().weight]
    if model.get_output_embeddings().weight is not tables[0]:
        tables.append(model.get_output_embeddings().weight)
    return tables


def _check(model: PreTrainedModel, ids: BoardIds) -> None:
    embedders, body = embedders_of(model), model.get_decoder()
    if embedders is None or ids.signature not in embedders.by_name:
        raise UsageError(
            "The model knows no boards: it has no embedder of them. Train it by "
            "`generalist selfplay`."
        )
    if embedders.form.positions != 1:
        raise UsageError(
            f"The model shows an observation as {embedders.form.positions} positions, and boards "
            "are played by models with one (model.embedders.positions)."
        )
    if embedders.form.returns is not None:
        raise UsageError(
            "The model was trained with returns, and boards are played by models without: leave "
            "`returns` out of the recipe."
        )
    if embedders.form.world is not None:
        raise UsageError(
            "The model is a world model, and boards are played by models that are none: leave "
            "`world` out of the recipe."
        )
    plain = not any(name.endswith("bias") for name, _ in body.layers.named_parameters())
    known = can_run_segments(body) and plain and body.rotary_emb.attention_scaling == 1.0
    if not known:
        raise UsageError(
            f"Boards are played by Llama and Qwen3 without biases, not by {type(body).__name__}."
        )
