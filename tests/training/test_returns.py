"""Training with returns: packed equals alone, resumed equals uninterrupted, and what is refused."""

from __future__ import annotations

import os
import signal

import pytest

from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.errors import UsageError
from generalist.modeling.embedder_files import stored_form
from generalist.tokenization.returns import TaskReturns
from generalist.training.data import open_data
from generalist.training.loop import TrainingInterrupted, train
from tests.training.runs import Counting, assert_bitwise_equal, replaced
from tests.training.test_compact import SIZES, assert_same_embedders, assert_same_losses

# Cut after 60 steps, CartPole earns 1 a step for ever: with a discount there is nothing to ask for.
RETURNS = {"show": 0.5, "discount": {"gym/CartPole-v1": 1, "default": 0.99}}
CARTPOLE, PENDULUM = "gym/CartPole-v1", "gym/Pendulum-v1"


@pytest.fixture
def asking(make_recipe):
    def make(**sections):
        embedders = {"positions": 2, "width": 4}
        model = {**SIZES, "form": "compact", "embedders": embedders, **sections.pop("model", {})}
        return make_recipe(model=model, **{"returns": RETURNS, **sections})

    return make


@pytest.fixture
def rows(asking):
    return open_data(asking(data={**asking().data.model_dump(), "prompt_fraction": 0.5}))


def test_rows_segments_and_segments_alone_have_the_same_losses(asking, rows):
    batch = rows.windows.batch(0, 3)
    assert any(each.name.startswith("return") for each in batch.given)
    assert_same_losses(asking(), rows)


def test_resumed_equals_uninterrupted_bitwise_and_says_what_it_expects(asking, rows, tmp_path):
    train(asking(output_dir=tmp_path / "whole"), rows)
    stopping = Counting(rows.windows, at=4 * 3, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(TrainingInterrupted):
        train(asking(output_dir=tmp_path / "cut"), replaced(rows, stopping))
    train(asking(output_dir=tmp_path / "cut"), rows)
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "cut")
    assert_same_embedders(tmp_path / "whole", tmp_path / "cut")
    agent = Agent.from_pretrained(tmp_path / "whole" / "checkpoint", PENDULUM)
    assert agent.returns.keys() == {CARTPOLE, PENDULUM}
    own = TaskReturns.from_dict(agent.returns[PENDULUM])
    assert own == rows.returns[PENDULUM] and own.low < own.high <= 0
    result = rollout(agent, episodes=2, max_steps=5, wanted_return="expert", progress=False)
    assert result.wanted_return == "expert:kappa=10"


def test_a_checkpoint_without_returns_learns_them_and_one_with_them_can_do_without(
    asking, tmp_path
):
    plain = asking(returns=None, output_dir=tmp_path / "plain")
    train(plain, open_data(plain))
    before = stored_form(tmp_path / "plain" / "checkpoint")
    start = {"init_from": str(tmp_path / "plain" / "checkpoint")}
    learned = asking(model=start, output_dir=tmp_path / "asked")
    train(learned, open_data(learned))
    after = stored_form(tmp_path / "asked" / "checkpoint")
    assert before.returns is None and after.returns is not None
    assert after.tasks == before.tasks and set(before.signatures) < set(after.signatures)
    start = {"init_from": str(tmp_path / "asked" / "checkpoint")}
    again = asking(model=start, returns=None, output_dir=tmp_path / "again")
    train(again, open_data(again))
    agent = Agent.from_pretrained(tmp_path / "again" / "checkpoint", CARTPOLE)
    with pytest.raises(UsageError, match="it was trained without returns"):
        rollout(agent, episodes=1, wanted_return="expert", progress=False)


def test_what_cannot_be_asked_is_said(asking):
    same = {**RETURNS, "discount": 0.99}
    with pytest.warns(UserWarning, match="All returns in the data of gym/CartPole-v1 are the same"):
        data = open_data(asking(returns=same))
    assert set(data.returns) == {PENDULUM}
    with pytest.raises(UsageError, match="compact"):
        open_data(asking(model={"form": "flat"}))
