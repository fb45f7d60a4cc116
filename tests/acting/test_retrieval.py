"""Retrieval: what is cached and batched changes nothing, and the nearest action counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from generalist.acting.agent import Agent
from generalist.acting.forms import Header
from generalist.acting.nearest import DemonstratedSteps
from generalist.acting.retrieval import Retrieval, RetrieveAndPlay, RetrievingAgent
from generalist.acting.rollout import rollout
from generalist.collecting.collect import collect
from generalist.errors import UsageError
from generalist.windows.spec import dataset_spec
from tests.acting.test_forms import log_probs, observations_of
from tests.decoding.models import (
    compact_agent,
    full_logits,
    text_only_processor,
    tiny_agent,
    tiny_model,
)

CARTPOLE, PENDULUM, LUNAR = "gym/CartPole-v1", "gym/Pendulum-v1", "gym/LunarLanderContinuous-v3"
BOARD = "board/TicTacToe"


def demonstrated(agent: Agent, count: int = 60, told: tuple[str | None, ...] = (None,)) -> Any:
    """Random timesteps in place of an expert's, as many episodes as instructions."""
    seen = agent.processor.encode_observations(
        observations_of(agent.task, count, seed=7), agent.layout, agent.task
    )
    first, stop = np.array(agent.layout.legal).T
    actions = np.random.default_rng(0).integers(first, stop, (count, len(first)))
    return DemonstratedSteps(
        seen,
        actions,
        episode=np.arange(count) % len(told),
        instructions=told,
        layout=agent.layout,
        processor=agent.processor,
    )


def header_of(agent: Agent, steps: Any, seen: np.ndarray, told: str | None, count: int) -> Header:
    (found,) = steps.nearest(seen, [told], count)
    end = agent.processor.vocabulary.special("demonstration_end")
    return agent.form.header(told, [*steps.shown(found.numbers).tolist(), end])


@torch.no_grad()
def recomputed(agent: Agent, header: Header, seen: np.ndarray) -> torch.Tensor:
    """(k, E) last states of a plain pass over a header and (n, K) ids in the compact form."""
    observed = agent.form.observed(seen)  # (n, G + k - 1, E)
    ids = header.ids + [agent.form.separator] * observed[..., 0].numel()
    hidden = agent.model.get_input_embeddings()(torch.tensor(ids))
    for place, vectors in header.added:
        hidden[place : place + len(vectors)] += vectors
    hidden[len(header.ids) :] += observed.flatten(0, 1)
    states = agent.model.base_model(inputs_embeds=hidden[None], use_cache=False).last_hidden_state
    return states[0, -len(agent.layout.legal) :]


@pytest.mark.parametrize(("task", "guidance"), [(PENDULUM, None), (LUNAR, None), (LUNAR, 1.0)])
def test_a_new_prompt_at_each_step_is_what_recomputing_everything_gives(
    task: str, guidance: float | None
) -> None:
    """Long enough for the window to turn over; the instruction changes on the way."""
    agent = compact_agent(task, window=48, context_steps=6, log_probs=True, guidance=guidance)
    steps = demonstrated(agent, told=("go", "stay"))
    acting = RetrievingAgent(agent, steps, count=5)
    observed = observations_of(task, 30)
    seen = agent.processor.encode_observations(observed, agent.layout, task)
    acting.begin([0], [3], [{"instruction": "go"}])
    lengths = set()
    for step in range(len(observed)):
        told = "go" if step < 20 else "stay"
        info = {"new_instruction": told} if step == 20 else {}
        decision = acting.decide(observed[step][None], [info], [0])
        header = header_of(agent, steps, seen[step : step + 1], told, 5)
        context = agent._running.decoder.context(0)
        assert context[: len(header.ids)].tolist() == header.ids
        kept, rest = divmod(len(context) - len(header.ids), agent.form.positions)
        assert rest == 0
        lengths.add(kept)
        states = recomputed(agent, header, seen[step + 1 - kept : step + 1])
        expected = log_probs(agent, states, decision.ids[0])
        np.testing.assert_allclose(decision.log_probs[0], expected, atol=2e-4)
    assert len(lengths) > 2, "the window has turned over"


