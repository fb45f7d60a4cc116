import json

import gymnasium
import numpy as np
import pytest

import generalist
from generalist.errors import GeneralistError
from generalist.tokenization.fit_quantiles import fit_knots, fit_quantiles
from generalist.tokenization.layout import Layout
from generalist.tokenization.quantile import QuantileCodec


def test_observations_are_fitted_and_actions_are_not():
    processor = generalist.GeneralistProcessor.default()
    env = gymnasium.make("LunarLanderContinuous-v3")
    layout = processor.layout(env.observation_space, env.action_space)
    seen = np.random.default_rng(0).normal(scale=0.1, size=(200, 8)).astype(np.float32)
    new = fit_quantiles(layout, [seen[:100], seen[100:]])
    assert [f.codec.kind for f in new.fields] == ["quantile", "continuous"]
    assert new.tokens_per_timestep == layout.tokens_per_timestep and new.legal == layout.legal
    again = Layout.from_dict(json.loads(json.dumps(new.to_dict())))
    assert again == new
    errors = [
        np.abs(f.codec.decode(f.codec.encode(seen, None), None) - seen).mean()
        for f in (layout.fields[0], new.fields[0])
    ]
    assert errors[1] < errors[0] / 5


@pytest.mark.parametrize("outlier", [1e3, -1e6])
def test_a_far_outlier_does_not_take_the_bins_of_the_others(outlier):
    values = np.random.default_rng(0).normal(size=5000)
    knots = fit_knots(np.append(values, outlier))
    codec = QuantileCodec((1,), "float32", (knots,), 1024)
    usual = values[np.abs(values) < 2, None]
    codes = codec.encode(usual, None)
    assert len(np.unique(codes)) > 500
    assert np.abs(codec.decode(codes, None) - usual).mean() < 0.01
    assert np.diff(knots).min() > 0 and not codec.clipped(np.array([[outlier]])).any()


def test_without_real_numbers_there_is_nothing_to_fit():
    processor = generalist.GeneralistProcessor.default()
    env = gymnasium.make("Blackjack-v1")
    layout = processor.layout(env.observation_space, env.action_space)
    with pytest.raises(GeneralistError, match="real number"):
        fit_quantiles(layout, [tuple(np.zeros(3, int) for _ in range(3))])
