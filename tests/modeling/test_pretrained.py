"""Starting from a language model or a checkpoint of our own: what was learned stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
)

from generalist.cli.main import main
from generalist.errors import GeneralistError, UsageError
from generalist.modeling.pretrained import start_model, with_sizes_of_start
from generalist.modeling.recipe import ModelRecipe
from generalist.specs import find_spec
from generalist.tokenization.processor import GeneralistProcessor
from generalist.tokenization.text import TextCodec
from generalist.vocabulary import Vocabulary
from tests.conftest import TinyRun
from tests.language_model import TEXT_IDS, save_language_model


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("language_model"))


@pytest.fixture(scope="module")
def adopted(language_model, tmp_path_factory) -> GeneralistProcessor:
    out = tmp_path_factory.mktemp("adopted")
    assert main(["tokenizer", "adopt", str(language_model), "--out", str(out)]) == 0
    return GeneralistProcessor.from_pretrained(out)


def recipe_for(source: Path, **sizes: object) -> ModelRecipe:
    return ModelRecipe.model_validate({"init_from": str(source), **sizes})


def test_sizes_are_those_of_the_start(language_model):
    recipe = with_sizes_of_start(recipe_for(language_model))
    assert (recipe.architecture, recipe.hidden_size, recipe.layers) == ("qwen3", 16, 2)
    assert (recipe.kv_heads, recipe.head_dim, recipe.tie_embeddings) == (1, 8, False)
    assert with_sizes_of_start(recipe) == recipe
    with pytest.raises(UsageError, match="model.layers is 4, but .* has 2"):
        with_sizes_of_start(recipe_for(language_model, layers=4))


def test_a_text_is_continued_as_before_and_new_rows_are_there(language_model, adopted):
    """Logits of text ids on text are those of the language model, bit for bit."""
    model = start_model(with_sizes_of_start(recipe_for(language_model)), adopted, 64)
    old = AutoModelForCausalLM.from_pretrained(language_model)
    vocabulary = adopted.vocabulary
    assert vocabulary["text"].size == TEXT_IDS
    assert model.config.vocab_size == vocabulary.size == TEXT_IDS + 32 + 3 * 1024 + 256
    ids = torch.tensor([adopted.text.encode("def main() -> None:\n    pass")])
    with torch.no_grad():
        before, after = old(ids).logits, model(ids).logits
    assert torch.equal(before[..., :TEXT_IDS], after[..., :TEXT_IDS])

    for table, kept in (
        (model.get_input_embeddings().weight, old.get_input_embeddings().weight),
        (model.get_output_embeddings().weight, old.get_output_embeddings().weight),
    ):
        mean = kept[:TEXT_IDS].mean(dim=0)
        special = table[vocabulary["special"].start : vocabulary["special"].stop]
        torch.testing.assert_close(special, mean.expand_as(special))
        scalars = table[vocabulary["continuous"].start : vocabulary["continuous"].stop] - mean
        assert float(scalars.std()) == pytest.approx(float(kept[:TEXT_IDS].std()), rel=0.1)
        near = (scalars[1:] - scalars[:-1]).norm(dim=1).mean()
        far = (scalars[:512] - scalars[512:]).norm(dim=1).mean()
        assert 3 * near < far, "bins of like values do not start alike"
    assert model.get_input_embeddings().padding_idx is None
    assert model.config.eos_token_id == vocabulary.special("end")


def test_it_is_the_same_for_the_same_seed_and_leaves_the_generator(language_model, adopted):
    recipe = with_sizes_of_start(recipe_for(language_model))
    state = torch.get_rng_state()
    one, other = (start_model(recipe, adopted, 64, seed) for seed in (1, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_text_tokens_of_another_tokenizer_are_refused(language_model):
    recipe = with_sizes_of_start(recipe_for(language_model))
    with pytest.raises(UsageError, match="tokenizer adopt"):
        start_model(recipe, GeneralistProcessor.default(), 64)


def test_a_window_beyond_its_positions_is_refused(language_model, adopted):
    with pytest.raises(UsageError, match="window_tokens is 512.*up to 256"):
        start_model(with_sizes_of_start(recipe_for(language_model)), adopted, 512)


@pytest.mark.parametrize(
    ("damage", "said"), [("cut", "damaged or cut short"), ("gone", "cannot be loaded")]
)
def test_half_the_weights_are_no_start(language_model, adopted, tmp_path, damage, said):
    shutil.copytree(language_model, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        weights.unlink()
    with pytest.raises(GeneralistError, match=said):
        start_model(with_sizes_of_start(recipe_for(tmp_path / "model")), adopted, 64)


def test_what_is_no_model_is_said(tmp_path):
    with pytest.raises(UsageError, match="no model"):
        with_sizes_of_start(recipe_for(tmp_path))


def test_a_range_is_added_to_our_own_checkpoint(tiny_run: TinyRun, tmp_path):
    assert main(["tokenizer", "extend", "gripper", "64", "--out", str(tmp_path / "wide")]) == 0
    wide = GeneralistProcessor.from_pretrained(tmp_path / "wide")
    old = AutoModelForCausalLM.from_pretrained(tiny_run.checkpoint)
    model = start_model(with_sizes_of_start(recipe_for(tiny_run.checkpoint)), wide, 64)
    rows, before = model.get_input_embeddings().weight, old.get_input_embeddings().weight
    assert len(rows) == len(before) + 64 and torch.equal(rows[: len(before)], before)
    torch.testing.assert_close(rows[len(before) :], before.mean(dim=0).expand(64, -1))
    assert model.get_output_embeddings().weight is rows


def test_a_range_in_the_middle_is_another_vocabulary(tiny_run: TinyRun):
    text = TextCodec.from_pretrained(find_spec("tokenizers", "text"))
    ranges = [(r.name, r.size) for r in Vocabulary.default()]
    moved = GeneralistProcessor(Vocabulary([*ranges[:2], ("gripper", 64), *ranges[2:]]), text)
    with pytest.raises(UsageError, match="Only ranges appended at the end"):
        start_model(with_sizes_of_start(recipe_for(tiny_run.checkpoint)), moved, 64)
