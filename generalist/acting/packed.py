"""The weights of a Llama or Qwen3 body as a lean pass wants them: fused, input-major, never stale.

Each linear layer is stored as (in, out), so that a few tokens are multiplied by it about 1.5 times
as fast on a CPU as by PyTorch's (out, in). Queries, keys and values are one matrix, and so are gate
and up. Within a head of queries or keys the two halves, which are rotated together, lie in turns;
of both alike, so that their products are the same. A model has one such copy, however many decoders
act with it. It follows the model where that is trained on or loaded anew: see `PackedBody.refresh`.

Legend: E = hidden size, H / K = attention / key heads, D = head dimension, I = intermediate size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

_KNOWN = ("llama", "qwen3")
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")  # angles that depend on the position alone


@dataclass
class PackedLayer:
    """One layer's weights; `head_norm` is (H + K, D) where heads are normalised, else None."""

    input_norm: torch.Tensor  # (E,), as all norms times sqrt(width): see `LeanPass._norm`
    qkv: torch.Tensor  # (E, (H + 2K) D)
    head_norm: torch.Tensor | None
    output: torch.Tensor  # (H D, E)
    mlp_norm: torch.Tensor  # (E,)
    gate_up: torch.Tensor  # (E, 2I)
    down: torch.Tensor  # (I, E)


class PackedBody:
    """All layers of a body, and `norm`, the last norm's weights. Make it by `packed`."""

    layers: list[PackedLayer]
    norm: torch.Tensor

    def __init__(self, body: Any) -> None:
        self._copy(body)

    @torch.inference_mode()
    def refresh(self, body: Any, thoroughly: bool = False) -> None:
        """Copy the weights again if the parameters are others or were changed since the last time.

        A change is seen by PyTorch's count of changes in place, which costs next to nothing but
        misses fused optimizers and what is written to `parameter.data`. Thoroughly: also by some
        numbers of every parameter, of which such a step leaves none as it was.
        """
        if _counts(body) != self._counts or (
            thoroughly and not torch.equal(_sample(body), self._sample)
        ):
            self._copy(body)

    @torch.inference_mode()
    def _copy(self, body: Any) -> None:
        self.layers = [_pack(layer) for layer in body.layers]
        self.norm = _norm(body.norm)
        self._counts, self._sample = _counts(body), _sample(body)


_PACKED: WeakKeyDictionary[nn.Module, PackedBody] = WeakKeyDictionary()


def packed(body: Any) -> PackedBody:
    """The packed weights of a body that `is_known`, as they are now."""
    if body in _PACKED:
        _PACKED[body].refresh(body, thoroughly=True)
    else:
        _PACKED[body] = PackedBody(body)
    return _PACKED[body]


def is_known(model: Any) -> bool:
    """True where the packed weights are all there is to the model's body."""
    config, body = model.config, model.base_model
    if config.model_type not in _KNOWN or config.hidden_act != "silu":
        return False
    if body.rotary_emb.rope_type not in _STATIC_ROPE:
        return False
    return all(
        getattr(layer.self_attn, "sliding_window", None) is None
        and all(type(each) is nn.Linear and each.bias is None for each in _linears(layer))
        for layer in body.layers
    )


def _linears(layer: Any) -> list[Any]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
        *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
    ]


def _pack(layer: Any) -> PackedLayer:
    query, key, value, output, gate, up, down = (each.weight.t() for each in _linears(layer))
    attention = layer.self_attn
    width = attention.head_dim
    head_norm = None
    if hasattr(attention, "q_norm"):  # Qwen3 normalises each head's queries and keys
        norms = (
            _in_turns(_norm(norm)[None], width).expand(weight.shape[1] // width, width)
            for norm, weight in ((attention.q_norm, query), (attention.k_norm, key))
        )
        head_norm = torch.cat(list(norms))
    return PackedLayer(
        _norm(layer.input_layernorm),
        torch.cat([_in_turns(query, width), _in_turns(key, width), value], dim=1),
        head_norm,
        output.contiguous(),
        _norm(layer.post_attention_layernorm),
        torch.cat([gate, up], dim=1),
        down.contiguous(),
    )


def _in_turns(weight: torch.Tensor, width: int) -> torch.Tensor:
    """(n, h D): of each head's D columns the first of either half, the second of either, ..."""
    halves = weight.reshape(len(weight), -1, 2, width // 2)
    return halves.transpose(2, 3).reshape(len(weight), -1)


def _norm(norm: Any) -> torch.Tensor:
    return norm.weight.float() * norm.weight.shape[0] ** 0.5


def _counts(body: Any) -> list[tuple[int, int]]:
    """Where each parameter lies and how often it was changed; inference mode does not count."""
    return [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in body.parameters()]


def _sample(body: Any) -> torch.Tensor:
    """Up to 32 numbers of every parameter, from end to end."""
    flat = (parameter.flatten() for parameter in body.parameters())
    return torch.cat([values[:: max(1, len(values) // 32)].float() for values in flat])
