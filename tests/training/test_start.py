"""Runs that start from a checkpoint, and runs that train adapters."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from transformers import AutoModelForCausalLM

from generalist.errors import GeneralistError, UsageError
from generalist.training.loop import TrainingInterrupted, train
from generalist.training.objective import TokenObjective
from generalist.training.strategies import launch
from tests.training.runs import Counting, assert_bitwise_equal, replaced, weights

LORA = {"hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2, "lora": {"rank": 2}}


def first_loss(run) -> float:
    return json.loads((run / "log.jsonl").read_text().splitlines()[0])["loss"]


def test_training_goes_on_from_a_checkpoint(make_recipe, data, tmp_path):
    options = {"optimizer": {"lr": 0.01}, "schedule": {"steps": 40, "warmup_steps": 2}}
    first = train(make_recipe(**options, output_dir=tmp_path / "first"), data)
    more = make_recipe(model={"init_from": str(first)}, output_dir=tmp_path / "more")
    folder = train(more, data)
    assert first_loss(tmp_path / "more") < first_loss(tmp_path / "first") - 1
    config = AutoModelForCausalLM.from_pretrained(folder).config
    assert (config.hidden_size, config.num_hidden_layers) == (16, 2)

    # The same command again finds it done; another start is another run.
    train(more, data)
    other = make_recipe(model={"init_from": str(folder)}, output_dir=tmp_path / "more")
    with pytest.raises(GeneralistError, match="model.init_from"):
        train(other, data)


def test_other_sizes_than_those_of_the_start_are_refused(make_recipe, data, tmp_path):
    first = train(make_recipe(output_dir=tmp_path / "first"), data)
    with pytest.raises(UsageError, match="model.hidden_size is 32"):
        train(make_recipe(model={"init_from": str(first), "hidden_size": 32}), data)


def test_adapters_are_trained_resumed_bitwise_and_exported_merged(make_recipe, data, tmp_path):
    train(make_recipe(model=LORA, output_dir=tmp_path / "whole"), data)

    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    cut = make_recipe(model=LORA, output_dir=tmp_path / "cut")
    with pytest.raises(TrainingInterrupted):
        train(cut, replaced(data, Counting(data.windows, 3 * 4, terminate)))
    train(cut, data)
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "cut")

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "checkpoint")
    assert weights(tmp_path / "whole").keys() == {
        name for name in plain.state_dict() if name != "lm_head.weight"
    }
    untrained = make_recipe(
        model=LORA, output_dir=tmp_path / "none", optimizer={"lr": 1e-12, "weight_decay": 0}
    )
    train(untrained, data)
    moved, start = weights(tmp_path / "whole"), weights(tmp_path / "none")
    assert not torch.allclose(*(w["model.layers.0.mlp.up_proj.weight"] for w in (moved, start)))
    assert torch.equal(*(w["model.norm.weight"] for w in (moved, start)))


@pytest.mark.parametrize(("start", "wide", "precision"), [(160, 150, "bf16"), (16, 64, "fp32")])
def test_what_is_said_of_the_precision_is_what_runs(
    make_recipe, data, tmp_path, monkeypatch, capsys, start, wide, precision
):
    """Adapters take autocast, where the model they start from is wide enough."""
    sizes = {"hidden_size": start, "intermediate_size": 32, "layers": 1, "heads": 2}
    once = {"schedule": {"steps": 1, "warmup_steps": 0}}
    first = train(make_recipe(model=sizes, **once, output_dir=tmp_path / "first"), data)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(launch, "AMX_HIDDEN_SIZE", wide)
    real, autocast = TokenObjective.forward, []

    def forward(self, batch):
        autocast.append(torch.is_autocast_enabled("cpu"))
        return real(self, batch)

    monkeypatch.setattr(TokenObjective, "forward", forward)
    capsys.readouterr()
    adapted = {"init_from": str(first), "lora": {"rank": 2}}
    train(make_recipe(model=adapted, **once, precision="auto", output_dir=tmp_path / "more"), data)
    assert f", {precision}, from step 0" in capsys.readouterr().out
    assert set(autocast) == {precision == "bf16"}


def test_adapters_without_peft_name_the_extra(make_recipe, data, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(GeneralistError, match=r"\[lora\]"):
        train(make_recipe(model=LORA), data)
