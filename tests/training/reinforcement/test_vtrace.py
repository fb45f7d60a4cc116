"""V-trace against a plain reference, and against the returns that it is on policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generalist.training.reinforcement.vtrace import v_trace

UNROLLS, STEPS = 5, 9


def drawn(seed: int = 0) -> dict[str, np.ndarray]:
    """Unrolls of random rewards and values, in which some episodes end."""
    random = np.random.default_rng(seed)
    going_on = random.random((UNROLLS, STEPS)) > 0.2
    return {
        "rewards": random.normal(size=(UNROLLS, STEPS)),
        "discounts": 0.9 * going_on,
        "values": random.normal(size=(UNROLLS, STEPS + 1)),
        "ratios": np.exp(random.normal(size=(UNROLLS, STEPS))),
    }


def computed(arrays: dict[str, np.ndarray], **options: float) -> tuple[np.ndarray, np.ndarray]:
    traced = v_trace(**{name: torch.from_numpy(x) for name, x in arrays.items()}, **options)
    return traced.values.numpy(), traced.advantages.numpy()


def written_out(arrays: dict[str, np.ndarray], trace_decay: float) -> np.ndarray:
    """The paper's equation 1, term by term, for every state."""
    rewards, discounts, values, ratios = arrays.values()
    weights = np.minimum(ratios, 1)
    targets = values[:, :-1].copy()
    for row in range(UNROLLS):
        for start in range(STEPS):
            factor = 1.0
            for step in range(start, STEPS):
                following = discounts[row, step] * values[row, step + 1]
                error = rewards[row, step] + following - values[row, step]
                targets[row, start] += factor * weights[row, step] * error
                factor *= discounts[row, step] * trace_decay * weights[row, step]
    return targets


@pytest.mark.parametrize("trace_decay", [1.0, 0.95, 0.0])
def test_targets_are_those_of_the_paper(trace_decay):
    arrays = drawn()
    targets, _ = computed(arrays, trace_decay=trace_decay)
    np.testing.assert_allclose(targets, written_out(arrays, trace_decay), rtol=1e-10, atol=1e-10)


def test_on_policy_they_are_bootstrapped_returns():
    arrays = drawn(1) | {"ratios": np.ones((UNROLLS, STEPS))}
    targets, advantages = computed(arrays)
    earned = arrays["values"][:, -1]
    for step in reversed(range(STEPS)):
        earned = arrays["rewards"][:, step] + arrays["discounts"][:, step] * earned
        np.testing.assert_allclose(targets[:, step], earned, rtol=1e-10, atol=1e-10)
        gain = earned - arrays["values"][:, step]
        np.testing.assert_allclose(advantages[:, step], gain, rtol=1e-10, atol=1e-10)


def test_nothing_behind_an_ends_episode_counts():
    arrays = drawn(2)
    arrays["discounts"][:, 4] = 0
    other = {name: each.copy() for name, each in arrays.items()}
    for name in ("rewards", "values", "ratios"):
        other[name][:, 5:] = 7.0
    for one, two in zip(computed(arrays), computed(other), strict=True):
        np.testing.assert_array_equal(one[:, :5], two[:, :5])


def test_an_action_that_became_impossible_teaches_values_nothing():
    arrays = drawn(3)
    arrays["ratios"][:, :] = 0
    targets, _ = computed(arrays)
    np.testing.assert_array_equal(targets, arrays["values"][:, :-1])
