"""Everything on every process: whole tensors go in and out, and what is saved goes on."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from generalist.errors import GeneralistError
from generalist.modeling.build import build_model
from generalist.modeling.recipe import ModelRecipe
from generalist.training.losses import OrdinalTargets
from generalist.training.objective import TokenObjective
from generalist.training.recipe import OptimizerRecipe, Recipe
from generalist.training.strategies.replicated import Replicated
from generalist.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    [("text", 32), ("special", 32), ("continuous", 32), ("discrete", 8), ("image", 8)]
)


def replicated(seed: int, tie: bool = True, name: str = "adamw") -> Replicated:
    model = ModelRecipe(hidden_size=8, intermediate_size=8, layers=1, heads=2, tie_embeddings=tie)
    recipe = Recipe(model=model, optimizer=OptimizerRecipe(name=name), cores=1)
    objective = TokenObjective(build_model(model, VOCABULARY, 16, seed), OrdinalTargets(0, 1, 0))
    return Replicated(objective, recipe, Accelerator(cpu=True))


def one_step(strategy: Replicated) -> float:
    ids = torch.arange(10)[None]
    strategy.model(input_ids=ids, labels=ids).loss.backward()
    return strategy.step()


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_what_another_takes_over_goes_on_the_same(tie, name):
    one, other = replicated(0, tie, name), replicated(1, tie, name)
    one_step(one)
    other.load(one.weights(), one.moments())
    assert one_step(one) == one_step(other)
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_tied_table_is_given_once():
    assert "lm_head.weight" not in replicated(0).weights()
    assert "lm_head.weight" in replicated(0, tie=False).weights()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_no_step(value):
    strategy = replicated(0)
    one_step(strategy)
    before = {name: tensor.clone() for name, tensor in strategy.weights().items()}
    moments = strategy.moments()
    for parameter in strategy.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    next(strategy.model.parameters()).grad[0, 0] = value
    assert not torch.isfinite(torch.tensor(strategy.step()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in strategy.weights().items())
    assert all(torch.equal(tensor, moments[key]) for key, tensor in strategy.moments().items())
    assert all(parameter.grad is None for parameter in strategy.model.parameters())


def test_the_weights_of_another_model_are_refused():
    one, other = replicated(0), replicated(0, tie=False)
    with pytest.raises(GeneralistError, match="another model: 1 missing"):
        other.load(one.weights(), one.moments())
