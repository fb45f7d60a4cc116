"""Packed weights follow the model: what a lean pass computes is never that of older weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from generalist.decoding import products
from generalist.decoding.decoder import Decoder
from generalist.decoding.lean import LeanPass
from generalist.decoding.packed import is_known, packed
from generalist.decoding.plain import PlainPass
from tests.decoding.models import VOCABULARY_SIZE, full_logits, tiny_model

EVERYTHING = (0, VOCABULARY_SIZE)


def difference(decoder: Decoder, model: nn.Module) -> float:
    """Of the logits after a new sequence to those of the model as it is now."""
    decoder.reset(0, [1, 2, 3])
    own = decoder.logits(decoder.feed([0], [[4, 5]], [1]), EVERYTHING)[0]
    return float((own - full_logits(model, decoder.context(0))).abs().max())


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_step_is_followed(architecture: str, optimizer: type) -> None:
    model = tiny_model(architecture)
    decoder = Decoder(model, 1)
    assert isinstance(decoder.forward, LeanPass) and difference(decoder, model) < 1e-4
    before = full_logits(model, decoder.context(0))
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    for fused in (False, True):
        steps = optimizer(model.parameters(), lr=0.1, fused=fused)
        model(ids, labels=ids).loss.backward()
        steps.step()
        assert difference(decoder, model) < 1e-4
    learned = before - full_logits(model, decoder.context(0))
    assert learned.abs().max() > 0.1


def test_weights_loaded_or_replaced_are_followed() -> None:
    model, other = tiny_model(), tiny_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.7)
    for assign in (False, True):
        decoder = Decoder(model, 1)
        model.load_state_dict(copy.deepcopy(other.state_dict()), assign=assign)
        assert difference(decoder, model) < 1e-4
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.add_(0.5)
        assert difference(decoder, model) < 1e-4


def test_a_reset_sees_what_leaves_no_trace() -> None:
    """A write to `parameter.data`; fused optimizers are the other case."""
    model = tiny_model()
    decoder = Decoder(model, 1)
    for other in (Decoder(model, 1), decoder):
        model.model.layers[1].self_attn.q_proj.weight.data.mul_(3)
        assert difference(other, model) < 1e-4


def test_decoders_of_a_model_share_one_copy() -> None:
    model = tiny_model()
    assert packed(model.model) is packed(model.model)
    assert Decoder(model, 1).forward.weights is Decoder(model, 2).forward.weights


def test_what_is_not_known_exactly_goes_through_its_own_code() -> None:
    class Scaled(nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(states)

    model = tiny_model("llama")
    assert is_known(model)
    old = model.model.layers[1].mlp.down_proj
    new = Scaled(old.in_features, old.out_features, bias=False)
    new.load_state_dict(old.state_dict())
    model.model.layers[1].mlp.down_proj = new
    decoder = Decoder(model, 1)
    assert isinstance(decoder.forward, PlainPass) and difference(decoder, model) < 1e-4


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("blocks", [False, True])
def test_bfloat16_is_as_near_to_float32_as_the_model_itself(
    architecture: str, blocks: bool, monkeypatch
) -> None:
    if not blocks:
        monkeypatch.setattr(products, "_has_blocks", lambda: False)
    exact, half = tiny_model(architecture), tiny_model(architecture).bfloat16()
    decoder = Decoder(half, 1)
    decoder.reset(0, [1, 2, 3])
    for first in range(4, 24, 4):
        hidden = decoder.feed([0], [list(range(first, first + 4))], [1])
    own = decoder.logits(hidden, EVERYTHING)[0].float()
    context = decoder.context(0)
    expected, plain = full_logits(exact, context), full_logits(half, context).float()
    spread = expected.std()
    assert own.isfinite().all() and (own - expected).std() < 0.05 * spread
    assert (own - expected).std() < 2 * (plain - expected).std()
