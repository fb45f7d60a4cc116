"""The final folder: plain transformers load it, generalist finds its parts beside it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from generalist.integrity import verify
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor
from generalist.training.card import write_model_card
from generalist.training.loop import train
from generalist.training.recipe import load_recipe

PLAIN = """
import sys
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
ids = torch.arange(20)[None]
out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
assert out.shape[0] == 1 and 20 < out.shape[1] <= 24
torch.save(model(input_ids=ids).logits, sys.argv[2])
assert not any(name.split(".")[0] == "generalist" for name in sys.modules)
"""


@pytest.fixture
def checkpoint(make_recipe, data):
    recipe = make_recipe(schedule={"steps": 1, "warmup_steps": 0})
    return train(recipe, data), recipe


def test_the_folder_holds_what_acting_needs(checkpoint, data):
    folder, recipe = checkpoint
    own = folder / "generalist"
    processor = GeneralistProcessor.from_pretrained(own)
    assert processor.fingerprint == data.processor.fingerprint
    layouts = json.loads((own / "layouts.json").read_text())
    assert set(layouts) == set(data.task_names)
    assert all(len(Layout.from_dict(layout).legal) == 1 for layout in layouts.values())
    assert load_recipe(own / "recipe.yaml") == recipe
    verify(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == recipe.data.window_tokens
    assert "auto_map" not in config and "segments" not in json.dumps(config)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.get_input_embeddings().weight.shape[0] == processor.vocabulary.size


def test_the_card_takes_scores_again_and_again(checkpoint):
    folder, _ = checkpoint
    card = (folder / "README.md").read_text()
    assert "Not evaluated yet" in card and "gym/Pendulum-v1" in card
    write_model_card(folder, {"gym/Pendulum-v1": {"mean": -150.0, "normalized": 0.5}})
    write_model_card(
        folder,
        {
            "gym/Pendulum-v1": {"mean": -140.25, "normalized": 0.93, "episodes": 20},
            "text/pydoc": {"bits_per_byte": 1.75},
        },
    )
    card = (folder / "README.md").read_text()
    assert "| gym/Pendulum-v1 | -140 | 20 | 0.93 |  |" in card
    assert "| text/pydoc |  |  |  | 1.75 |" in card
    assert "-150" not in card and "Not evaluated" not in card and "## Use" in card
    verify(folder)


@pytest.mark.slow
def test_plain_transformers_load_it_without_generalist(checkpoint, tmp_path):
    folder, _ = checkpoint
    command = [sys.executable, "-c", PLAIN, str(folder), str(tmp_path / "logits.pt")]
    subprocess.run(command, check=True, cwd=tmp_path)
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    mine = model(input_ids=torch.arange(20)[None]).logits
    torch.testing.assert_close(mine, logits, atol=1e-5, rtol=1e-5)
