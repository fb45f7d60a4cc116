"""Adapters: merging them changes nothing, and they alone, with the tables, are trained."""

from __future__ import annotations

import pytest
import torch

from generalist.modeling.build import build_model
from generalist.modeling.lora import add_adapters, merged
from generalist.modeling.recipe import LoraRecipe, ModelRecipe
from generalist.vocabulary import Vocabulary

SIZES = ModelRecipe(hidden_size=16, intermediate_size=24, layers=2, heads=2)
LORA = LoraRecipe(rank=2, alpha=8)
VOCABULARY = Vocabulary([("text", 32), ("special", 32), ("continuous", 32)])


@pytest.fixture
def adapted():
    model = build_model(SIZES, VOCABULARY, 16)
    add_adapters(model, LORA)
    return model


def test_the_body_stands_still(adapted):
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert "model.embed_tokens.weight" in trained
    others = trained - {"model.embed_tokens.weight"}
    assert len(others) == 2 * 7 * 2 and all(".lora_" in name for name in others)


def test_it_starts_as_the_model_was(adapted):
    ids = torch.arange(10)[None]
    assert torch.equal(adapted(ids).logits, build_model(SIZES, VOCABULARY, 16)(ids).logits)


def test_merged_it_computes_the_same_with_plain_names(adapted):
    plain = build_model(SIZES, VOCABULARY, 16, seed=1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_" in name:
                parameter.normal_()
    ids = torch.arange(10)[None]
    result = plain.load_state_dict(merged(adapted.state_dict(), LORA))
    assert not result.missing_keys and not result.unexpected_keys
    torch.testing.assert_close(plain(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
    before = build_model(SIZES, VOCABULARY, 16)(ids).logits
    assert (plain(ids).logits - before).abs().max() > 0.1
