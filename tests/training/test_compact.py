"""Training in the compact form: what rows are laid out as, split into and resumed from is one."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.errors import GeneralistError, UsageError
from generalist.modeling.embedder_files import FORM_FILE, WEIGHTS_FILE, stored_form
from generalist.training.data import open_data, task_weights
from generalist.training.loop import TrainingInterrupted, train
from generalist.training.losses import OrdinalTargets
from generalist.training.objective import TokenObjective
from generalist.training.setup import build_start
from generalist.training.tensors import to_tensors
from tests.training.runs import (
    Counting,
    assert_bitwise_equal,
    launched,
    recipe_file,
    replaced,
    weights,
)

SIZES = {"hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2}


@pytest.fixture
def compact(make_recipe):
    def make(**sections):
        embedders = {"positions": 2, "width": 4}
        model = {**SIZES, "form": "compact", "embedders": embedders, **sections.pop("model", {})}
        return make_recipe(model=model, **sections)

    return make


@pytest.fixture
def rows(compact):
    return open_data(compact(data={**compact().data.model_dump(), "prompt_fraction": 0.5}))


def embedders_in(run):
    return load_file(run / "checkpoint" / "generalist" / WEIGHTS_FILE)


def assert_same_embedders(one, other):
    a, b = embedders_in(one), embedders_in(other)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_rows_segments_and_segments_alone_have_the_same_losses(compact, rows):
    """A segment sees no other: each is also computed in a row of its own."""
    assert_same_losses(compact(), rows)


def assert_same_losses(recipe, rows):
    bins = rows.processor.vocabulary["continuous"]
    model = build_start(recipe, rows)
    objective = TokenObjective(model, OrdinalTargets(bins.start, bins.stop, 2.0))
    batch, of_task = rows.windows.batch(0, 3), task_weights(rows, False)
    packed = objective(to_tensors(batch, of_task, segments=False))
    lined = to_tensors(batch, of_task, segments=True)
    order = np.argsort(to_tensors(batch, of_task, segments=False).targets.order, kind="stable")
    other = np.argsort(lined.targets.order, kind="stable")
    losses = objective(lined)
    torch.testing.assert_close(losses.sort().values, packed.sort().values, atol=1e-5, rtol=1e-5)
    assert sorted(order) == sorted(other) and len(packed) > 50
    alone = []
    starts = [*np.flatnonzero(batch.position_ids.ravel() == 0), batch.input_ids.size]
    for start, stop in zip(starts, starts[1:], strict=False):
        cut = {
            name: each.reshape(1, -1)[:, start:stop]
            for name, each in vars(batch).items()
            if name not in ("given", "foreseen", "soft")
        }
        cut |= {
            name: tuple(each.within(start, stop) for each in getattr(batch, name))
            for name in ("given", "foreseen")
        }
        part = to_tensors(replace(batch, **cut), of_task, segments=False)
        if len(part.targets.ids):
            alone.append(objective(part))
    alone = torch.cat(alone).sort().values  # outcomes stand behind all other targets of a pass
    torch.testing.assert_close(alone, packed.sort().values, atol=1e-5, rtol=1e-5)


def test_every_parameter_has_a_gradient_whatever_is_in_the_pass(compact, rows):
    """Ranks that average gradients wait for each of them."""
    bins = rows.processor.vocabulary["continuous"]
    model = build_start(compact(), rows)
    objective = TokenObjective(model, OrdinalTargets(bins.start, bins.stop, 2.0))
    batch = next(rows.windows.batch(0, 1).split(1))
    only = replace(batch, given=batch.given[:1])
    objective(to_tensors(only, task_weights(rows, False), segments=False)).sum().backward()
    assert all(p.grad is not None and p.grad.is_contiguous() for p in model.parameters())


@pytest.mark.parametrize("cores", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_resumed_equals_uninterrupted_bitwise(compact, rows, tmp_path, cores):
    train(compact(cores=cores, output_dir=tmp_path / "whole"), rows)
    stopping = Counting(rows.windows, at=4 * 3, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(TrainingInterrupted):
        train(compact(cores=cores, output_dir=tmp_path / "cut"), replaced(rows, stopping))
    train(compact(cores=cores, output_dir=tmp_path / "cut"), rows)
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "cut")
    assert_same_embedders(tmp_path / "whole", tmp_path / "cut")


def test_how_rows_are_split_does_not_matter(compact, rows, tmp_path):
    for cores, per_forward in ((1, 4), (2, 1)):
        recipe = compact(cores=cores, output_dir=tmp_path / f"{cores}")
        recipe.data.rows_per_forward = per_forward
        recipe.optimizer.eps = 1e-6
        train(recipe, rows)
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-5, rtol=1e-4)
    one, two = embedders_in(tmp_path / "1"), embedders_in(tmp_path / "2")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-5, rtol=1e-4)


def test_two_ranks_are_resumed_and_equal_one_process(compact, tmp_path):
    data = {**compact().data.model_dump(mode="json"), "prompt_fraction": 0.5}
    whole = compact(data=data, output_dir=tmp_path / "one")
    train(whole, open_data(whole))
    recipe = compact(data=data, output_dir=tmp_path / "two")
    launched(
        recipe_file(recipe, tmp_path / "launch"), "ddp", "tests.training.interrupted", str(tmp_path)
    )
    for found in (weights, embedders_in):
        one, two = found(tmp_path / "one"), found(tmp_path / "two")
        assert one.keys() == two.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-5)


def test_the_checkpoint_is_a_plain_model_with_embedders_beside_it(compact, rows, tmp_path):
    from transformers import AutoModelForCausalLM

    folder = train(compact(output_dir=tmp_path / "run"), rows)
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert not any(name.startswith("embedders") for name in weights(tmp_path / "run"))
    assert stored_form(folder) == rows.form
    result = rollout(Agent.from_pretrained(folder, "gym/CartPole-v1"), episodes=2, progress=False)
    assert result.episodes == 2
    agent = Agent.from_pretrained(folder, "gym/CartPole-v1")
    agent.save_pretrained(tmp_path / "again")
    again = Agent.from_pretrained(tmp_path / "again", "gym/CartPole-v1")
    for name, tensor in agent.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)


def test_damaged_or_missing_embedders_never_act(compact, rows, tmp_path):
    folder = train(compact(output_dir=tmp_path / "run"), rows)
    parts = folder / "generalist"
    whole = (parts / WEIGHTS_FILE).read_bytes()
    (parts / WEIGHTS_FILE).write_bytes(whole[:-8])
    with pytest.raises(GeneralistError, match=WEIGHTS_FILE):
        Agent.from_pretrained(folder, "gym/CartPole-v1")
    (parts / WEIGHTS_FILE).write_bytes(whole)
    form = json.loads((parts / FORM_FILE).read_text())
    form["signatures"] = form["signatures"][:1]
    (parts / FORM_FILE).write_text(json.dumps(form))
    with pytest.raises(GeneralistError, match=FORM_FILE):
        Agent.from_pretrained(folder, "gym/CartPole-v1")
    (parts / FORM_FILE).unlink()
    (folder / "manifest.json").unlink()  # as after a change by hand: nothing else says it then
    with pytest.raises(GeneralistError, match=f"compact form.*{FORM_FILE} is missing"):
        Agent.from_pretrained(folder, "gym/CartPole-v1")


def test_a_run_that_starts_from_a_checkpoint_keeps_its_embedders(compact, rows, tmp_path):
    folder = train(compact(output_dir=tmp_path / "first"), rows)
    onwards = compact(
        model={"init_from": str(folder)}, schedule={"steps": 1}, output_dir=tmp_path / "next"
    )
    onwards.optimizer.lr = 1e-12
    train(onwards, open_data(onwards))
    before, after = embedders_in(tmp_path / "first"), embedders_in(tmp_path / "next")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)


def test_a_run_has_the_form_of_the_checkpoint_it_starts_from(compact, make_recipe, rows, tmp_path):
    folder = train(compact(output_dir=tmp_path / "first"), rows)
    start = {"init_from": str(folder)}
    again = make_recipe(model=start, schedule={"steps": 1}, output_dir=tmp_path / "next")
    assert stored_form(train(again)) == rows.form
    flat = make_recipe(model={**start, "form": "flat"}, output_dir=tmp_path / "flat")
    with pytest.raises(UsageError, match="model.form is flat.*has compact"):
        train(flat)
