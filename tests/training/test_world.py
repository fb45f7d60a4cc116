"""Training a world model: packed equals alone, resumed equals uninterrupted; what is refused."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.errors import UsageError
from generalist.modeling.embedder_files import stored_form
from generalist.tokenization.outcomes import TaskWorld
from generalist.training.data import open_data, task_weights
from generalist.training.loop import TrainingInterrupted, train
from generalist.training.losses import OrdinalTargets
from generalist.training.objective import TokenObjective
from generalist.training.setup import build_start
from generalist.training.tensors import to_tensors
from tests.training.runs import Counting, assert_bitwise_equal, replaced
from tests.training.test_compact import SIZES, assert_same_embedders, assert_same_losses

# Cut after 60 steps, CartPole earns 1 a step for ever: with a discount all returns are the same.
WORLD = {"discount": {"gym/CartPole-v1": 1, "default": 0.99}}
CARTPOLE, PENDULUM = "gym/CartPole-v1", "gym/Pendulum-v1"


@pytest.fixture
def foreseeing(make_recipe):
    def make(**sections):
        embedders = {"positions": 1, "width": 4, **sections.pop("embedders", {})}
        model = {**SIZES, "form": "compact", "embedders": embedders, **sections.pop("model", {})}
        return make_recipe(model=model, **{"world": WORLD, **sections})

    return make


@pytest.fixture
def rows(foreseeing):
    return open_data(foreseeing(data={**foreseeing().data.model_dump(), "prompt_fraction": 0.5}))


def test_rows_segments_and_segments_alone_have_the_same_losses(foreseeing, rows):
    batch = rows.windows.batch(0, 3)
    assert len(batch.foreseen) == 2 and all(len(each.index) > 3 for each in batch.foreseen)
    assert_same_losses(foreseeing(), rows)


def test_with_returns_too(foreseeing):
    recipe = foreseeing(returns={"show": 0.5, "discount": WORLD["discount"]})
    both = open_data(recipe)
    assert both.form.returns is not None and both.form.world is not None
    assert_same_losses(recipe, both)


def test_each_part_of_an_outcome_is_learned_from_its_own_place(foreseeing, rows):
    """Changing one target changes its own loss, and of later tokens those that are given it."""
    model = build_start(foreseeing(), rows)
    for head in model.embedders.worlds.values():
        torch.nn.init.normal_(head.earlier, std=0.3)
    bins = rows.processor.vocabulary["continuous"]
    objective = TokenObjective(model, OrdinalTargets(bins.start, bins.stop, 2.0))
    batch = next(rows.windows.batch(0, 1).split(1))
    batch.foreseen = batch.foreseen[:1]
    (outcomes,) = batch.foreseen

    def losses():
        given = to_tensors(batch, task_weights(rows, False), segments=False)
        plain = len(given.plain_targets.ids)
        return objective(given)[plain:].view(outcomes.ids.shape).detach()

    before, tokens = losses(), outcomes.ids.shape[1]
    for place in range(2, tokens):  # an end and a reward have few codes here
        outcomes.ids[0, place] ^= 1  # its neighbour in the range, which begins even
        changed = losses() != before
        outcomes.ids[0, place] ^= 1
        assert not changed[1:].any() and not changed[0, :place].any() and changed[0, place]
        assert changed[0].sum() == (1 if place == 2 else tokens - place)
    assert torch.equal(losses(), before)


def test_every_parameter_has_a_gradient_whatever_is_in_the_pass(foreseeing, rows):
    """Ranks that average gradients wait for each of them."""
    bins = rows.processor.vocabulary["continuous"]
    model = build_start(foreseeing(), rows)
    objective = TokenObjective(model, OrdinalTargets(bins.start, bins.stop, 2.0))
    batch = next(rows.windows.batch(0, 1).split(1))
    batch.foreseen = batch.foreseen[:1]
    objective(to_tensors(batch, task_weights(rows, False), segments=False)).sum().backward()
    assert all(p.grad is not None and p.grad.is_contiguous() for p in model.parameters())


def test_resumed_equals_uninterrupted_bitwise_and_plans(foreseeing, rows, tmp_path):
    train(foreseeing(output_dir=tmp_path / "whole"), rows)
    stopping = Counting(rows.windows, at=4 * 3, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(TrainingInterrupted):
        train(foreseeing(output_dir=tmp_path / "cut"), replaced(rows, stopping))
    train(foreseeing(output_dir=tmp_path / "cut"), rows)
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "cut")
    assert_same_embedders(tmp_path / "whole", tmp_path / "cut")
    agent = Agent.from_pretrained(tmp_path / "whole" / "checkpoint", PENDULUM)
    assert agent.worlds.keys() == {CARTPOLE, PENDULUM}
    assert TaskWorld.from_dict(agent.worlds[PENDULUM]) == rows.worlds[PENDULUM]
    given = {"episodes": 2, "max_steps": 5, "progress": False}
    assert rollout(agent, plan="beam:width=3,horizon=2", **given).episodes == 2
    agent.save_pretrained(tmp_path / "again")
    again = Agent.from_pretrained(tmp_path / "again", PENDULUM)
    assert again.worlds == agent.worlds and stored_form(tmp_path / "again") == rows.form


def test_a_checkpoint_without_learns_it_and_one_with_it_can_go_on_without(foreseeing, tmp_path):
    plain = foreseeing(world=None, output_dir=tmp_path / "plain")
    train(plain, open_data(plain))
    start = {"init_from": str(tmp_path / "plain" / "checkpoint")}
    learned = foreseeing(model=start, output_dir=tmp_path / "learned")
    train(learned, open_data(learned))
    before, after = (stored_form(tmp_path / run / "checkpoint") for run in ("plain", "learned"))
    assert before.world is None and after.world is not None
    assert (after.tasks, after.signatures) == (before.tasks, before.signatures)
    start = {"init_from": str(tmp_path / "learned" / "checkpoint")}
    again = foreseeing(model=start, world=None, output_dir=tmp_path / "again")
    train(again, open_data(again))
    agent = Agent.from_pretrained(tmp_path / "again" / "checkpoint", CARTPOLE)
    with pytest.raises(UsageError, match="is no world model"):
        rollout(agent, episodes=1, plan="beam", progress=False)


def test_what_cannot_be_foreseen_is_said(foreseeing):
    with pytest.warns(UserWarning, match="All returns.*gym/CartPole-v1.*nothing can be planned"):
        data = open_data(foreseeing(world={"discount": 0.99}))
    assert set(data.worlds) == {PENDULUM}
    assert len(data.windows.batch(0, 8).foreseen) == 1
    with pytest.raises(UsageError, match="recipe with world trains in the compact form"):
        open_data(foreseeing(model={"form": "flat"}))
    with pytest.raises(UsageError, match="one position.*this one has 2"):
        open_data(foreseeing(embedders={"positions": 2}))
