"""Asking for returns: what is asked for, and that caches, batches and repeats change nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.acting.wanted import WantedReturn
from generalist.errors import UsageError
from generalist.modeling.embedders import Embedded, embedders_of
from generalist.tokenization.compact import QUERIES, TASKS, signatures_of
from generalist.tokenization.returns import TaskReturns
from tests.acting.test_forms import log_probs, observations_of
from tests.decoding.models import compact_agent

CARTPOLE, PENDULUM, LUNAR = "gym/CartPole-v1", "gym/Pendulum-v1", "gym/LunarLanderContinuous-v3"
RETURNS = TaskReturns(0.0, 100.0, 0.95, 256, ((0.0, 0.0), (50.0, 20.0), (200.0, 80.0)))


def asking_agent(task: str, **options: object) -> Agent:
    return compact_agent(task, returns=RETURNS, **options)


@torch.no_grad()
def uncached(agent: Agent, seen: np.ndarray, shown: Sequence[int | None]) -> torch.Tensor:
    """(k + 1, E) states of the last of (n, K) observed ids, by one plain pass over all of them."""
    embedders, layout, processor = embedders_of(agent.model), agent.layout, agent.processor
    header = processor.header(agent.task, spelled=False).tolist()
    size, k, count = agent.form.positions, len(layout.legal), len(seen)
    ids = header + [processor.vocabulary.special("separator")] * (size * count)
    places = len(header) + size * torch.arange(count)
    number = embedders.form.number_of(agent.task)
    given = [
        Embedded(TASKS, torch.tensor([[number]]), torch.tensor([0])),
        Embedded(signatures_of(layout)[0].name, torch.as_tensor(seen), places),
    ]
    known = [step for step, own in enumerate(shown) if own is not None]
    if known:
        told = torch.tensor([[shown[step]] for step in known])
        given.append(Embedded(embedders.form.returns.name, told, places[known] + size - k))
    if k > 1:
        asked = (places + size - k + 1)[:, None] + torch.arange(k - 1)
        numbers = torch.arange(k - 1).repeat(count)[:, None]
        given.append(Embedded(QUERIES, numbers, asked.flatten()))
    hidden = agent.model.get_input_embeddings()(torch.tensor(ids))
    hidden = embedders(hidden, given)[None]
    states = agent.model.base_model(inputs_embeds=hidden, use_cache=False).last_hidden_state
    return states[0, -k - 1 :]


@pytest.mark.parametrize("task", [CARTPOLE, LUNAR])
@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("wanted", [None, 120.0])
def test_what_is_cached_is_what_one_pass_over_the_context_gives(
    task: str, positions: int, wanted: float | None
) -> None:
    """With returns shown and without, over a window that turns over several times."""
    agent = asking_agent(task, positions=positions, window=40, log_probs=True)
    observed = observations_of(task, 40)
    seen = agent.processor.encode_observations(observed, agent.layout, task)
    returns = agent.processor.vocabulary["return"]
    head = agent.model.get_output_embeddings().weight[returns.start : returns.stop]
    rewards = np.random.default_rng(0).uniform(0, 2, len(observed))
    agent.begin([0], [3], [{"wanted_return": wanted}])
    shown: list[int | None] = []
    to_go = RETURNS.at_start(120.0)
    for step in range(len(observed)):
        if step:
            to_go = RETURNS.after(to_go, rewards[step - 1])
        code = int(RETURNS.encode(np.array([to_go]))[0])
        shown.append(None if wanted is None else returns.start + code)
        info = {"reward": rewards[step - 1]} if step else {}
        decision = agent.decide(observed[step][None], [info], [0])
        length = len(agent._running.decoder.context(0)) - len(agent.header().ids)
        steps, rest = divmod(length, agent.form.positions)
        assert rest == 0
        part = slice(step + 1 - steps, step + 1)
        states = uncached(agent, seen[part], shown[part])
        np.testing.assert_allclose(
            decision.log_probs[0], log_probs(agent, states[1:], decision.ids[0]), atol=2e-4
        )
        value = (head @ states[0]).softmax(0).detach().numpy() @ RETURNS.centres
        assert decision.values[0] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("wanted", ["expert", "expert:kappa=3", "60%"])
def test_slots_do_not_know_of_each_other(wanted: str) -> None:
    """One slot is asked for a return, one for a number, one for nothing; together and alone."""
    asks = [wanted, 30, None]
    together, alone = asking_agent(LUNAR, window=32), asking_agent(LUNAR, window=32)
    observed = observations_of(LUNAR, 60).reshape(20, 3, -1)
    rewards = np.random.default_rng(0).normal(size=(20, 3)).tolist()
    seeds = [7, 8, 9]
    together.begin([0, 1, 2], seeds, [{"wanted_return": ask} for ask in asks])
    found = []
    for step, batch in enumerate(observed):
        infos = [{"reward": reward} for reward in rewards[step]]
        found.append(together.decide(batch, infos, [0, 1, 2]))
    for slot in range(3):
        alone.begin([0], [seeds[slot]], [{"wanted_return": asks[slot]}])
        for step, batch in enumerate(observed):
            own = alone.decide(batch[slot][None], [{"reward": rewards[step][slot]}], [0])
            np.testing.assert_array_equal(own.ids[0], found[step].ids[slot])
            assert own.values[0] == pytest.approx(float(found[step].values[slot]), rel=1e-5)


def test_an_interrupted_decision_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    for wanted in ("expert", 50):
        agent, other = (asking_agent(LUNAR, window=24) for _ in range(2))
        for each in (agent, other):
            each.begin([0], [1], [{"wanted_return": wanted}])
        for number, observation in enumerate(observations_of(LUNAR, 8)):
            info = {"reward": 0.5 * number}
            expected = other.decide(observation[None], [info], [0])
            if number:
                with monkeypatch.context() as patched:
                    patched.setattr(agent._running.decoder, "_choose", interrupt)
                    patched.setattr(agent._running.decoder, "logits", interrupt)
                    with pytest.raises(KeyboardInterrupt):
                        agent.decide(observation[None], [info], [0])
            again = agent.decide(observation[None], [info], [0])
            assert (again.ids == expected.ids).all()
            np.testing.assert_allclose(again.values, expected.values, rtol=1e-5)


def test_a_strong_preference_draws_what_is_best_and_none_what_is_predicted() -> None:
    agent = asking_agent(CARTPOLE)
    observed = observations_of(CARTPOLE, 1)
    drawn = {}
    for kappa in (0, 1000):
        seen = []
        keep = agent._asks.returns.centres
        vectors = agent.form._vectors

        def spy(name, ids, seen=seen, vectors=vectors):
            if name.startswith("return"):
                seen.extend(np.asarray(ids).ravel().tolist())
            return vectors(name, ids)

        agent.form._vectors = spy
        for seed in range(60):
            agent.begin([0], [seed], [{"wanted_return": f"expert:kappa={kappa}"}])
            agent.decide(observed, [{}], [0])
        agent.form._vectors = vectors
        drawn[kappa] = keep[np.array(seen) - agent.processor.vocabulary["return"].start]
        assert len(seen) == 60
    assert drawn[1000].min() > 99 and drawn[0].std() > 5


def test_how_many_forward_passes_it_takes() -> None:
    for wanted, passes in ((None, 1), (50, 1), ("expert", 2)):
        agent = asking_agent(CARTPOLE, wanted_return=wanted)
        for step, observation in enumerate(observations_of(CARTPOLE, 5)):
            agent.act(observation, first=step == 0, rewards=1.0)
        assert agent._running.decoder.forward_passes == 5 * passes


def test_a_number_needs_the_rewards() -> None:
    agent = asking_agent(CARTPOLE, wanted_return=50)
    observation = observations_of(CARTPOLE, 1)[0]
    agent.act(observation, first=True)
    with pytest.raises(UsageError, match="pass rewards="):
        agent.act(observation)
    agent.act(observation, rewards=1.0)
    agent.act(observation, first=True, wanted_returns="expert")
    agent.act(observation)


def test_saved_and_loaded_asks_the_same(tmp_path) -> None:
    agent = asking_agent(CARTPOLE)
    agent.save_pretrained(tmp_path)
    loaded = Agent.from_pretrained(tmp_path, wanted_return="80%")
    options = {"episodes": 3, "progress": False, "wanted_return": "80%"}
    played = [rollout(each, **options) for each in (agent, loaded)]
    assert played[0].returns == played[1].returns and played[0].wanted_return == "80%"
    assert rollout(loaded, episodes=3, progress=False).returns == played[0].returns
    assert rollout(agent, episodes=1, progress=False).wanted_return is None


@pytest.mark.parametrize(
    "wanted, expected",
    [
        ("expert", WantedReturn("expert")),
        ("expert:kappa=5,low=-2,high=3e1", WantedReturn("expert", kappa=5, low=-2, high=30)),
        ("-200", WantedReturn("number", -200)),
        (17, WantedReturn("number", 17)),
        ("80%", WantedReturn("percent", 80)),
        ("250:clip=no", WantedReturn("number", 250, clip=False)),
        ("1234567", WantedReturn("number", 1_234_567)),
        ("12.3456789%", WantedReturn("percent", 12.3456789)),
        ("expert:high=-0.1234567", WantedReturn("expert", high=-0.1234567)),
    ],
)
def test_how_it_is_written(wanted: str | float, expected: WantedReturn) -> None:
    found = WantedReturn.parse(wanted)
    assert found == expected and WantedReturn.parse(str(found)) == found


@pytest.mark.parametrize(
    "wanted",
    [
        "best",
        "",
        "1e",
        "nan",
        "inf",
        "%",
        "expert:clip=no",
        "5:kappa=1",
        "5:clip=maybe",
        "1e999",
        "expert:low=-1e999",
    ],
)
def test_what_is_written_otherwise_is_refused(wanted: str) -> None:
    with pytest.raises(UsageError, match="A wanted return is"):
        WantedReturn.parse(wanted)


def test_a_preference_that_rounding_swallows_is_refused() -> None:
    agent = asking_agent(CARTPOLE)
    with pytest.raises(UsageError, match=r"kappa of a wanted return is 1e\+40"):
        agent.checked_return("expert:kappa=1e40")
    assert agent.checked_return("expert:kappa=1e6")[0].tilt(RETURNS).isfinite().all()


def test_a_return_beyond_the_data_is_said_and_clipped_or_tried() -> None:
    agent = asking_agent(CARTPOLE)
    wanted, note = agent.checked_return(900)
    assert wanted.total(RETURNS) == 200 and "beyond the data, 0 to 200; so 200" in note
    wanted, note = agent.checked_return("900:clip=no")
    assert wanted.total(RETURNS) == 900 and "it is tried" in note
    wanted, note = agent.checked_return("75%")
    assert wanted.total(RETURNS) == 150 and note is None
    said: list[str] = []
    rollout(agent, episodes=1, progress=False, wanted_return=900, say=said.append)
    assert said == [note for note in said if "beyond the data" in note] and said


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(UsageError, match="it was trained without returns"):
        rollout(compact_agent(CARTPOLE), episodes=1, progress=False, wanted_return="expert")
    other = compact_agent(CARTPOLE, PENDULUM)
    other.returns = {PENDULUM: RETURNS.to_dict()}
    with pytest.raises(UsageError, match="all were the same"):
        other.checked_return("expert")
    with pytest.raises(UsageError, match="high must be above low"):
        asking_agent(CARTPOLE).checked_return("expert:low=5,high=1")


def test_guidance_does_not_go_with_returns() -> None:
    agent = asking_agent(PENDULUM, guidance=2.0)
    with pytest.raises(UsageError, match="leave guidance out"):
        agent.act(observations_of(PENDULUM, 1)[0])
