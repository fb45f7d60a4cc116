"""The Agent: one environment or many, saved and loaded, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import generalist
from generalist.acting.agent import Agent
from generalist.decoding.decoder import Decoder
from generalist.decoding.sampling import GREEDY, Sampling
from generalist.episode import tree_stack
from generalist.errors import GeneralistError, UsageError
from tests.decoding.models import full_logits, text_only_processor, tiny_agent, tiny_model

CARTPOLE, PENDULUM = "gym/CartPole-v1", "gym/Pendulum-v1"
TAXI = "gym/Taxi-v4"  # says which actions are legal


def observations_of(task: str, count: int) -> list[np.ndarray]:
    env = generalist.make(task)
    space = env.observation_space
    space.seed(0)
    env.close()
    return [np.clip(space.sample(), -5, 5) for _ in range(count)]


def test_an_action_is_the_most_probable_legal_one_given_the_whole_context() -> None:
    """Against a plain forward pass over the sequence as the processor writes it."""
    agent = tiny_agent(PENDULUM, window=512, sampling=GREEDY)
    layout, processor = agent.layout, agent.processor
    context = processor.header(PENDULUM).tolist()
    for step, observation in enumerate(observations_of(PENDULUM, 12)):
        action = agent.act(observation, first=step == 0)
        context += processor.encode_observations(observation[None], layout)[0].tolist()
        context.append(processor.vocabulary.special("separator"))
        for start, stop in layout.legal:
            logits = full_logits(agent.model, np.array(context))[start:stop]
            context.append(start + int(logits.argmax()))
        expected = processor.decode_actions(np.array([context[-len(layout.legal) :]]), layout)
        np.testing.assert_array_equal(action, expected[0])


def test_actions_lie_in_the_action_space_and_have_its_dtype() -> None:
    for task in (CARTPOLE, PENDULUM):
        agent = tiny_agent(task, sampling=Sampling(temperature=1.0))
        env = generalist.make(task)
        for step, observation in enumerate(observations_of(task, 30)):
            action = agent.act(observation, first=step == 0)
            assert env.action_space.contains(action), (task, action)


def test_batch_equals_single_with_different_resets_and_seeds() -> None:
    sampling = Sampling(temperature=1.0)
    batched = tiny_agent(PENDULUM, sampling=sampling)
    singles = [tiny_agent(PENDULUM, sampling=sampling) for _ in range(3)]
    observations = np.stack(observations_of(PENDULUM, 3 * 40)).reshape(40, 3, -1)
    rng = np.random.default_rng(0)
    for step in range(40):
        first = (rng.random(3) < 0.05) | (step == 0)
        seeds = rng.integers(0, 100, 3)
        together = batched.act(observations[step], first, seeds=seeds)
        for i, agent in enumerate(singles):
            alone = agent.act(observations[step, i], bool(first[i]), seeds=seeds[i : i + 1])
            np.testing.assert_array_equal(alone, together[i])


def test_slots_let_the_batch_shrink() -> None:
    whole, part = tiny_agent(PENDULUM), tiny_agent(PENDULUM)
    observations = np.stack(observations_of(PENDULUM, 2))
    for agent in (whole, part):
        agent.act(observations, np.array([True, True]))
    actions = whole.act(observations, np.array([False, False]))
    alone = part.act(observations[1:], np.array([False]), slots=np.array([1]))
    np.testing.assert_array_equal(alone[0], actions[1])


def test_the_instruction_is_part_of_what_the_agent_knows() -> None:
    agent = tiny_agent(CARTPOLE)
    observations = np.zeros((2, 4), np.float32)
    agent.act(observations, np.array([True, True]), instructions=["go left", "go right"])
    contexts = [agent._running.decoder.context(slot) for slot in range(2)]
    for context, words in zip(contexts, ("go left", "go right"), strict=True):
        header = agent.processor.header(CARTPOLE, words)
        np.testing.assert_array_equal(context[: len(header)], header)


@pytest.mark.parametrize("part", ["start", "end"])
def test_prompts_stand_in_the_header_at_most_a_quarter_of_the_window(part: str) -> None:
    from generalist.acting.prompts import demonstrations

    window = 256
    agent = tiny_agent(CARTPOLE, window=window)
    episodes = demonstrations(CARTPOLE, 2)
    agent.set_prompts(episodes, part)
    end = agent.processor.vocabulary.special("demonstration_end")
    start = len(agent.processor.header(CARTPOLE))
    for i, episode in enumerate(episodes):
        header = agent.header(episode=i).ids
        prompt = header[start:]
        assert prompt[-1] == end and len(prompt) <= window // 4
        assert len(prompt) + agent.layout.tokens_per_timestep > window // 4
        ids = agent.processor.encode(episode, agent.layout).tolist()
        kept = ids[: len(prompt) - 1] if part == "start" else ids[1 - len(prompt) :]
        assert prompt[:-1] == kept
    for step in range(100):  # the demonstration stays in view however often the window turns over
        agent.act(np.zeros(4, np.float32), first=step == 0, seeds=[1])
        context = agent._running.decoder.context(0).tolist()
        assert context[: len(header)] == header and len(context) <= window


def test_saved_and_loaded_acts_the_same(tmp_path: Path) -> None:
    agent = tiny_agent(CARTPOLE, PENDULUM)
    agent.save_pretrained(tmp_path)
    loaded = Agent.from_pretrained(tmp_path, task=PENDULUM)
    other = agent.for_task(PENDULUM)
    assert loaded.sampling == other.sampling == agent.sampling == Sampling(temperature=1.0)
    for step, observation in enumerate(observations_of(PENDULUM, 40)):
        expected = other.act(observation, first=step == 0)
        np.testing.assert_array_equal(loaded.act(observation, first=step == 0), expected)


def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    agent = tiny_agent(CARTPOLE)
    agent.save_pretrained(tmp_path)
    path = tmp_path / "generalist" / "training.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "vocabulary": "0123456789abcdef"}))
    with pytest.raises(GeneralistError) as caught:
        Agent.from_pretrained(tmp_path)
    assert "0123456789abcdef" in str(caught.value)
    assert agent.processor.vocabulary.fingerprint in str(caught.value)


def test_a_model_with_too_few_embeddings_is_refused(tmp_path: Path) -> None:
    agent = tiny_agent(CARTPOLE)
    agent.save_pretrained(tmp_path)
    tiny_model(size=100).save_pretrained(tmp_path)
    with pytest.raises(GeneralistError, match="100 token embeddings"):
        Agent.from_pretrained(tmp_path)


def test_unknown_tasks_are_refused_unless_a_layout_is_given(tmp_path: Path) -> None:
    agent = tiny_agent(CARTPOLE, PENDULUM)
    agent.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="gym/CartPole-v1, gym/Pendulum-v1"):
        Agent.from_pretrained(tmp_path)
    with pytest.raises(UsageError, match="not trained on 'gym/Acrobot-v1'.*gym/CartPole-v1"):
        Agent.from_pretrained(tmp_path, task="gym/Acrobot-v1")
    env = generalist.make("gym/Acrobot-v1")
    layout = agent.processor.layout(env.observation_space, env.action_space)
    acrobot = Agent.from_pretrained(tmp_path, task="gym/Acrobot-v1", layout=layout)
    observation, _ = env.reset(seed=0)
    assert env.action_space.contains(acrobot.act(observation, first=True))


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(GeneralistError, match="no checkpoint folder"):
        Agent.from_pretrained(tmp_path / "nothing")
    with pytest.raises(GeneralistError, match="config.json is missing"):
        Agent.from_pretrained(tmp_path)
    tiny_agent(CARTPOLE).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(GeneralistError, match="cannot be loaded"):
        Agent.from_pretrained(tmp_path)
    (tmp_path / "generalist" / "layouts.json").write_text("{")
    with pytest.raises(GeneralistError, match="damaged"):
        Agent.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["nothing", "half", "garbage"])
def test_damaged_weights_are_named(content: str, tmp_path: Path) -> None:
    tiny_agent(CARTPOLE).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    damaged = {"nothing": b"", "half": whole[: len(whole) // 2], "garbage": b"\xff" * len(whole)}
    weights.write_bytes(damaged[content])
    with pytest.raises(GeneralistError, match="damaged or cut short") as caught:
        Agent.from_pretrained(tmp_path)
    assert str(weights) in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_an_observation_names_the_field_and_leaves_the_agent_usable(bad: float) -> None:
    agent = tiny_agent(PENDULUM)
    good = np.array([1.0, 0.0, 0.5], np.float32)
    agent.act(good, first=True)
    with pytest.raises(GeneralistError, match="gym/Pendulum-v1: observation"):
        agent.act(np.array([1.0, bad, 0.5], np.float32), first=False)
    agent.act(good, first=False)


@pytest.mark.parametrize("passed", range(4))
def test_an_interrupted_call_may_be_repeated(passed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after so many passes, in episodes that begin and in those that go on."""
    layout = Nested.action_space  # several action tokens
    processor = text_only_processor()
    layouts = {"own/Nested": processor.layout(Nested.observation_space, layout)}
    model = tiny_model(window=128, size=processor.vocabulary.size)
    whole, cut = (Agent(model, processor, layouts, sampling=Sampling(1.0)) for _ in range(2))
    run = Decoder._forward
    passes = 0

    def interrupted(self: Decoder, *given: object, **named: object) -> object:
        nonlocal passes
        passes += 1
        if passes == passed + 1:
            raise KeyboardInterrupt
        return run(self, *given, **named)

    Nested.observation_space.seed(0)
    for step in range(12):
        first = np.array([step % 5 == 0, step % 3 == 0])
        observations = tree_stack([Nested.observation_space.sample() for _ in range(2)])
        expected = whole.act(observations, first)
        passes = 0
        monkeypatch.setattr(Decoder, "_forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cut.act(observations, first)
        monkeypatch.undo()
        np.testing.assert_equal(cut.act(observations, first), expected)


def test_wrong_use_is_said_in_a_sentence() -> None:
    agent = tiny_agent(PENDULUM)
    observations = np.zeros((2, 3), np.float32)
    with pytest.raises(GeneralistError, match="has not begun"):
        agent.act(observations[0], first=False)
    with pytest.raises(GeneralistError, match="one flag for each"):
        agent.act(observations, np.array([True]))
    agent.act(observations[:1], np.array([True]))
    with pytest.raises(GeneralistError, match="grew from 1 to 2"):
        agent.act(observations, np.array([False, True]))
    document = agent.for_task("text/x", agent.processor.document_layout())
    with pytest.raises(UsageError, match="generate_text"):
        document.act(observations[0], first=True)


def test_each_task_is_acted_in_at_its_own_temperature(tmp_path: Path) -> None:
    agent = tiny_agent(CARTPOLE, PENDULUM, temperature={PENDULUM: 0.25})
    agent.save_pretrained(tmp_path)
    loaded = Agent.from_pretrained(tmp_path, task=PENDULUM)
    assert loaded.sampling == Sampling(0.25)
    assert loaded.for_task(CARTPOLE).sampling == Sampling(1.0), "Pendulum's is no default"
    assert loaded.for_task(CARTPOLE).for_task(PENDULUM).sampling == Sampling(0.25)
    asked = Agent.from_pretrained(tmp_path, task=PENDULUM, temperature=0.0)
    assert asked.sampling == asked.for_task(CARTPOLE).sampling == GREEDY


@pytest.mark.parametrize(
    ("context_steps", "seen"),
    [(2, 2), (1, 1), ({PENDULUM: 1, "default": 3}, 1), ({"gym/Other-v0": 1, "default": 2}, 2)],
)
def test_the_agent_sees_as_many_timesteps_as_it_was_trained_on(
    context_steps: int | dict[str, int], seen: int, tmp_path: Path
) -> None:
    agent = tiny_agent(PENDULUM, context_steps=context_steps)
    agent.save_pretrained(tmp_path)
    loaded = Agent.from_pretrained(tmp_path)
    assert loaded.context_steps == context_steps
    assert Agent.from_pretrained(tmp_path, context_steps=5).context_steps == 5
    for step, observation in enumerate(observations_of(PENDULUM, 6)):
        loaded.act(observation, first=step == 0)
    assert loaded._running.decoder is not None
    body = len(loaded._running.decoder.context(0)) - len(loaded.header().ids)
    assert body == seen * loaded.layout.tokens_per_timestep


class Nested(gymnasium.Env):
    """Observation and action spaces of many kinds, nested."""

    observation_space = spaces.Dict(
        {
            "grid": spaces.Box(0, 3, (2, 2), np.uint8),
            "pair": spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32))),
        }
    )
    action_space = spaces.Dict(
        {"aim": spaces.Box(-2, 2, (2,), np.float32), "keys": spaces.MultiDiscrete([3, 4])}
    )


