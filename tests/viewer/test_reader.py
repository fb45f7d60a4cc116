"""What a model saw and chose, in words: it is what the agent itself acts by."""

from __future__ import annotations

import numpy as np
import pytest

from generalist import envs
from generalist.session import Session
from generalist.tokenization.image import ImageCodec
from generalist.viewer.game import Model
from generalist.viewer.reader import MOST_BARS, Reader
from generalist.viewer.watched import Watched

TASKS = ("gym/CartPole-v1", "gym/Pendulum-v1", "babyai/GoToLocal", "atari/Freeway")


def played(model: Model, task: str, steps: int = 3):
    """A session of the task after some steps, with what was watched."""
    env = envs.make(task)
    watched = model.watched(task)
    session = Session(env, watched, task=task, seed=800_000)
    for _ in range(steps):
        session.step()
    return session, watched, Reader(watched.agent, env)


@pytest.mark.parametrize("task", TASKS)
def test_watching_changes_no_action_and_bars_are_the_models_probabilities(model: Model, task: str):
    session, watched, reader = played(model, task)
    agent = model.agent.for_task(task)
    env = envs.make(task)
    other = Session(env, agent, task=task, seed=800_000)
    for _ in range(3):
        other.step()
    np.testing.assert_array_equal(session.decision.ids, other.decision.ids)
    moment = reader.moment(
        watched.seen[0], session.decision, watched.believed[0], session.trace.action
    )
    legend = reader.legend()
    assert len(moment["ids"]) == len(moment["words"]) == len(legend["fields"])
    for bars, chosen, choice, believed in zip(
        moment["bars"], moment["chosen"], legend["choices"], watched.believed[0], strict=True
    ):
        assert sum(bars) == pytest.approx(1, abs=0.02) and len(bars) <= MOST_BARS
        assert len(choice["labels"]) == len(bars) and 0 <= chosen < len(bars)
        assert believed.sum() == pytest.approx(1, abs=1e-4)
    action = watched.agent.layout.positions.of_role("action")
    assert [moment["ids"][place] for place in action] == session.decision.ids[0].tolist()


def test_beliefs_agree_with_the_probability_of_what_was_drawn(model: Model):
    agent = model.agent.for_task("gym/CartPole-v1")
    agent.log_probs = True
    watched = Watched(agent, model.beliefs)
    env = envs.make("gym/CartPole-v1")
    session = Session(env, watched, task="gym/CartPole-v1", seed=800_001)
    start = agent.layout.legal[0][0]
    for _ in range(5):
        session.step()
        decision = session.decision
        believed = watched.believed[0][0][decision.ids[0, 0] - start]
        assert np.log(believed) == pytest.approx(float(decision.log_probs[0, 0]), abs=1e-4)


def test_actions_and_cells_have_names(model: Model):
    session, watched, reader = played(model, "babyai/GoToLocal")
    legend = reader.legend()
    assert legend["choices"][0]["labels"][:3] == ["left", "right", "forward"]
    assert "ball" in legend["cells"]["object"] and legend["form"] == "compact"
    assert reader.in_words(np.int64(2)) == "forward"
    assert [each["rows"] * each["columns"] for each in legend["pictures"]] == [49]
    (header,) = [each for each in reader.header("go to a red ball") if each["range"] == "task"]
    assert header["value"] == "babyai/GoToLocal"


def test_bars_of_a_continuous_action_run_from_its_low_to_its_high_end(model: Model):
    _, _, reader = played(model, "gym/Pendulum-v1", 1)
    values = [float(each) for each in reader.legend()["choices"][0]["labels"]]
    assert len(values) == MOST_BARS and values == sorted(values)
    assert values[0] == pytest.approx(-2, abs=0.1) and values[-1] == pytest.approx(2, abs=0.1)


def test_the_frame_comes_back_from_its_tokens(model: Model):
    session, watched, reader = played(model, "atari/Freeway")
    picture = reader.picture(watched.seen[0])
    assert picture.shape == (84, 84, 3) and picture.dtype == np.uint8
    part = next(p for p in watched.agent.layout.fields if isinstance(p.codec, ImageCodec))
    again = part.encode(picture[None], watched.agent.processor.toolbox)
    assert (again == watched.seen[0]).mean() > 0.8  # codes of a decoded frame
    assert played(model, "gym/CartPole-v1", 1)[2].picture(np.zeros(4, np.int64)) is None


def test_a_new_instruction_stands_at_the_head_of_the_window(model: Model):
    session, watched, _ = played(model, "babyai/GoToLocal")
    session.instruct("go to a purple box")
    session.step()
    context = watched.agent._running.decoder.context(0)
    header = watched.agent.header("go to a purple box").ids
    assert context[: len(header)].tolist() == header


def test_a_temperature_holds_from_the_next_step_on(model: Model):
    session, watched, _ = played(model, "gym/Pendulum-v1")
    watched.agent.set_temperature(0.0)
    session.step()
    start = watched.agent.layout.legal[0][0]
    assert session.decision.ids[0, 0] - start == watched.believed[0][0].argmax()
    watched.agent.set_temperature(None)
    assert watched.agent.sampling == model.agent.for_task("gym/Pendulum-v1").sampling
