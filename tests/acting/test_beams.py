"""Planning by beams: equal to cloning at its smallest, and to itself however it is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generalist.acting.agent import Agent
from generalist.acting.beams import BeamPlan, BeamPolicy
from generalist.acting.foresight import Foresight, Imagination
from generalist.acting.rollout import rollout
from generalist.envs.instructions import DEMONSTRATED
from generalist.episode import Episode
from generalist.errors import UsageError
from generalist.modeling.embedders import Embedded, embedders_of
from generalist.tokenization.compact import QUERIES, TASKS, signatures_of
from generalist.tokenization.outcomes import RewardBins, TaskWorld
from generalist.tokenization.returns import TaskReturns
from tests.acting.test_forms import observations_of
from tests.decoding.models import compact_agent

CARTPOLE, PENDULUM, LUNAR = "gym/CartPole-v1", "gym/Pendulum-v1", "gym/LunarLanderContinuous-v3"
RETURNS = TaskReturns(0.0, 100.0, 0.95, 256, ((0.0, 0.0), (50.0, 20.0), (200.0, 80.0)))
WORLD = TaskWorld(RETURNS, RewardBins.fit(np.linspace(-1, 1, 1000), 256))


def world_agent(task: str, **options: object) -> Agent:
    agent = compact_agent(task, world=WORLD, **options)
    own = embedders_of(agent.model)
    torch.manual_seed(2)
    for head in own.worlds.values():  # it starts without what earlier tokens add
        head.earlier.data.normal_(std=0.3)
    return agent


def play(policy: BeamPolicy | Agent, observed: np.ndarray, seed: int = 5) -> np.ndarray:
    """(n, k) ids that one episode of these observations is decided to take."""
    policy.begin([0], [seed], [{}])
    return np.concatenate([policy.decide(each[None], [{}], [0]).ids for each in observed])


@pytest.mark.parametrize("task", [CARTPOLE, LUNAR])
@pytest.mark.parametrize("steps", [None, 4])
def test_one_row_and_one_step_is_greedy_cloning(task: str, steps: int | None) -> None:
    observed = observations_of(task, 40)
    options = {"window": 64, "context_steps": steps, "temperature": 0.0}
    planning = BeamPolicy(world_agent(task, **options), BeamPlan(width=1, horizon=1))
    np.testing.assert_array_equal(
        play(planning, observed), play(world_agent(task, **options), observed)
    )


def test_a_demonstration_says_what_words_do_not() -> None:
    agent = world_agent(CARTPOLE)
    episodes = [
        Episode(
            task=CARTPOLE, observations=observations_of(CARTPOLE, 6), actions=np.zeros(6, int),
            rewards=np.zeros(6, np.float32), terminated=True, truncated=False, instruction=told,
        )
        for told in ("go", "stay")
    ]  # fmt: skip
    agent.set_prompts(episodes)
    planning = BeamPolicy(agent, BeamPlan(width=1, horizon=1))
    observed = observations_of(CARTPOLE, 1)
    contexts = []
    for policy in (agent, planning):
        policy.begin([0], [3], [{DEMONSTRATED: "go"}])
        policy.decide(observed, [{}], [0])
        contexts.append(policy._running.decoder.context(0).tolist())
    assert contexts[0] == contexts[1] and len(contexts[0]) > 1 + agent.form.positions


@torch.no_grad()
def recomputed(agent: Agent, seen: np.ndarray, actions: np.ndarray) -> torch.Tensor:
    """(n, E) states at all actions, by one plain pass: (n, K) and (n, k) ids from the header on."""
    embedders, layout, processor = embedders_of(agent.model), agent.layout, agent.processor
    header = processor.header(agent.task, spelled=False).tolist()
    size, k, count = agent.form.positions, len(layout.legal), len(seen)
    ids = header + [processor.vocabulary.special("separator")] * (size * count)
    places = len(header) + size * torch.arange(count)
    observation, action = (each.name for each in signatures_of(layout))
    both = torch.stack([places, places + size - 1], dim=1).flatten()
    given = [
        Embedded(TASKS, torch.tensor([[embedders.form.number_of(agent.task)]]), torch.tensor([0])),
        Embedded(observation, torch.as_tensor(seen.repeat(2, 0)), both),
        Embedded(action, torch.as_tensor(actions), places + size - 1),
    ]
    if k > 1:
        asked = (places + 1)[:, None] + torch.arange(k - 1)
        given.append(Embedded(QUERIES, torch.arange(k - 1).repeat(count)[:, None], asked.flatten()))
    hidden = agent.model.get_input_embeddings()(torch.tensor(ids))
    hidden = embedders(hidden, given)[None]
    states = agent.model.base_model(inputs_embeds=hidden, use_cache=False).last_hidden_state[0]
    return states[places + size - 1]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("task", [CARTPOLE, LUNAR])
def test_forked_rows_equal_full_recomputation(
    task: str, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row of every depth, through forks of forks: states, outcomes and observations."""
    agent = world_agent(task, window=64, plain=plain)
    depths: list[tuple[np.ndarray, np.ndarray, torch.Tensor]] = []
    parents: list[np.ndarray] = []
    propose, imagine = Imagination.propose, Imagination.imagine

    def noting_parents(self: Imagination, kept: np.ndarray | None) -> np.ndarray:
        if kept is not None:
            parents.append(kept[0][np.arange(self._width) % kept.shape[1]])
        return propose(self, kept)

    def noting_states(self: Imagination) -> object:
        found = imagine(self)
        depths.append((self._seen.copy(), self._actions.copy(), self._at_actions.clone()))
        return found

    monkeypatch.setattr(Imagination, "propose", noting_parents)
    monkeypatch.setattr(Imagination, "imagine", noting_states)
    policy = BeamPolicy(agent, BeamPlan(width=6, horizon=4))
    observed = observations_of(task, 3)
    done = play(policy, observed)
    seen = agent.processor.encode_observations(observed, agent.layout, task)
    depths, parents = depths[-4:], parents[-3:]
    foresight = Foresight(agent)
    for row in range(6):
        line, at = [], row
        for depth in range(3, -1, -1):
            line.append((depths[depth][0][at], depths[depth][1][at], depths[depth][2][at]))
            at = parents[depth - 1][at] if depth else at
        line.reverse()
        own_seen = np.stack([*seen[:2], *(each[0] for each in line)])
        own_done = np.stack([*done[:2], *(each[1] for each in line)])
        np.testing.assert_array_equal(own_seen[2], seen[2])
        states = recomputed(agent, own_seen, own_done)
        cached = torch.stack([each[2] for each in line])
        torch.testing.assert_close(cached, states[2:], atol=1e-4, rtol=1e-4)
        for depth in range(3):
            after = foresight.following(states[2 + depth][None], line[depth][0][None], depth=depth)
            assert np.abs(after[0] - line[depth + 1][0]).max() <= 1  # rounding at an edge of bins
    assert len(depths) == 4 and any(list(p) != [0, 1, 2] * 2 for p in parents)


