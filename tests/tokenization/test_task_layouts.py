"""One function makes a task's layout: whoever acts in it encodes what collecting wrote."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import generalist
from generalist.acting.agent import Agent
from generalist.acting.zero_shot import agent_for
from generalist.collecting.collect import collect
from generalist.shards.reader import TaskData
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor
from generalist.vocabulary import fingerprint_of
from generalist.windows.spec import DatasetSpec
from tests.decoding.models import tiny_model

TASKS = ["atari/Breakout", "atari/Seaquest"]  # the tokenizer knows the background of the first
STORED = {  # as datasets and checkpoints of version 0.1 hold them: ids keep their meaning
    "gym/CartPole-v1": "d59444fbb4b34dee",
    "gym/Humanoid-v5": "a563a3da42de00b8",
    "dmc/cartpole-swingup": "10734cdff47040ae",
    "dmc/lqr-lqr_2_1": "002b224b5f0f1ea3",
    "babyai/GoToLocal": "e006337634a21066",
    "atari/Pong": "ea6dd593bfd69792",
    "metaworld/door-open": "a8a1d9c5f44671ec",
    "doom/deathmatch": "261d51fafd438d55",
    "board/Breakthrough-6x6": "0da97aa28b9e1778",
}
PACKAGE = Path(generalist.__file__).parent


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    entries = [{"task": task, "episodes": 1, "expert": "random", "max_steps": 12} for task in TASKS]
    collect(DatasetSpec.model_validate({"tasks": entries}), root, 0, progress=False)
    return root


@pytest.mark.parametrize("task", TASKS)
def test_frames_have_the_codes_that_collecting_wrote_where_the_task_is_new(
    collected: Path, task: str
) -> None:
    """With the still background of the game; without it two codes of three are others."""
    data, said = TaskData(collected / task), []
    processor = GeneralistProcessor.default()
    other = generalist.make("gym/CartPole-v1")
    layouts = {"gym/CartPole-v1": processor.layout(other.observation_space, other.action_space)}
    model = tiny_model(window=256, size=processor.vocabulary.size)
    env = generalist.make(task)
    agent = agent_for(Agent(model, processor, layouts), task, env, say=said.append)
    assert agent.layout == data.layout
    assert said == (
        [f"the still background of {task} was fitted to random play."] * (task != TASKS[0])
    )

    size = data.layout.tokens_per_timestep
    stored = data.tokens(0).reshape(-1, size).astype(int)
    actions = processor.decode_actions(stored[:, agent.layout.positions.chosen], agent.layout)
    observation, _ = env.reset(seed=data.records[0]["seed"])
    for step, action in enumerate(actions):
        ids = processor.encode_observations(observation[None], agent.layout, task)
        np.testing.assert_array_equal(
            ids[0], stored[step, agent.layout.positions.of_role("observation")]
        )
        observation, *_ = env.step(action)
    assert step == 11


def test_every_layout_that_the_package_makes_of_spaces_names_its_task() -> None:
    """And says how a background is found."""
    calls = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "layout":
                    calls.append((path.name, {keyword.arg for keyword in node.keywords}))
    assert len(calls) >= 3
    assert [name for name, given in calls if "task" not in given] == []
    assert [name for name, given in calls if "play" not in given] == []


@pytest.mark.parametrize("task", STORED)
def test_layouts_of_shipped_tasks_are_those_of_the_data_that_exist(task: str) -> None:
    processor = GeneralistProcessor.default()
    env = generalist.make(task)
    layout = processor.layout(env.observation_space, env.action_space, task=task)
    env.close()
    assert fingerprint_of(layout.to_dict()) == STORED[task]
    assert Layout.from_dict(layout.to_dict()) == layout
