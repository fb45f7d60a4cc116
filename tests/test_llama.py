"""benchmarks/llama.py: llama.cpp computes what transformers computes, where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from benchmarks import acting
from benchmarks.acting_peers import ACTION_TOKENS, LlamaPeer
from benchmarks.llama import LlamaCpp, Sequences
from generalist.modeling.build import build_model
from generalist.modeling.recipe import ModelRecipe
from generalist.tokenization.processor import GeneralistProcessor

pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python")
pytest.importorskip("gguf", reason="pip install gguf")

VOCABULARY = GeneralistProcessor.default().vocabulary
WINDOW = 96
LARGEST_DIFFERENCE = 1e-3
LARGEST_IN_HALF = 0.03  # of logits whose standard deviation is about 1.2


def small_model(architecture: str, tied: bool = True) -> PreTrainedModel:
    """Two layers with grouped queries and heads that are not hidden_size / heads wide."""
    recipe = ModelRecipe.model_validate(
        {
            "architecture": architecture,
            "hidden_size": 64,
            "intermediate_size": 96,
            "layers": 2,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 32,
            "tie_embeddings": tied,
        }
    )
    model = build_model(recipe, VOCABULARY, WINDOW).eval()
    with torch.no_grad():  # a fresh norm is all ones, which would hide one that is left out
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 2.0)
    return model


@torch.no_grad()
def full_logits(model: PreTrainedModel, tokens: np.ndarray) -> np.ndarray:
    """(B, V) logits after (B, n) tokens, without any cache."""
    return model(torch.from_numpy(tokens), use_cache=False).logits[:, -1].numpy()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_logits_are_those_of_transformers(architecture: str, tied: bool):
    model = small_model(architecture, tied)
    llama = LlamaCpp(model)
    exact, half = (Sequences(llama, 3, WINDOW, threads=1, half=half) for half in (False, True))
    rng = np.random.default_rng(0)
    tokens = np.tile(rng.integers(VOCABULARY.size, size=40), (3, 1))
    for each in (exact, half):
        each.begin(tokens[0])
    for new in (19, 1, 1, 19, 5):  # the sequences go on differently
        if new == 5:
            exact.cut(30)
            half.cut(30)
            tokens = tokens[:, :30]
        more = rng.integers(VOCABULARY.size, size=(3, new))
        tokens = np.hstack([tokens, more])
        full = full_logits(model, tokens)
        assert np.abs(exact.feed(more) - full).max() < LARGEST_DIFFERENCE
        assert np.abs(half.feed(more) - full).max() < LARGEST_IN_HALF
        assert exact.length == half.length == tokens.shape[1]
        assert full.std() > 1 and np.abs(full[0] - full[1]).max() > 1, "all logits are alike"


def test_the_peer_takes_the_likeliest_bins_of_each_environment():
    model = small_model("llama")
    peer = LlamaPeer(LlamaCpp(model), VOCABULARY, WINDOW, environments=2)
    start, stop = peer.source.bins
    for _ in range(5):  # cut back to half a window on the way
        peer.step()
        assert peer.difference(model) < LARGEST_DIFFERENCE
        before = peer.tokens.shape[1] - ACTION_TOKENS
        for place in range(before, before + ACTION_TOKENS):
            logits = full_logits(model, peer.tokens[:, :place])[:, start:stop]
            chosen = np.take_along_axis(logits, peer.tokens[:, place, None] - start, 1)[:, 0]
            assert (logits.max(1) - chosen < LARGEST_DIFFERENCE).all()
    assert (peer.tokens[0] != peer.tokens[1]).any()


def test_the_acting_benchmark_has_a_row_of_it(tmp_path: Path):
    out = tmp_path / "out.json"
    arguments = ["--size", "1M", "--window", "96", "--rounds", "8", "--no-checks"]
    acting.main([*arguments, "--batch", "2", "--batch", "3", "--json", str(out)])
    (found,) = json.loads(out.read_text())["sizes"]
    environments = {each["subject"]: each["environments"] for each in found["timings"]}
    for name in ("llama.cpp", "llama.cpp f16"):
        assert [environments[f"{name}{many}"] for many in ("", " x 2", " x 3")] == [1, 2, 3]
    facts = found["facts"]
    assert facts["llama_logit_difference"] < LARGEST_DIFFERENCE
    assert facts["llama_f16_logit_difference"] < LARGEST_IN_HALF
    assert facts["times_llama"] > 0 and facts["compact_times_llama_f16"] > 0