def test_what_was_done_is_shown_to_later_timesteps() -> None:
    """An action in the place of the policy's own is shown instead, and matters."""
    observed = observations_of(LUNAR, 12)
    agents = [world_agent(LUNAR, window=64, log_probs=True, temperature=1.0) for _ in range(3)]
    env_actions = np.random.default_rng(0).uniform(-1, 1, (12, 2)).astype(np.float32)
    found = []
    for agent, replaced in zip(agents, (False, True, True), strict=True):
        agent.begin([0], [3], [{}])
        for step, each in enumerate(observed):
            info = {"executed_action": env_actions[step - 1]} if step and replaced else {}
            decision = agent.decide(each[None], [info], [0])
        found.append(agent._running.decoder._slots[0].older)
    own, one, two = found
    vectors = [torch.cat([added.vectors for added in row.added]) for row in (own, one, two)]
    assert torch.equal(vectors[1], vectors[2]) and not torch.equal(vectors[0], vectors[1])
    seen = agents[1].processor.encode_observations(observed, agents[1].layout, LUNAR)
    ids = agents[1].layout.encode("action", env_actions, agents[1].processor.toolbox)
    assert decision.log_probs is not None
    taken = agents[1].form.taken(seen[:11], ids[:11])[:, 0]
    shown = torch.stack([each.vectors[0] for each in one.added if len(each.vectors) == 1][1:])
    steps = len(shown) - 1  # the last shows the policy's own choice, which nobody replaced yet
    torch.testing.assert_close(shown[:steps], taken[-steps:])


