"""The policy that learns is the agent that acts: the same probabilities, in every kind of task."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from generalist.envs import make
from generalist.modeling.embedders import Embedders
from generalist.modeling.values import start_values
from generalist.tokenization.compact import CompactForm
from generalist.training.reinforcement.fleet import Fleet
from generalist.training.reinforcement.legal import Legal
from generalist.training.reinforcement.policy import act, log_probs_taken, values_at
from generalist.training.reinforcement.timesteps import Shower, States
from tests.decoding.models import compact_agent, text_only_processor, tiny_model
from tests.training.reinforcement.test_fleet import seed_of

CARTPOLE, LUNAR, GOTO = "gym/CartPole-v1", "gym/LunarLanderContinuous-v3", "babyai/GoToLocal"
BOARD = "board/TicTacToe"
TASKS = (CARTPOLE, LUNAR, GOTO, BOARD)


@pytest.fixture(
    scope="module",
    params=[(1, "scalar"), (3, "categorical")],
    ids=["one-position", "three-positions"],
)
def acting(request):
    """An agent of three tasks with values, and environments of all of them that have begun."""
    positions, head = request.param
    agent = compact_agent(*TASKS, positions=positions, log_probs=True, temperature=1.0)
    agent.model.values = start_values(head, TASKS, agent.model.config.hidden_size)
    with torch.no_grad():
        agent.model.values.weight.normal_(generator=torch.Generator().manual_seed(0))
    shower = Shower(agent.processor, agent.model.embedders.form, agent.layouts)
    fleet = Fleet(
        shower,
        agent.processor,
        makers=[partial(make, task) for task in agent.layouts],
        counts=[3, 2, 4, 3],
        seed_of=seed_of,
    )
    fleet.begin()
    yield agent, fleet
    fleet.close()


def test_actions_are_as_probable_as_for_an_agent(acting):
    agent, fleet = acting
    states = fleet.observe()
    acted = act(agent.model, fleet.shower, states, torch.Generator().manual_seed(0))
    start = 0
    for number, task in enumerate(fleet.shower.tasks):
        player = agent.for_task(task)
        places = fleet._crews[0]._crew._parts[number]
        k = len(player.layout.legal)
        for row, place in enumerate(places):
            trace = place.running
            seen = {key: value[None] for key, value in trace.observation.items()} \
                if isinstance(trace.observation, dict) else trace.observation[None]  # fmt: skip
            told = {"instruction": trace.instruction, "action_mask": trace.mask}
            for seed in range(40):  # until the agent draws the same action
                player.begin([0], [seed], [told])
                decision = player.decide(seen, [told], [0])
                only = States(number, states[number].headers[[row]], states[number].ids[[row]])
                ids = np.zeros((1, acted.ids.shape[1]), np.int64)
                ids[0, :k] = decision.ids[0]
                legal = {}
                if trace.mask is not None:
                    legal = {number: Legal.of(player.layout, [trace.mask]).flags}
                said = log_probs_taken(agent.model, fleet.shower, [only], ids, legal)
                assert said[0] == pytest.approx(decision.log_probs.sum(), abs=2e-4)
                if seed >= 2:
                    break
        start += len(places)
    assert start == len(acted.ids)


def test_what_it_says_of_its_own_actions_is_what_it_drew_them_by(acting):
    agent, fleet = acting
    states = fleet.observe()
    acted = act(agent.model, fleet.shower, states, torch.Generator().manual_seed(3))
    assert list(acted.legal) == [fleet.shower.tasks.index(BOARD)]
    again = log_probs_taken(agent.model, fleet.shower, states, acted.ids, acted.legal)
    np.testing.assert_allclose(again, acted.log_probs, atol=1e-5)


def test_a_state_is_the_same_alone_and_among_others(acting):
    agent, fleet = acting
    states = fleet.observe()
    together = values_at(agent.model, fleet.shower, states)
    alone = [
        values_at(agent.model, fleet.shower, [States(each.task, each.headers[[i]], each.ids[[i]])])
        for each in states
        for i in range(len(each.ids))
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-5)


def test_one_state_alone_is_acted_in(acting):
    agent, fleet = acting
    only = States(0, fleet.observe()[0].headers[:1], fleet.observe()[0].ids[:1])
    acted = act(agent.model, fleet.shower, [only], torch.Generator().manual_seed(0))
    start, stop = fleet.shower.layouts[0].legal[0]
    assert acted.ids.shape[0] == 1 and start <= acted.ids[0, 0] < stop


def test_actions_are_drawn_as_often_as_they_are_probable(acting):
    agent, fleet = acting
    states = fleet.observe()[:1]  # CartPole: two actions
    many = [States(0, np.repeat(each.headers[:1], 4000), np.repeat(each.ids[:1], 4000, axis=0))
            for each in states]  # fmt: skip
    acted = act(agent.model, fleet.shower, many, torch.Generator().manual_seed(0))
    for action in np.unique(acted.ids[:, 0]):
        taken = acted.ids[:, 0] == action
        assert taken.mean() == pytest.approx(np.exp(acted.log_probs[taken][0]), abs=0.04)


def test_all_digits_are_drawn_where_another_task_masks_fewer():
    processor, seen = text_only_processor(), spaces.Box(-1, 1, (2,), np.float32)
    layouts = {
        "gym/Two": processor.layout(seen, spaces.Discrete(5_000)),
        "gym/Three": processor.layout(seen, spaces.Discrete(3_000_000)),
    }
    form = CompactForm(positions=1, width=8).extended(layouts)
    model = tiny_model(size=processor.vocabulary.size)
    model.embedders = Embedders(form, model.config.hidden_size).eval()
    model.values = start_values("scalar", tuple(layouts), model.config.hidden_size)
    shower = Shower(processor, form, layouts)
    mask = np.zeros(5_000, np.int8)
    mask[[3, 4_000]] = 1
    states = []
    for number, (task, layout) in enumerate(layouts.items()):
        ids = processor.encode_observations(np.zeros((4, 2), np.float32), layout, task)
        headers = np.full(4, shower.header(number, None))
        states.append(States(number, headers, ids, [None if number else mask] * 4))
    acted = act(model, shower, states, torch.Generator().manual_seed(0))
    chosen = processor.decode_actions(acted.ids[:4, :2], layouts["gym/Two"])
    assert set(chosen.tolist()) <= {3, 4_000}
    for place, (start, stop) in enumerate(layouts["gym/Three"].legal):
        assert ((acted.ids[4:, place] >= start) & (acted.ids[4:, place] < stop)).all()
    said = log_probs_taken(model, shower, states, acted.ids, acted.legal)
    np.testing.assert_allclose(said, acted.log_probs, atol=1e-4)
