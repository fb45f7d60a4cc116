"""Meta-World's scripted policies: labels at any state, also under noise, and they solve tasks."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.envs import make
from generalist.experts import collect_episode, get_expert


@pytest.mark.parametrize("name", ["metaworld/door-open", "metaworld/push", "metaworld/hammer"])
def test_labels_follow_from_the_state_alone(name: str) -> None:
    env, other = make(name), make(name)
    noisy = collect_episode(env, name, get_expert(name), seed=3, noise=0.4, burst_steps=3)
    assert noisy.labels.dtype == np.float32 and np.abs(noisy.labels).max() <= 1.0
    assert (noisy.labels != noisy.actions).any(axis=1).mean() > 0.2
    # The same actions again, with an expert that comes in at every step anew.
    observation, _ = other.reset(seed=3)
    for step in range(min(noisy.steps, 60)):
        expert = get_expert(name)
        expert.reset(other, 3)
        assert np.array_equal(expert.label(observation, other), noisy.labels[step])
        observation, *_ = other.step(noisy.actions[step])


def test_disturbed_or_not_it_solves_what_it_can() -> None:
    for name in ("metaworld/button-press", "metaworld/window-open"):
        env = make(name)
        for noise in (0.0, 0.2):
            episode = collect_episode(env, name, get_expert(name), seed=0, noise=noise)
            assert episode.success, (name, noise)
