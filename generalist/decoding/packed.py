"""The weights of a Llama or Qwen3 body as a lean pass wants them: fused, input-major, never stale.

Each linear layer is stored as (in, out), so that a few tokens are multiplied by it about 1.5 times
as fast on a CPU as by PyTorch's (out, in); in bfloat16 as `products.py` says. Queries, keys and
values are one matrix, and so are gate and up. Within a head of queries or keys the two halves,
which are rotated together, lie in turns; of both alike, so that their products are the same. A
model has one such copy, however many decoders act with it. It follows the model where that is
trained on or loaded anew: see `PackedBody.refresh`.

Legend: E = hidden size, H / K = attention / key heads, D = head dimension, I = intermediate size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from generalist.decoding.products import Product, product

_KNOWN = ("llama", "qwen3")
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")  # angles that depend on the position alone


@dataclass
class PackedLayer:
    """One layer's weights; norms are float32, times the root of their width.

    Attributes:
        input_norm: (E,).
        qkv: (E, (H + 2K) D).
        head_norm: (H + K, D); None where heads are not normalised.
        output: (H D, E).
        mlp_norm: (E,).
        gate_up: (E, 2I).
        down: (I, E).
    """

    input_norm: torch.Tensor
    qkv: Product
    head_norm: torch.Tensor | None
    output: Product
    mlp_norm: torch.Tensor
    gate_up: Product
    down: Product


@dataclass
class PackedLastLayer(PackedLayer):
    """The last layer's weights, with the parts of `qkv`: not every token's query is needed there.

    Attributes:
        queries: (E, H D).
        keys_values: (E, 2K D).
    """

    queries: Product
    keys_values: Product


class PackedBody:
    """The weights of a body. Make it by `packed`.

    Args:
        body: a body that `is_known`.

    Attributes:
        layers: all layers but the last.
        last: the last layer.
        norm: (E,) float32, of the norm behind it.
        version: another number whenever the weights were copied again.
    """

    layers: list[PackedLayer]
    last: PackedLastLayer
    norm: torch.Tensor
    version: int

    def __init__(self, body: Any) -> None:
        self.version = 0
        self._copy(body)

    @torch.inference_mode()
    def refresh(self, body: Any, thoroughly: bool = False) -> None:
        """Copy the weights again if the parameters were changed since the last time.

        A change is seen by PyTorch's count of changes in place, which costs next to nothing but
        misses fused optimizers, what is written to `parameter.data`, and a parameter put in the
        place of another.

        Args:
            body: the body.
            thoroughly: also look at some numbers of every parameter, of which such a step leaves
                none as it was.
        """
        if _counts(self._parameters) != self._counts or (
            thoroughly and not torch.equal(_sample(body), self._sample)
        ):
            self._copy(body)

    @torch.inference_mode()
    def _copy(self, body: Any) -> None:
        self.layers = [PackedLayer(**_pack(layer)) for layer in body.layers[:-1]]
        self.last = PackedLastLayer(**_pack(body.layers[-1]), **_pack_parts(body.layers[-1]))
        self.norm = _norm(body.norm)
        self._parameters = list(body.parameters())  # listing them takes longer than a look at them
        self._counts, self._sample = _counts(self._parameters), _sample(body)
        self.version += 1


_PACKED: WeakKeyDictionary[nn.Module, PackedBody] = WeakKeyDictionary()


def packed(body: Any) -> PackedBody:
    """The packed weights of a body that `is_known`, as they are now."""
    if body in _PACKED:
        _PACKED[body].refresh(body, thoroughly=True)
    else:
        _PACKED[body] = PackedBody(body)
    return _PACKED[body]


def rotations(body: Any, positions: int) -> torch.Tensor:
    """What the halves of a head are multiplied by, as complex numbers, at each position.

    Args:
        body: a body that `is_known`.
        positions: how many, from 0 on.

    Returns:
        (positions, D / 2) complex64.
    """
    numbers = torch.arange(positions, device=body.norm.weight.device)[None]
    with torch.inference_mode():
        cosine, sine = body.rotary_emb(torch.empty(0, device=numbers.device), numbers)
    half = cosine.shape[-1] // 2
    return torch.complex(cosine[0, :, :half], sine[0, :, :half])


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


def _pack(layer: Any) -> dict[str, Any]:
    """What a PackedLayer is made of."""
    attention, mlp = layer.self_attn, layer.mlp
    return {
        "input_norm": _norm(layer.input_layernorm),
        "qkv": product(torch.cat(_projections(attention), dim=1)),
        "head_norm": _head_norm(attention),
        "output": product(attention.o_proj.weight.t().contiguous()),
        "mlp_norm": _norm(layer.post_attention_layernorm),
        "gate_up": product(torch.cat([mlp.gate_proj.weight.t(), mlp.up_proj.weight.t()], dim=1)),
        "down": product(mlp.down_proj.weight.t().contiguous()),
    }


def _pack_parts(layer: Any) -> dict[str, Product]:
    """What a PackedLastLayer has besides."""
    query, key, value = _projections(layer.self_attn)
    return {"queries": product(query), "keys_values": product(torch.cat([key, value], dim=1))}


def _projections(attention: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of queries (E, H D), keys and values (E, K D)."""
    query, key, value = (
        each.weight.t() for each in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    width = attention.head_dim
    return _in_turns(query, width), _in_turns(key, width), value


def _head_norm(attention: Any) -> torch.Tensor | None:
    """(H + K, D) where each head's queries and keys are normalised, as in Qwen3."""
    if not hasattr(attention, "q_norm"):
        return None
    width = attention.head_dim
    norms = (
        _in_turns(_norm(norm)[None], width).expand(projection.out_features // width, width)
        for norm, projection in (
            (attention.q_norm, attention.q_proj),
            (attention.k_norm, attention.k_proj),
        )
    )
    return torch.cat(list(norms))


def _in_turns(weight: torch.Tensor, width: int) -> torch.Tensor:
    """(n, h D): of each head's D columns the first of either half, the second of either, ..."""
    halves = weight.reshape(len(weight), -1, 2, width // 2)
    return halves.transpose(2, 3).reshape(len(weight), -1)


def _norm(norm: Any) -> torch.Tensor:
    return norm.weight.float() * norm.weight.shape[0] ** 0.5


def _counts(parameters: list[nn.Parameter]) -> list[tuple[int, int]]:
    """Where each parameter lies and how often it was changed; inference mode does not count."""
    return [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in parameters]


def _sample(body: Any) -> torch.Tensor:
    """Up to 32 numbers of every parameter, from end to end."""
    flat = (parameter.flatten() for parameter in body.parameters())
    return torch.cat([values[:: max(1, len(values) // 32)].float() for values in flat])
