"""An environment whose spaces are as odd as Gymnasium allows, from its episodes to an agent."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import generalist
from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.collecting.collect import collect
from generalist.decoding.sampling import Sampling
from generalist.episode import tree_get, tree_leaves
from generalist.experts import random_episode
from generalist.shards.manifest import DatasetHeader
from generalist.shards.reader import TaskData
from generalist.shards.spaces import space_from_json
from generalist.tokenization.processor import GeneralistProcessor
from generalist.windows.spec import dataset_spec
from tests.decoding.models import tiny_model

CHESS_LIKE = "gym/tests.tokenization.odd_env:ChessLike-v0"
ODD = "gym/tests.tokenization.odd_env:Odd-v0"


def test_episodes_of_odd_spaces_come_back_from_shards_and_are_acted_in(
    tmp_path: Path, without_frames: GeneralistProcessor
) -> None:
    without_frames.save_pretrained(tmp_path / "processor")
    spec = dataset_spec({"tasks": [{"task": ODD, "episodes": 3, "expert": "random", "noise": 0}]})
    report = collect(spec, tmp_path, 0, progress=False, processor=str(tmp_path / "processor"))
    assert report.failures == [] and report.tasks[ODD].episodes == 3

    data, env = TaskData(tmp_path / ODD), generalist.make(ODD)
    stored = DatasetHeader.read(tmp_path / ODD).spaces
    assert space_from_json(stored["observation"]) == env.observation_space
    assert space_from_json(stored["action"]) == env.action_space

    seed = data.records[1]["seed"]
    played = random_episode(env, ODD, seed)
    again = without_frames.decode(data.tokens(1), data.layout)
    for side in ("observations", "actions"):
        for path, leaf in tree_leaves(getattr(played, side)):
            back = tree_get(getattr(again, side), path)
            assert back.shape == leaf.shape and back.dtype.kind == leaf.dtype.kind
            if leaf.dtype.kind == "f":
                np.testing.assert_allclose(back, leaf, rtol=0.03, atol=0.01)
            else:
                np.testing.assert_array_equal(back, leaf)

    model = tiny_model(window=256, size=without_frames.vocabulary.size)
    agent = Agent(model, without_frames, {ODD: data.layout}, task=ODD, sampling=Sampling(1.0))
    result = rollout(agent, episodes=3, progress=False)
    assert result.lengths == [6, 6, 6]


def test_moves_of_thousands_are_chosen_from_the_few_that_are_legal(
    without_frames: GeneralistProcessor,
) -> None:
    env = generalist.make(CHESS_LIKE)
    spaces = env.observation_space, env.action_space
    layout = without_frames.layout(*spaces, task=CHESS_LIKE)
    model = tiny_model(window=128, size=without_frames.vocabulary.size)
    agent = Agent(model, without_frames, {CHESS_LIKE: layout}, sampling=Sampling(3.0))
    result = rollout(agent, episodes=5, progress=False)
    assert result.returns == [6.0] * 5, "a legal action each step"
    episode = random_episode(env, CHESS_LIKE, 0)
    assert episode.return_ == 6
