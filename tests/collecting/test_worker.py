"""A job's result depends on the job alone, in every family."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.collecting.worker import CollectJob, Worker
from generalist.tokenization.processor import GeneralistProcessor
from generalist.windows.spec import TaskSpec

TASKS = [
    "gym/CartPole-v1",
    "gym/Pendulum-v1",
    "gym/MountainCarContinuous-v0",
    "gym/LunarLander-v3",
    "dmc/cartpole-swingup",
    "dmc/reacher-easy",
    "babyai/GoToLocal",
]


def check(name: str, processor: GeneralistProcessor) -> None:
    """Seed 2 after seeds 0 and 1 is the same as seed 2 alone."""
    task = TaskSpec(task=name, episodes=3, max_steps=40)
    jobs = [CollectJob(task, seed, noise=0.3) for seed in range(3)]
    used, fresh = Worker(processor), Worker(processor)
    for job in jobs[:2]:
        assert not used.run(job).failures
    again, first = used.run(jobs[2]), fresh.run(jobs[2])
    assert not again.failures and not first.failures
    (a,), (b,) = again.episodes, first.episodes
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.rewards, b.rewards)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.record == b.record and a.record["seed"] == 2


@pytest.mark.parametrize("name", TASKS)
def test_an_episode_does_not_depend_on_those_before(
    name: str, without_frames: GeneralistProcessor
) -> None:
    check(name, without_frames)


@pytest.mark.parametrize("name", ["atari/Freeway", "atari/Pong"])
def test_an_episode_of_frames_does_not_depend_on_those_before(name: str) -> None:
    check(name, GeneralistProcessor.default())


def test_documents_are_taken_in_the_order_of_the_job(without_frames: GeneralistProcessor) -> None:
    from generalist.envs.text import documents

    task = TaskSpec(task="text/pydoc")
    worker = Worker(without_frames)
    texts = documents("text/pydoc")
    assert worker.open(task, {}).documents == len(texts)
    result = worker.run(CollectJob(task, 3, documents=(3, 5, 4)))
    read = [without_frames.decode_text(episode.tokens) for episode in result.episodes]
    assert read == [texts[3], texts[5], texts[4]]
    assert [e.record["seed"] for e in result.episodes] == [3, 5, 4]
