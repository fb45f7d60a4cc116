"""The body of a Llama or Qwen3 model, run on the same modules and weights with less ado.

Acting feeds few tokens at a time, so what a pass costs besides its arithmetic counts: here the
norms are one kernel instead of five, and the last layer computes queries, output and MLP only for
the tokens whose state is asked for (its keys and values it computes for all). A test holds it
equal to the model's own forward pass; other architectures use that one.

Legend: P = tokens of the pass, R = rows asked for, H / K = attention / key heads, D = head
dimension, E = hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from generalist.acting.cache import RowCache, RowPlan, row_attention

_KNOWN = ("llama", "qwen3")


def is_known(model: Any) -> bool:
    """True where `lean_forward` computes what the model's own body computes."""
    config = model.config
    if config.model_type not in _KNOWN:
        return False
    layers = model.base_model.layers
    return all(getattr(layer.self_attn, "sliding_window", None) is None for layer in layers)


def lean_forward(
    body: Any, ids: torch.Tensor, cache: RowCache, plan: RowPlan, count: int
) -> torch.Tensor:
    """Feed ids (P,) as `plan` says; (count, E) final states of the first `count` rows."""
    hidden = functional.embedding(ids, body.embed_tokens.weight)
    cosine, sine = body.rotary_emb(hidden, plan.position_ids)  # (1, P, D)
    cosine, sine = cosine[0, :, None], sine[0, :, None]
    final = len(body.layers) - 1
    for index, layer in enumerate(body.layers):
        attention = layer.self_attn
        normed = _norm(hidden, layer.input_layernorm)
        keys, values = _keys_values(attention, normed, cosine, sine)
        keys, values = cache.update(keys, values, index)
        wanted = plan
        if index == final:
            last = plan.last[:count]
            hidden, normed, cosine, sine = (t[last] for t in (hidden, normed, cosine, sine))
            wanted = plan.last_only(count)
        queries = _heads(attention.q_proj(normed), attention.head_dim)
        queries = _rotate(_maybe_norm(queries, attention, "q_norm"), cosine, sine)
        attended, _ = row_attention(
            attention, queries.transpose(0, 1)[None], keys, values, None,
            scaling=attention.scaling, row_plan=wanted,
        )  # fmt: skip
        hidden = hidden + attention.o_proj(attended[0].flatten(1))
        hidden = hidden + layer.mlp(_norm(hidden, layer.post_attention_layernorm))
    return _norm(hidden, body.norm)


def _keys_values(
    attention: Any, normed: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(P, E) to keys and values, each (1, K, P, D)."""
    keys = _maybe_norm(_heads(attention.k_proj(normed), attention.head_dim), attention, "k_norm")
    values = _heads(attention.v_proj(normed), attention.head_dim)
    return _rotate(keys, cosine, sine).transpose(0, 1)[None], values.transpose(0, 1)[None]


def _heads(states: torch.Tensor, width: int) -> torch.Tensor:
    return states.view(len(states), -1, width)


def _norm(states: torch.Tensor, norm: Any) -> torch.Tensor:
    return functional.rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)


def _maybe_norm(states: torch.Tensor, attention: Any, name: str) -> torch.Tensor:
    """Qwen3 normalises each head's queries and keys, Llama does not."""
    norm = getattr(attention, name, None)
    return states if norm is None else _norm(states, norm)


def _rotate(states: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021, section 3.4.2) on (P, heads, D), halves as pairs."""
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat((-second, first), dim=-1) * sine
