"""What the objective's columns are in expectation, over all actions of a state."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from generalist.envs import make
from generalist.modeling.values import start_values
from generalist.training.reinforcement.fleet import Fleet
from generalist.training.reinforcement.objective import COLUMNS, ReinforcementObjective
from generalist.training.reinforcement.policy import hidden_of, log_probs_of
from generalist.training.reinforcement.recipe import ReinforcementRecipe
from generalist.training.reinforcement.timesteps import Shower
from generalist.training.reinforcement.unrolls import pass_of, play_unroll
from tests.decoding.models import compact_agent

ACROBOT = "gym/Acrobot-v1"  # three actions
START = torch.tensor([0.9, 0.09, 0.01])


@pytest.fixture
def every_action():
    """An objective, and a pass over one state in which each action is taken once."""
    agent = compact_agent(ACROBOT, log_probs=True, temperature=1.0)
    agent.model.values = start_values("scalar", (ACROBOT,), agent.model.config.hidden_size)
    fleet = Fleet(
        Shower(agent.processor, agent.model.embedders.form, agent.layouts),
        agent.processor,
        makers=[partial(make, ACROBOT)],
        counts=[3],
        seed_of=lambda number, episode: 0,
    )
    fleet.begin()
    recipe = ReinforcementRecipe(tasks={ACROBOT: {"environments": 3}}, unroll=1, minibatches=1)
    unroll = play_unroll(agent.model, fleet, recipe, random=torch.Generator().manual_seed(0)).unroll
    fleet.close()
    ((start, stop),) = agent.layouts[ACROBOT].legal
    unroll.ids[:, 0, 0] = np.arange(start, stop)
    unroll.reference[:, 0] = START.log()
    batch = pass_of(unroll, fleet, [0, 1, 2], scale=np.ones(1, np.float32), weight={})
    return ReinforcementObjective(SimpleNamespace(model=agent.model), recipe), batch


@pytest.mark.parametrize("acted", [None, [0.2, 0.5, 0.3]], ids=["policy", "another"])
def test_the_divergence_and_its_gradient_are_those_of_the_exact_one(every_action, acted):
    """Far from the start, whoever acted."""
    objective, batch = every_action
    head = objective.model.get_output_embeddings().weight
    ((_, log_probs),) = log_probs_of(
        objective.model, hidden_of(objective.model, batch.timesteps), batch.tokens
    )
    policy = log_probs[0]
    torch.testing.assert_close(log_probs[1:], policy.expand(2, -1))  # it is one state
    exact = (policy.exp() * (policy - START.log())).sum()
    assert exact > 0.5
    acted = policy.detach().exp() if acted is None else torch.tensor(acted)
    columns = objective(replace(batch, behaviour=acted.log()[:, None]))
    expected = (acted * columns[:, 0, COLUMNS.index("kl")]).sum()
    torch.testing.assert_close(expected, exact)
    wanted, found = (torch.autograd.grad(each, head)[0] for each in (exact, expected))
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
