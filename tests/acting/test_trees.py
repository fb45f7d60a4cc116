"""Planning by trees in simulators: equal to acting at its smallest, and without a trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generalist.acting.agent import Agent
from generalist.acting.beams import BeamPlan
from generalist.acting.guide import ModelGuide, Proposer
from generalist.acting.plans import check_plan, parse_plan, planned
from generalist.acting.rollout import rollout
from generalist.acting.trees import TreePlan, TreePolicy
from generalist.envs import make
from generalist.envs.instructions import DEMONSTRATED
from generalist.errors import UsageError
from generalist.experts import random_episode
from generalist.policy import Policy
from generalist.session import play
from generalist.session.trace import Trace
from generalist.tokenization.outcomes import RewardBins, TaskWorld
from generalist.tokenization.returns import TaskReturns
from tests.decoding.models import compact_agent, tiny_agent

CARTPOLE, PENDULUM, ACROBOT = "gym/CartPole-v1", "gym/Pendulum-v1", "gym/Acrobot-v1"
RETURNS = TaskReturns(-50.0, 0.0, 0.95, 256, ((-40.0, -30.0), (-5.0, -2.0)))
WORLD = TaskWorld(RETURNS, RewardBins.fit(np.linspace(-1, 1, 1000), 256))


def played(task: str, agent: Agent, plan: str | None, *, seeds: range, steps: int) -> list[Trace]:
    """Episodes, all at once, by their seeds."""
    environments = [make(task) for _ in seeds]
    policy: Policy = agent if plan is None else planned(agent, parse_plan(plan), environments)
    traces = play(policy, environments, seeds, task=task, keep_steps=True, max_steps=steps)
    return sorted(traces, key=lambda trace: trace.seed)


@pytest.mark.parametrize("kind", ["plain", "returns", "world"])
@pytest.mark.parametrize("task", [CARTPOLE, PENDULUM])
def test_one_simulation_is_greedy_acting(task: str, kind: str) -> None:
    """Through windows that turn over, in the episode and in what is tried."""
    given: dict[str, Any] = {
        "plain": {},
        "returns": {"returns": RETURNS},
        "world": {"world": WORLD},
    }
    options = {**given[kind], "context_steps": 3, "temperature": 0.0}
    plan = "tree:simulations=1,horizon=5"
    alone, tried = (
        played(task, compact_agent(task, **options), each, seeds=range(3, 5), steps=9)
        for each in (None, plan)
    )
    for one, other in zip(alone, tried, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.observations, other.observations)
        assert one.rewards == other.rewards


def test_a_demonstration_says_what_words_do_not() -> None:
    agent = compact_agent(PENDULUM)
    episode = random_episode(make(PENDULUM), PENDULUM, 0)
    agent.set_prompts([replace(episode, instruction=told) for told in ("go", "stay")])
    env = make(PENDULUM)
    env.reset(seed=3)
    policy = planned(agent, parse_plan("tree:simulations=1,horizon=2"), [env])
    policy.begin([0], [3], [{DEMONSTRATED: "go"}])
    (header, _) = policy._running._beginning[0]
    assert header.ids == agent.header(None, 3, shown="go").ids != agent.header(None, 3).ids


def test_what_is_tried_is_seen_with_its_history() -> None:
    """A path of tried actions, against an agent that acts along it."""
    agent, other = (compact_agent(PENDULUM, context_steps=3, temperature=0.0) for _ in range(2))
    (trace,) = played(PENDULUM, agent, None, seeds=range(1), steps=10)
    observed = np.array(trace.observations)
    proposer = Proposer(other, drawn=1)
    decoder = other.new_decoder(12)
    header = other.header()
    decoder.reset(0, header.ids, 0, header.added)
    random = np.random.default_rng(0)
    guide = ModelGuide(
        proposer, decoder, [0],
        seen=other.processor.encode_observations(observed[:1], other.layout, PENDULUM),
        choices=[proposer.later], randoms=[random], nodes=10,
    )  # fmt: skip
    for step, action in enumerate(trace.actions):
        guide.propose([0], [step])
        np.testing.assert_array_equal(guide.action(0, step, 0), action)
        guide.set_out([0], [step])
        np.testing.assert_array_equal(guide.choose([0])[0], action)
        if step + 1 < len(observed):
            guide.follow([0], [step], [0], [step + 1], [observed[step + 1]])


@pytest.mark.parametrize(("task", "kind"), [(CARTPOLE, {}), (PENDULUM, {"returns": RETURNS})])
def test_episodes_depend_on_their_seeds_alone(task: str, kind: dict[str, Any]) -> None:
    """Three at once and each alone, in float64, because batches are summed in their own order."""
    plan = "tree:simulations=6" + (",horizon=4" if not kind else ",actions=3")

    def actions(seeds: range) -> list[Any]:
        agent = compact_agent(task, context_steps=3, plain=True, **kind)
        agent.model.double()
        return [trace.actions for trace in played(task, agent, plan, seeds=seeds, steps=5)]

    together = actions(range(3))
    for seed, own in enumerate(together):
        (alone,) = actions(range(seed, seed + 1))
        np.testing.assert_array_equal(alone, own)
    assert any(np.any(one != other) for one, other in zip(together, together[1:], strict=False))


def test_chance_to_come_is_not_known() -> None:
    """Two arms that are the same so far, and are pushed otherwise from here on."""
    decisions, ahead = [], []
    for draws in (0, 3):
        env = make(ACROBOT)
        env.unwrapped.torque_noise_max = 1.0  # type: ignore[attr-defined]
        observation, info = env.reset(seed=2)
        policy = TreePolicy(compact_agent(ACROBOT), TreePlan(5, horizon=4), [env])
        policy.begin([0], [2], [info])
        env.unwrapped.np_random.random(draws)
        decisions.append(policy.decide(observation[None], [info], [0]))
        ahead.append([env.step(0)[0] for _ in range(3)])
    one, other = decisions
    assert one.ids is not None and one.ids == other.ids and one.values == other.values
    assert np.any(np.array(ahead[0]) != np.array(ahead[1])), "it was another future"


def test_values_of_the_checkpoint_are_used_where_it_says_any() -> None:
    agent = compact_agent(PENDULUM, returns=RETURNS)
    env = make(PENDULUM)
    observation, info = env.reset(seed=0)
    policy = TreePolicy(agent, TreePlan(6), [env])
    assert policy._horizon is None and policy._discount == RETURNS.discount
    policy.begin([0], [0], [info])
    decision = policy.decide(observation[None], [info], [0])
    assert policy.steps == 6, "one step for each simulation, and nothing acts on"
    assert decision.values is not None and np.isfinite(decision.values).all()
    agent.begin([0], [0], [info])
    said = agent.decide(observation[None], [info], [0]).values
    assert said is not None
    decoder, header = agent.new_decoder(3), agent.header()
    decoder.reset(0, header.ids, 0, header.added)
    proposer = Proposer(agent, drawn=2)
    seen = agent.processor.encode_observations(observation[None], agent.layout, PENDULUM)
    guide = ModelGuide(
        proposer, decoder, [0], seen=seen, choices=[proposer.later],
        randoms=[np.random.default_rng(0)], nodes=1,
    )  # fmt: skip
    found = guide.propose([0], [0])
    assert found.values is not None and found.values[0] == pytest.approx(float(said[0]), rel=1e-4)
    assert found.priors.tolist() == [[0.5, 0.5]]


def test_priors_are_the_agents_probabilities_of_legal_actions() -> None:
    agent = compact_agent(CARTPOLE, temperature=0.5, log_probs=True)
    env = make(CARTPOLE)
    observation, info = env.reset(seed=0)
    agent.begin([0], [0], [info])
    decision = agent.decide(observation[None], [info], [0])
    policy = TreePolicy(agent, TreePlan(1, horizon=1), [env])
    tried: list[np.ndarray] = []
    proposed = policy._proposer.proposed
    policy._proposer.proposed = lambda *given: (  # type: ignore[method-assign]
        tried.append(proposed(*given)[1]) or proposed(*given)  # type: ignore[func-returns-value]
    )
    policy.begin([0], [0], [info])
    policy.decide(observation[None], [info], [0])
    assert decision.log_probs is not None
    assert tried[0][0, int(decision.actions[0])] == pytest.approx(np.exp(decision.log_probs[0, 0]))
    for legal in range(2):
        policy.begin([0], [0], [info])
        mask = np.array([legal == 0, legal == 1], np.int8)
        masked = policy.decide(observation[None], [{"action_mask": mask}], [0])
        assert masked.actions[0] == legal


def test_an_interrupted_decision_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    follow = ModelGuide.follow

    def interrupted(self: ModelGuide, *given: Any) -> None:
        follow(self, *given)
        raise KeyboardInterrupt

    def decided(interrupt: bool) -> list[np.ndarray]:
        env = make(PENDULUM)
        observation, info = env.reset(seed=1)
        policy = TreePolicy(compact_agent(PENDULUM), TreePlan(4, horizon=3, actions=3), [env])
        policy.begin([0], [1], [info])
        found = []
        for step in range(4):
            if interrupt and step % 2:
                with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                    patched.setattr(ModelGuide, "follow", interrupted)
                    policy.decide(observation[None], [info], [0])
            decision = policy.decide(observation[None], [info], [0])
            observation, _, _, _, info = env.step(decision.actions[0])
            found.append(observation)
        return found

    np.testing.assert_array_equal(decided(True), decided(False))


def test_plans_are_written_and_refused() -> None:
    plan = TreePlan.parse("tree:horizon=20,simulations=16")
    assert plan == TreePlan(16, horizon=20)
    assert str(plan) == "tree:simulations=16,exploration=1.5,horizon=20"
    assert TreePlan.parse("tree") == TreePlan() and TreePlan.parse(str(plan)) == plan
    for text in ("tree:simulations=0", "tree:depth=3", "tree:horizon", "tree:actions=2,actions=3"):
        with pytest.raises(UsageError, match="simulations=100.*horizon=20 and actions=8"):
            parse_plan(text)


@given(
    plan=st.builds(
        TreePlan,
        simulations=st.integers(1, 999_999),
        exploration=st.floats(min_value=0, allow_infinity=False),
        horizon=st.none() | st.integers(1, 9999),
        actions=st.none() | st.integers(1, 9999),
    )
)
def test_a_plan_is_read_again_as_it_was(plan: TreePlan) -> None:
    assert TreePlan.parse(str(plan)) == plan


@given(width=st.integers(1, 9999), horizon=st.integers(1, 9999))
def test_a_plan_by_beams_is_read_again_as_it_was(width: int, horizon: int) -> None:
    plan = BeamPlan(width, horizon)
    assert parse_plan(str(plan)) == plan


def test_two_plans_are_never_written_alike() -> None:
    one, other = (f"tree:exploration=1.234567{digit}" for digit in (1, 2))
    assert str(parse_plan(one)) != str(parse_plan(other))
    for text in ("tree:exploration=1e999", "tree:exploration=-1", "tree:exploration=nan"):
        with pytest.raises(UsageError):
            parse_plan(text)


def test_where_nothing_can_be_restored_it_is_refused() -> None:
    lunar = compact_agent("gym/LunarLander-v3")
    for wrong in (
        lambda: rollout(lunar, plan="tree:simulations=2", episodes=1, progress=False),
        lambda: check_plan(TreePlan(2), lunar, ["gym/LunarLander-v3"]),
    ):
        with pytest.raises(UsageError, match="can be restored.*gym/LunarLander-v3 is neither"):
            wrong()
    with pytest.raises(UsageError, match="is flat, and a tree search"):
        check_plan(TreePlan(2), tiny_agent(CARTPOLE), [CARTPOLE])
    guided = compact_agent(CARTPOLE, guidance=2.0)
    with pytest.raises(UsageError, match="leave out guidance"):
        rollout(guided, plan="tree:simulations=2", episodes=1, progress=False)


def test_a_rollout_says_how_it_planned() -> None:
    torch.manual_seed(0)
    agent = compact_agent(CARTPOLE)
    plan = "tree:simulations=2,horizon=2"
    result = rollout(agent, plan=plan, episodes=2, max_steps=3, progress=False)
    assert result.plan == "tree:simulations=2,exploration=1.5,horizon=2"
    assert result.lengths == [3, 3]
