"""What is seen in an unroll is what an agent sees, also where its window turned over."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from generalist.envs import make
from generalist.errors import UsageError
from generalist.modeling.values import start_values
from generalist.training.reinforcement import crew
from generalist.training.reinforcement.fleet import Fleet
from generalist.training.reinforcement.objective import COLUMNS, ReinforcementObjective
from generalist.training.reinforcement.policy import act, log_probs_taken, values_at
from generalist.training.reinforcement.recipe import ReinforcementRecipe
from generalist.training.reinforcement.timesteps import Shower, in_view
from generalist.training.reinforcement.unrolls import (
    minibatches,
    pass_of,
    play_unroll,
    states_of_unroll,
)
from tests.decoding.models import compact_agent
from tests.training.reinforcement.test_fleet import play, seed_of, seen

LUNAR, GOTO = "gym/LunarLanderContinuous-v3", "babyai/GoToLocal"
CONTEXTS = {LUNAR: 4, GOTO: 3}


@pytest.fixture(params=[1, 2], ids=["one-position", "two-positions"])
def acting(request):
    """An agent with values that sees several timesteps, and environments that have begun."""
    agent = compact_agent(
        *CONTEXTS, positions=request.param, window=96, log_probs=True, temperature=1.0,
        context_steps=CONTEXTS,
    )  # fmt: skip
    hidden_size = agent.model.config.hidden_size
    agent.model.values = start_values("scalar", tuple(CONTEXTS), hidden_size)
    with torch.no_grad():
        agent.model.values.weight.normal_(generator=torch.Generator().manual_seed(0))
    fleet = fleet_for(agent)
    fleet.begin()
    yield agent, fleet
    fleet.close()


def fleet_for(agent) -> Fleet:
    return Fleet(
        Shower(agent.processor, agent.model.embedders.form, agent.layouts),
        agent.processor,
        makers=[partial(make, task, max_steps=17) for task in agent.layouts],
        counts=[2, 2],
        seed_of=seed_of,
        contexts=list(CONTEXTS.values()),
    )


def test_an_agent_sees_as_much_and_its_actions_are_as_probable(acting):
    """Beyond the limit of a context, and into the next episode."""
    agent, fleet = acting
    players = [[agent.for_task(task) for _ in range(2)] for task in fleet.shower.tasks]
    lengths = [set(), set()]
    for step in range(20):
        states = fleet.observe()
        ids = act(agent.model, fleet.shower, states, torch.Generator().manual_seed(step)).ids
        expected = []
        for number, places in enumerate(fleet._crews[0]._crew._parts):
            for row, place in enumerate(places):
                player, trace = players[number][row], place.running
                observation = {k: v[None] for k, v in trace.observation.items()} \
                    if isinstance(trace.observation, dict) else trace.observation[None]  # fmt: skip
                told = {"instruction": trace.instruction}
                if not place.taken:
                    player.begin([0], [step], [told])
                decision = player.decide(observation, [told], [0])
                ids[fleet.of_task[number]][row, : decision.ids.shape[1]] = decision.ids[0]
                expected.append(decision.log_probs.sum())
                lengths[number].add(int(states[number].counts[row]))
        said = log_probs_taken(agent.model, fleet.shower, states, ids)
        np.testing.assert_allclose(said, expected, atol=3e-4)
        fleet.step(ids)
    assert lengths == [{1, 2, 3, 4}, {1, 2, 3}]


def test_what_is_in_view_never_exceeds_the_limit_and_never_falls_below_half():
    for most in range(1, 9):
        counts = [in_view(step, most) for step in range(50)]
        assert counts[:most] == list(range(1, most + 1))
        assert set(counts[most:]) == set(range(most // 2 + 1, most + 1))
        assert all(b in (a + 1, most // 2 + 1) for a, b in zip(counts, counts[1:], strict=False))


def test_an_unroll_repeats_what_was_said_when_it_was_played(acting):
    """Timesteps that share a run are what they were alone, over the border of two unrolls."""
    agent, fleet = acting
    recipe = ReinforcementRecipe(tasks={task: {"environments": 2} for task in CONTEXTS},
                                 unroll=9, minibatches=1)  # fmt: skip
    for number in range(3):
        random = torch.Generator().manual_seed(number)
        unroll = play_unroll(agent.model, fleet, recipe, random=random).unroll
        states = [states_of_unroll(unroll, fleet, task, slice(None, 9)) for task in range(2)]
        assert all(len(each.counts) < len(each.chosen) for each in states)
        said = log_probs_taken(agent.model, fleet.shower, states, unroll.ids.reshape(36, -1))
        np.testing.assert_allclose(said, unroll.log_probs.ravel(), atol=1e-4)
        states = [states_of_unroll(unroll, fleet, task, slice(None)) for task in range(2)]
        worth = values_at(agent.model, fleet.shower, states)
        np.testing.assert_allclose(worth, unroll.values.ravel(), atol=1e-4)
        part = pass_of(unroll, fleet, [1, 2], scale=np.ones(2, np.float32), weight={})
        assert part.timesteps.first.shape == (2 * 10,) and part.task.tolist() == [0, 1]


def test_what_is_in_view_is_found_again(acting):
    agent, fleet = acting
    play(fleet, 13)
    other = fleet_for(agent)
    other.shower.know(fleet.shower.known())
    other.restore(fleet.state())
    assert seen(other) == seen(fleet)
    for one, two in zip(fleet.observe(), other.observe(), strict=True):
        np.testing.assert_array_equal(one.counts, two.counts)
    play(fleet, 7, 1)
    play(other, 7, 1)
    assert seen(other) == seen(fleet)
    other.close()


def test_success_alone_is_learned_from_where_it_is_asked_for(acting):
    agent, fleet = acting
    goto = {"environments": 2, "success_only": True, "reward_scale": 3.0}
    tasks = {LUNAR: {"environments": 2}, GOTO: goto}
    recipe = ReinforcementRecipe(tasks=tasks, unroll=17, minibatches=1)
    random, came = torch.Generator().manual_seed(0), 0
    for _ in range(20):
        played = play_unroll(agent.model, fleet, recipe, random=random)
        rewards, ends = played.unroll.rewards, played.unroll.discounts == 0
        reached = [each.return_ > 0 for each in played.finished if each.task == 1]
        assert not rewards[2:][~ends[2:]].any() and rewards[:2][~ends[:2]].all()
        assert (rewards[2:] == 3.0).sum() == sum(reached)
        came += sum(reached)
    assert came, "nobody reached anything"


def test_a_context_without_room_is_refused(acting):
    """An agent would see fewer timesteps than were learned with."""
    agent, _ = acting
    form = agent.model.embedders.form
    shower = Shower(agent.processor, form, agent.layouts, contexts=[4, 3], window_tokens=20)
    shower.header(0, None)
    with pytest.raises(UsageError, match="babyai/GoToLocal: a header of .*data.window_tokens = 20"):
        shower.header(1, "go to the red ball " * 5)


def test_no_minibatch_is_empty_while_any_environment_is_usable():
    fleet = SimpleNamespace(of_task=[slice(0, 4)])
    for usable in ([1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0]):
        unroll = SimpleNamespace(usable=np.array(usable, bool))
        groups = minibatches(unroll, fleet, 4, (0, 1))
        assert len(groups) == 4 and all(groups)
        assert {number for group in groups for number in group} == set(np.flatnonzero(usable))
    assert not minibatches(SimpleNamespace(usable=np.zeros(4, bool)), fleet, 4, (0, 1))


def test_a_success_that_a_limit_cuts_earns_nothing_behind(acting, monkeypatch):
    """It counts once: what a value promises of success is had already."""
    agent, fleet = acting
    goto = {"environments": 2, "success_only": True}
    recipe = ReinforcementRecipe(
        tasks={LUNAR: {"environments": 2}, GOTO: goto}, unroll=17, minibatches=1
    )
    for succeeded in (False, True):
        monkeypatch.setattr(crew, "_succeeded", lambda trace, said=succeeded: said)
        fleet.begin()
        played = play_unroll(agent.model, fleet, recipe, random=torch.Generator().manual_seed(0))
        rewards, ends = played.unroll.rewards, played.unroll.discounts == 0
        cut = rewards[2:, -1][ends[2:, -1]]
        assert len(cut) and (cut == 1.0).all() == succeeded
        assert (rewards[:2][ends[:2]] != 1.0).all()  # where rewards are learned from


def test_the_clip_takes_effect_where_the_surrogate_would_gain_by_going_further(acting):
    agent, fleet = acting
    recipe = ReinforcementRecipe(tasks={task: {"environments": 2} for task in CONTEXTS},
                                 unroll=9, minibatches=1)  # fmt: skip
    unroll = play_unroll(agent.model, fleet, recipe, random=torch.Generator().manual_seed(0)).unroll
    part = pass_of(unroll, fleet, [0, 1, 2, 3], scale=np.ones(2, np.float32), weight={})
    objective = ReinforcementObjective(SimpleNamespace(model=agent.model), recipe)
    for change in (0.5, -0.5):  # of all log-probabilities, far beyond the clip of 0.2
        moved = replace(part, behaviour=part.behaviour - change)
        columns = dict(zip(COLUMNS, objective(moved).detach().unbind(-1), strict=True))
        better = columns["policy"] < 0
        assert torch.equal(columns["clipped"] > 0, better if change > 0 else ~better)
        assert 0 < better.float().mean() < 1