def test_nested_spaces_act_alone_and_in_a_batch() -> None:
    processor = text_only_processor()
    layout = processor.layout(Nested.observation_space, Nested.action_space)
    model = tiny_model(window=128, size=processor.vocabulary.size)
    agent = Agent(model, processor, {"own/Nested": layout}, sampling=Sampling(1.0))
    Nested.observation_space.seed(0)
    for step in range(20):
        action = agent.act(Nested.observation_space.sample(), first=step == 0)
        assert Nested.action_space.contains(action), action
    samples = [Nested.observation_space.sample() for _ in range(3)]
    actions = agent.act(tree_stack(samples), np.array([True] * 3))
    assert actions["aim"].shape == (3, 2) and actions["keys"].shape == (3, 2)


def test_masks_of_legal_actions_are_kept_alone_and_in_a_batch() -> None:
    agent = tiny_agent(TAXI, sampling=Sampling(temperature=1.0))
    rng = np.random.default_rng(0)
    for step in range(60):
        masks = rng.random((3, 6)) < 0.3
        masks[np.arange(3), rng.integers(6, size=3)] = True
        first = np.full(3, step == 0)
        actions = agent.act(rng.integers(500, size=3), first, action_masks=masks)
        assert masks[np.arange(3), actions].all()
    agent.release()
    for step in range(20):
        mask = np.zeros(6, np.int8)
        mask[step % 6] = 1
        action = agent.act(np.int64(7), first=step == 0, action_masks=mask)
        assert action == step % 6


def test_masks_that_do_not_belong_are_refused() -> None:
    with pytest.raises(GeneralistError, match="Pendulum-v1: action has a mask"):
        tiny_agent(PENDULUM).act(np.zeros(3, np.float32), True, action_masks=np.ones(5, bool))
    with pytest.raises(GeneralistError, match="3 action masks for 2"):
        tiny_agent(TAXI).act(np.array([0, 1]), np.ones(2, bool), action_masks=np.ones((3, 6), bool))