def test_episodes_do_not_know_of_each_other() -> None:
    """Three at once, of which one begins anew, and each alone.

    In float64, because what is imagined is rounded to bins, and a batch is summed in its own order.
    """
    plan = BeamPlan(width=5, horizon=3)
    agents = [world_agent(LUNAR, window=48, plain=True) for _ in range(2)]
    for agent in agents:
        agent.model.double()
    together, alone = (BeamPolicy(agent, plan) for agent in agents)
    observed = observations_of(LUNAR, 36).reshape(12, 3, -1)
    together.begin([0, 1, 2], [7, 8, 9], [{}] * 3)
    found = []
    for step, batch in enumerate(observed):
        if step == 6:
            together.end([1])
            together.begin([1], [4], [{}])
        found.append(together.decide(batch, [{}] * 3, [0, 1, 2]))
    for slot, seed in enumerate([7, 8, 9]):
        alone.begin([0], [seed], [{}])
        for step, batch in enumerate(observed):
            if step == 6 and slot == 1:
                alone.begin([0], [4], [{}])
            own = alone.decide(batch[slot][None], [{}], [0])
            np.testing.assert_array_equal(own.ids[0], found[step].ids[slot])
            assert own.values[0] == pytest.approx(float(found[step].values[slot]), rel=1e-4)


def test_an_interrupted_decision_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = observations_of(CARTPOLE, 10)
    plan = BeamPlan(width=4, horizon=3)
    whole = play(BeamPolicy(world_agent(CARTPOLE), plan), observed)
    policy, count = BeamPolicy(world_agent(CARTPOLE), plan), 0
    imagine = Imagination.imagine

    def interrupted(self: Imagination) -> object:
        nonlocal count
        count += 1
        if count % 7 == 0:
            raise KeyboardInterrupt
        return imagine(self)

    monkeypatch.setattr(Imagination, "imagine", interrupted)
    policy.begin([0], [5], [{}])
    ids = []
    for each in observed:
        try:
            decision = policy.decide(each[None], [{}], [0])
        except KeyboardInterrupt:
            decision = policy.decide(each[None], [{}], [0])
        ids.append(decision.ids[0])
    np.testing.assert_array_equal(ids, whole)
    assert count > 30


def test_what_cannot_be_planned_is_said() -> None:
    plain = compact_agent(CARTPOLE)
    with pytest.raises(UsageError, match="is no world model.*recipe with `world`"):
        rollout(plain, plan="beam", episodes=1, progress=False)
    agent = world_agent(CARTPOLE, context_steps=4)
    with pytest.raises(UsageError, match="horizon of 5 steps.*trained on 4 timesteps.*horizon=4"):
        rollout(agent, plan="beam:horizon=5", episodes=1, progress=False)
    with pytest.raises(UsageError, match="horizon of 40 steps.*does not fit into the window"):
        BeamPolicy(world_agent(CARTPOLE, window=64), BeamPlan(horizon=40))
    for text in ("beam:width=0", "beam:depth=3", "beams", "beam:width=3;horizon=2"):
        with pytest.raises(UsageError, match="beam:width=32,horizon=10"):
            rollout(agent, plan=text, episodes=1, progress=False)
    agent.worlds = {PENDULUM: WORLD.to_dict()}
    with pytest.raises(UsageError, match="foresees nothing in gym/CartPole-v1.*gym/Pendulum-v1"):
        rollout(agent, plan="beam:horizon=4", episodes=1, progress=False)
    assert str(BeamPlan.parse("beam:horizon=3")) == "beam:width=32,horizon=3"
    assert BeamPlan.parse("beam") == BeamPlan(32, 10)


def test_a_rollout_says_how_it_planned() -> None:
    agent = world_agent(CARTPOLE, context_steps=4)
    result = rollout(agent, plan="beam:width=3,horizon=2", episodes=2, max_steps=4, progress=False)
    assert result.plan == "beam:width=3,horizon=2" and result.lengths == [4, 4]
