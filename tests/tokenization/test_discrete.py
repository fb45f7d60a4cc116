import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.tokenization.discrete import DiscreteCodec
from generalist.tokenization.grid import GridCodec


@given(st.integers(-50, 50), st.integers(1, 1024))
def test_every_legal_integer_comes_back(low, count):
    codec = DiscreteCodec((), "int64", (low,), (count,))
    values = np.arange(low, low + count)
    codes = codec.encode(values, None)
    assert codes.min() == 0 and codes.max() == count - 1
    np.testing.assert_array_equal(codec.decode(codes, None), values)


@pytest.mark.parametrize("bad", [-1, 3, 0.5, np.nan, np.inf])
def test_an_illegal_value_is_refused_and_named(bad):
    codec = DiscreteCodec((2,), "int64", (0, 0), (3, 3))
    values = np.zeros((4, 2))
    values[2, 1] = bad
    with pytest.raises(ValueError, match="at step 2, element 1; legal are the integers 0 to 2"):
        codec.encode(values, None)


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(-3, 3)] * 3), st.data())
def test_a_grid_is_one_token_a_cell_and_comes_back(count, low, data):
    codec = GridCodec((4, 5, 3), "int64", low, count)
    seed = data.draw(st.integers(0, 1000))
    digits = np.random.default_rng(seed).integers(0, count, size=(6, 4, 5, 3))
    values = digits + np.array(low)
    codes = codec.encode(values, None)
    assert codes.shape == (6, 20) and codec.tokens == 20
    assert codes.min() >= 0 and codes.max() < np.prod(count)
    np.testing.assert_array_equal(codec.decode(codes, None), values)


def test_a_grid_cell_outside_its_channel_is_refused():
    codec = GridCodec((1, 1, 2), "uint8", (0, 0), (3, 4))
    with pytest.raises(ValueError, match="legal"):
        codec.encode(np.array([[[[2, 4]]]]), None)
