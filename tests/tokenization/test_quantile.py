import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from generalist.tokenization.fit_quantiles import fit_knots
from generalist.tokenization.quantile import QuantileCodec

BINS = 1024


def fitted(values: np.ndarray, dtype: str = "float64") -> QuantileCodec:
    return QuantileCodec((1,), dtype, (fit_knots(np.asarray(values, np.float64)),), BINS)


VALUES = arrays.arrays(
    np.float64, st.integers(1, 60), elements=st.floats(-1e4, 1e4, allow_subnormal=False)
)


@given(VALUES, st.sampled_from(["float32", "float64"]))
def test_every_code_is_the_code_of_its_value(values, dtype):
    codec, codes = fitted(values, dtype), np.arange(BINS)[:, None]
    assert (np.diff(codec.knots[0]) > 0).all()
    assert (codec.encode(codec.decode(codes, None), None) == codes).all()


@given(VALUES)
def test_what_occurred_is_no_edge_and_comes_back_within_a_bin(values):
    codec, x = fitted(values), values[:, None]
    codes = codec.encode(x, None)
    assert codes.min() > 0 and codes.max() < BINS - 1
    width = codec.decode(np.minimum(codes + 1, BINS - 1), None) - codec.decode(codes - 1, None)
    assert (np.abs(codec.decode(codes, None) - x) <= width).all()


def test_what_never_occurred_is_clipped_beyond_a_margin():
    codec = fitted(np.linspace(-1, 1, 100))
    low, inside, outside, far = codec.encode(np.array([[-50.0], [1.0], [1.4], [50.0]]), None)[:, 0]
    assert low == 0 and far == BINS - 1 and inside < outside < far


def test_bins_are_used_alike_where_uniform_ones_are_not():
    values = np.random.default_rng(0).exponential(size=20_000) ** 3
    used = len(np.unique(fitted(values).encode(values[:, None], None)))
    even = len(np.unique(np.floor(values / values.max() * BINS)))
    assert used > 0.85 * BINS > 3 * even


def test_a_value_that_nearly_always_occurs_leaves_bins_for_the_others():
    values = np.concatenate([np.zeros(1000), np.linspace(-1, 1, 21)])
    codes = fitted(values).encode(np.linspace(-1, 1, 21)[:, None], None)
    assert (np.diff(codes[:, 0]) > 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_with_step_and_element(bad):
    with pytest.raises(ValueError, match="at step 1, element 0"):
        fitted(np.arange(3.0)).encode(np.array([[0.0], [bad]]), None)