def test_so_it_is_in_the_flat_form() -> None:
    seen_logits: list[torch.Tensor] = []
    agent = tiny_agent(CARTPOLE, window=128, on_logits=lambda x: seen_logits.append(x.clone()))
    steps = demonstrated(agent)
    acting = RetrievingAgent(agent, steps)
    assert acting.count == (128 // 4 - 1) // agent.layout.tokens_per_timestep
    observed = observations_of(CARTPOLE, 25)
    seen = agent.processor.encode_observations(observed, agent.layout, CARTPOLE)
    (interval,) = agent.layout.legal
    acting.begin([0], [3], [{}])
    for step, observation in enumerate(observed):
        acting.decide(observation[None], [{}], [0])
        header = header_of(agent, steps, seen[step : step + 1], None, acting.count)
        context = agent._running.decoder.context(0)
        assert context[: len(header.ids)].tolist() == header.ids
        expected = full_logits(agent.model, context[:-1])[slice(*interval)]
        np.testing.assert_allclose(seen_logits[step][0], expected, atol=2e-4)


@pytest.mark.parametrize("weight", [None, 1.0])
def test_slots_do_not_know_of_each_other(weight: float | None) -> None:
    agents = [compact_agent(LUNAR, window=48, context_steps=6) for _ in range(2)]
    steps = demonstrated(agents[0])
    given = {"count": 5, "weight": weight}
    together, alone = (RetrievingAgent(agent, steps, **given) for agent in agents)
    observed = observations_of(LUNAR, 60).reshape(20, 3, -1)
    chosen: list[list[np.ndarray]] = [[], [], []]
    for step, batch in enumerate(observed):
        first = np.array([step % 11 == 0, step % 7 == 0, step == 0])
        actions = together.act(batch, first, seeds=[step, 50 + step, 90])
        for slot in range(3):
            chosen[slot].append(actions[slot])
    for slot, every in enumerate((11, 7, 1000)):
        for step, batch in enumerate(observed):
            seeds = [step + (0, 50, 90)[slot]]
            action = alone.act(batch[slot], step % every == 0, seeds=seeds)
            np.testing.assert_array_equal(action, chosen[slot][step])


def test_an_interrupted_decision_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = [compact_agent(LUNAR, window=48, context_steps=6) for _ in range(2)]
    steps = demonstrated(agents[0])
    acting, other = (RetrievingAgent(agent, steps, count=5) for agent in agents)
    for each in (acting, other):
        each.begin([0], [1], [{}])

    def interrupt(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    for observation in observations_of(LUNAR, 15):
        expected = other.decide(observation[None], [{}], [0]).ids
        if (decoder := agents[0]._running.decoder) is not None:
            with monkeypatch.context() as patched:
                patched.setattr(decoder, "_choose", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    acting.decide(observation[None], [{}], [0])
        assert (acting.decide(observation[None], [{}], [0]).ids == expected).all()


@pytest.mark.parametrize("task", [CARTPOLE, LUNAR])
def test_the_nearest_action_counts_by_its_weight(task: str) -> None:
    """Lambda 0 is retrieve and play, a large one the agent alone; real numbers lie between."""
    agent = compact_agent(task, window=48)
    steps = demonstrated(agent)
    observed = observations_of(task, 40, seed=5)
    seen = agent.processor.encode_observations(observed, agent.layout, task)
    found = steps.nearest(seen, [None] * 40, 1)
    nearest = steps.actions[[each.numbers[0] for each in found]]

    def ids(weight: float | None) -> np.ndarray:
        acting = RetrievingAgent(agent.for_task(task), steps, count=5, weight=weight)
        acting.begin(range(40), range(40), [{}] * 40)
        return acting.decide(observed, [{}] * 40, range(40)).ids

    player = RetrieveAndPlay(steps, task)
    player.begin(range(40), range(40), [{}] * 40)
    played = player.decide(observed, [{}] * 40, range(40))
    np.testing.assert_array_equal(played.ids, nearest)
    expected = agent.processor.decode_actions(nearest, agent.layout)
    np.testing.assert_array_equal(played.actions, expected)
    np.testing.assert_array_equal(ids(0.0), nearest)
    own = ids(None)
    np.testing.assert_array_equal(ids(1e9), own)
    distances = np.array([each.distances[0] for each in found])
    weight = np.exp(-distances / steps.normal_distance(5))[:, None]
    mixed = ids(1.0)
    np.testing.assert_array_equal(mixed, ids(1.0))  # its random numbers are the episode's own
    if task == LUNAR:
        np.testing.assert_array_equal(mixed, np.rint(weight * nearest + (1 - weight) * own))
    else:
        assert np.isin(mixed, [own, nearest]).all()
        differs = own != nearest
        taken = (mixed == nearest)[differs].mean()
        assert abs(taken - weight[differs].mean()) < 0.35 and 0 < taken < 1


def test_real_numbers_are_interpolated_where_bins_are_not_equally_wide() -> None:
    own = text_only_processor()
    unbounded = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    layout = own.layout(unbounded, unbounded)
    model = tiny_model(window=256, size=own.vocabulary.size)
    agent = Agent(model, own, {"gym/Far-v0": layout}, temperature=0.0)
    seen = np.float32([[0.0, 0.0], [3.0, 1.0]])
    ids = own.encode_observations(seen, layout, "gym/Far-v0")
    far = layout.encode("action", np.float32([[100.0, -200.0]] * 2), own.toolbox)
    told = {"episode": np.arange(2), "instructions": [None, None], "layout": layout}
    steps = DemonstratedSteps(ids, far, processor=own, **told)
    at = np.float32([[1.0, 0.5]])
    acting = [
        RetrievingAgent(agent.for_task("gym/Far-v0"), steps, count=1, weight=weight)
        for weight in (1.0, 1e9)
    ]
    for each in acting:
        each.begin([0], [0], [{}])
    mixed, mine = (each.decide(at, [{}], [0]).actions for each in acting)
    (found,) = steps.nearest(own.encode_observations(at, layout, "gym/Far-v0"), [None], 1)
    weight = np.exp(-found.distances[0] / steps.normal_distance(1))
    assert 0.1 < weight < 0.9
    expected = weight * own.decode_actions(far, layout)[0] + (1 - weight) * mine[0]
    np.testing.assert_allclose(mixed[0], expected, rtol=0.02)


def test_a_world_model_is_told_what_was_done_in_its_place() -> None:
    agent = compact_agent(LUNAR)
    acting = RetrievingAgent(agent, demonstrated(agent), count=5, weight=0.0)
    heard: list[Any] = []
    decide = agent.decide
    agent.decide = lambda seen, infos, slots: heard.extend(infos) or decide(seen, infos, slots)  # type: ignore[method-assign]
    actions = [acting.act(each, step == 0) for step, each in enumerate(observations_of(LUNAR, 3))]
    assert "executed_action" not in heard[0]
    for info, action in zip(heard[1:], actions, strict=False):
        np.testing.assert_array_equal(info["executed_action"], action)


def test_what_the_demonstrations_were_made_in_is_compared(tmp_path: Path) -> None:
    spec = {"noise": 0, "tasks": [
        {"task": PENDULUM, "episodes": 2, "max_steps": 9, "options": {"g": 2.0}}]}  # fmt: skip
    collect(dataset_spec(spec), tmp_path, 0, progress=False)
    near, said = Retrieval(data=tmp_path), []
    given = {"episodes": 1, "max_steps": 5, "progress": False, "retrieval": near}
    other = rollout("retrieval", PENDULUM, say=said.append, **given)
    assert "demonstrations were made in: g 10.0 instead of 2.0" in other.note and said == [
        other.note
    ]
    assert rollout("retrieval", PENDULUM, g=2.0, **given).note is None
    before = near.fingerprint(PENDULUM)
    spec["tasks"][0]["episodes"] = 3
    collect(dataset_spec(spec), tmp_path, 0, progress=False)
    assert near.fingerprint(PENDULUM) != before != near.fingerprint(CARTPOLE)


def test_wrong_use_is_refused() -> None:
    agent = compact_agent(BOARD)
    steps = demonstrated(agent)
    fit = (agent.window_tokens // 4 - 1) // agent.form.demonstration_positions
    with pytest.raises(UsageError, match=f"{fit + 1} retrieved timesteps .* at most {fit} do"):
        RetrievingAgent(agent, steps, count=fit + 1)
    mask = np.ones(9, np.int8)
    observed = observations_of(BOARD, 1)
    for acting in (RetrievingAgent(agent, steps, weight=1.0), RetrieveAndPlay(steps, BOARD)):
        acting.begin([0], [0], [{}])
        with pytest.raises(UsageError, match="says which actions are legal"):
            acting.decide(observed, [{"action_mask": mask}], [0])
    free = RetrievingAgent(agent, steps)  # the prompt alone
    free.begin([0], [0], [{}])
    mask[1:] = 0
    assert free.decide(observed, [{"action_mask": mask}], [0]).actions.tolist() == [0]
    for given, what in (({"steps": 0}, "At least 1"), ({"weight": -1.0}, "0 or more")):
        with pytest.raises(UsageError, match=what):
            Retrieval(data="data", **given)
    with pytest.raises(UsageError, match="leave plan out"):
        rollout(agent, plan="tree:simulations=4", retrieval=Retrieval(data="data"))
    with pytest.raises(UsageError, match="needs demonstrations"):
        rollout("retrieval", CARTPOLE, progress=False)
