"""The lean forward pass equals the plain one of transformers, values and gradients."""

from __future__ import annotations

import pytest
import torch

from generalist.modeling.build import build_model
from generalist.modeling.recipe import ModelRecipe
from generalist.modeling.segments import can_run_segments, hidden_at
from generalist.vocabulary import Vocabulary

VOCABULARY = Vocabulary.default()
WINDOW = 72


def small_model(architecture: str, kv_heads: int = 4, layers: int = 3):
    recipe = ModelRecipe(
        architecture=architecture,
        hidden_size=32,
        intermediate_size=48,
        layers=layers,
        heads=4,
        kv_heads=kv_heads,
    )
    return build_model(recipe, VOCABULARY, WINDOW, seed=1).train()


def plain_hidden(model, input_ids, position_ids):
    return model.get_decoder()(
        input_ids=input_ids, position_ids=position_ids, use_cache=False
    ).last_hidden_state


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize("layers", [1, 3])
def test_equals_the_plain_forward_pass(architecture, kv_heads, layers):
    model = small_model(architecture, kv_heads, layers)
    generator = torch.Generator().manual_seed(0)
    lengths = [20, 1, 7, 7, 7, 27]
    ids = torch.randint(VOCABULARY.size, (sum(lengths),), generator=generator)
    positions = torch.cat([torch.arange(n) for n in lengths])
    # None in the segment of one token; in those of seven 2, 2 and 1.
    index = torch.tensor([0, 3, 19, 22, 26, 28, 34, 40, 46, 47, 68])
    expected = plain_hidden(model, ids[None], positions[None])[0, index]
    grow = torch.randn(expected.shape, generator=generator)
    gradients = torch.autograd.grad((expected * grow).sum(), list(model.model.parameters()))

    assert can_run_segments(model.get_decoder())
    embedded = model.get_input_embeddings()(ids)
    lean = hidden_at(model.get_decoder(), embedded, positions, lengths, index)
    torch.testing.assert_close(lean, expected, atol=1e-5, rtol=1e-5)
    lean_gradients = torch.autograd.grad((lean * grow).sum(), list(model.model.parameters()))
    for mine, theirs in zip(lean_gradients, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_products_in_bfloat16_are_near(architecture):
    model = small_model(architecture)
    generator = torch.Generator().manual_seed(0)
    lengths = [20, 7, 7, 30]
    ids = torch.randint(VOCABULARY.size, (sum(lengths),), generator=generator)
    positions = torch.cat([torch.arange(n) for n in lengths])
    index = torch.tensor([3, 19, 22, 26, 28, 40, 63])
    exact, near = (
        hidden_at(
            model.get_decoder(), model.get_input_embeddings()(ids), positions, lengths, index, half
        )
        for half in (False, True)
    )
    assert near.dtype == torch.float32 and not torch.equal(near, exact)
    assert (near - exact).norm() < 0.02 * exact.norm()
    grow = torch.randn(exact.shape, generator=generator)
    weights = list(model.model.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(near, weights, grow),
        torch.autograd.grad(exact, weights, grow),
        strict=True,
    ):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() <= 0.05 * theirs.norm()


@pytest.mark.parametrize("half", [False, True])
def test_no_position_asked_for_gives_no_rows_and_zero_gradients(half):
    model = small_model("llama")
    nothing = torch.zeros(0, dtype=torch.int64)
    embedded = model.get_input_embeddings()(torch.arange(8))
    hidden = hidden_at(model.get_decoder(), embedded, torch.arange(8), [8], nothing, half)
    assert hidden.shape == (0, 32)
    hidden.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_equals_unpacked_in_train_mode(architecture, attention):
    """Canary: the plain forward pass keeps packed segments apart by their position ids.

    If this breaks, transformers changed how it finds packed sequences: re-audit
    `masking_utils.find_packed_sequence_indices` and the call in training/objective.py
    (attention_mask=None, use_cache=False). Until then packed episodes read each other.
    """
    model = small_model(architecture)
    model.set_attn_implementation(attention)
    generator = torch.Generator().manual_seed(0)
    lengths = [17, 9, 22]
    rows = [torch.randint(VOCABULARY.size, (2, n), generator=generator) for n in lengths]
    packed = plain_hidden(
        model,
        torch.cat(rows, dim=1),
        torch.cat([torch.arange(n) for n in lengths]).expand(2, -1),
    )
    alone = [plain_hidden(model, ids, torch.arange(ids.shape[1]).expand(2, -1)) for ids in rows]
    difference = (packed - torch.cat(alone, dim=1)).abs().max().item()
    assert difference < 1e-5, (
        f"packed and unpacked hidden states differ by {difference}: transformers no longer keeps "
        "packed segments apart by position ids; re-audit masking_utils and training/objective.py"
    )
