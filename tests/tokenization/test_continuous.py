import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.tokenization.codec import codec_from_dict
from generalist.tokenization.continuous import (
    ContinuousCodec,
    coded_bounds,
    inverse_mu_law,
    mu_law,
)

BINS = 1024
BOUNDED = ContinuousCodec((1,), "float64", (-1.0,), (1.0,), BINS)
UNBOUNDED = ContinuousCodec((1,), "float64", (None,), (None,), BINS)


def roundtrip(codec, x):
    return codec.decode(codec.encode(np.array([[x]]), None), None)[0, 0]


def code(codec, x):
    return int(codec.encode(np.array([[x]]), None)[0, 0])


@pytest.mark.parametrize("codec", [BOUNDED, UNBOUNDED])
def test_every_code_is_the_code_of_its_value(codec):
    codes = np.arange(BINS)[:, None]
    assert (codec.encode(codec.decode(codes, None), None) == codes).all()


def test_the_edges_of_a_bounded_element_are_its_first_and_last_bin():
    assert code(BOUNDED, -1.0) == 0
    assert code(BOUNDED, 1.0) == BINS - 1
    assert code(BOUNDED, np.nextafter(0.0, 1.0)) == code(BOUNDED, 0.0) == BINS // 2
    assert code(BOUNDED, 1.5) == BINS - 1 and code(BOUNDED, -7.0) == 0
    near = ContinuousCodec((1,), "float64", (-1e-3,), (1e-3,), BINS)
    assert code(near, 1e308) == BINS - 1 and code(near, -1e308) == 0


def test_the_edges_of_the_mu_law():
    assert code(UNBOUNDED, 0.0) == BINS // 2
    assert code(UNBOUNDED, 256.0) == code(UNBOUNDED, 1e30) == code(UNBOUNDED, 1e308) == BINS - 1
    assert code(UNBOUNDED, -256.0) == code(UNBOUNDED, -1e30) == code(UNBOUNDED, -1e308) == 0


@given(st.floats(-1.0, 1.0))
def test_a_bounded_value_comes_back_within_half_a_bin(x):
    assert abs(roundtrip(BOUNDED, x) - x) <= 1.0 / BINS + 1e-12


@given(st.floats(-250.0, 250.0))
def test_an_unbounded_value_comes_back_within_half_a_bin_of_the_mu_law(x):
    assert abs(mu_law(np.array(roundtrip(UNBOUNDED, x))) - mu_law(np.array(x))) <= 1 / BINS + 1e-12


@given(st.floats(-1e6, 1e6))
def test_inverse_mu_law(x):
    assert inverse_mu_law(mu_law(np.array(x))) == pytest.approx(x, rel=1e-9, abs=1e-12)


@given(st.lists(st.floats(-300, 300), min_size=2, max_size=20))
def test_codes_keep_the_order_of_values(values):
    codes = UNBOUNDED.encode(np.sort(np.array(values))[:, None], None).ravel()
    assert (np.diff(codes) >= 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("codec", [BOUNDED, UNBOUNDED])
def test_what_is_not_finite_is_refused_with_step_and_element(codec, bad):
    values = np.zeros((5, 1))
    values[3, 0] = bad
    with pytest.raises(ValueError, match="at step 3, element 0"):
        codec.encode(values, None)


def test_bounded_and_unbounded_elements_side_by_side():
    codec = ContinuousCodec((2,), "float32", (0.0, None), (10.0, None), BINS)
    values = np.array([[0.0, 0.0], [10.0, 100.0], [5.0, -3.0]])
    back = codec.decode(codec.encode(values, None), None)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back[:, 0], values[:, 0], atol=10 / BINS)
    np.testing.assert_allclose(back[:, 1], values[:, 1], rtol=0.02, atol=2e-3)


def test_a_value_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected"):
        BOUNDED.encode(np.zeros((4, 2)), None)


@pytest.mark.parametrize(
    ("low", "high", "coded"),
    [
        (-1.0, 1.0, (-1.0, 1.0)),
        (0.0, 1e6, (0.0, 1e6)),
        (-3e8, 5e7, (-3e8, 5e7)),
        (2.0, 2.0, (2.0, 2.0)),
        (-np.inf, np.inf, (None, None)),
        (-1e10, 1e10, (None, None)),  # such as dm_control has them
        (-3.4e38, np.inf, (None, None)),
        (0.0, np.inf, (0.0, 1e6)),
        (0.0, 3.4e38, (0.0, 1e6)),
        (-np.inf, -5.0, (-1e6, -5.0)),
        (-5.0, np.inf, (-5.0, 1e6)),
        (1e8, np.inf, (1e8, 1e11)),
        (1e8, 2e10, (1e8, 2e10)),
        (1e12, np.inf, (1e12, 1e15)),
    ],
)
def test_bounds_that_are_missing_or_say_nothing_are_replaced(low, high, coded):
    assert (
        coded_bounds(low, high) == pytest.approx(coded)
        if coded[0] is not None
        else (coded_bounds(low, high) == coded)
    )


@pytest.mark.parametrize(
    ("low", "high", "values", "share"),
    [
        (0.0, 1e6, [1.0, 1e3, 3e4, 9e5], 0.01),  # wide: told apart by their share
        (0.0, 1e6, [1e3, 1e5, 999.0], 0.01),
        (-1e8, 1e8, [-3e7, -20.0, 4.0, 6e6], 0.03),
        (1e6, 1e7, [1e6, 1.234e6, 9.9e6], 0.005),  # of one size: as between near bounds
    ],
)
def test_values_between_wide_bounds_keep_their_resolution(low, high, values, share):
    codec = ContinuousCodec((1,), "float64", (low,), (high,), BINS)
    for value in values:
        assert roundtrip(codec, value) == pytest.approx(value, rel=share)


def test_equal_bounds_are_one_legal_code_and_their_value():
    codec = ContinuousCodec((2,), "float32", (0.5, -1.0), (0.5, 1.0), BINS)
    assert codec.legal == ((0, 1), (0, BINS))
    codes = codec.encode(np.array([[0.5, 1.0], [0.0, -1.0]]), None)
    assert codes.tolist() == [[0, BINS - 1], [0, 0]]
    assert codec.decode(codes, None)[:, 0].tolist() == [0.5, 0.5]


def test_what_lies_beyond_the_bins_is_known():
    codec = ContinuousCodec((3,), "float64", (None, 0.0, 0.0), (None, 1e6, 1.0), BINS)
    values = np.array([[256.0, 0.0, 1.0], [-257.0, 1.1e6, -0.1]])
    assert codec.clipped(values).tolist() == [[False] * 3, [True] * 3]


def test_codecs_as_earlier_versions_stored_them_decode_as_before():
    """Numbers of an earlier version: bins of equal width, and the mu-law."""
    stored = {"kind": "continuous", "shape": [2], "dtype": "float64", "bins": 1024}
    codec = codec_from_dict({**stored, "low": [-2.0, None], "high": [6.0, None]})
    codes = np.array([[0, 0], [100, 100], [512, 512], [1023, 1023]])
    expected = [
        [-1.99609375, -253.47484018527098],
        [-1.21484375, -34.90116242720046],
        [2.00390625, 9.961778435677601e-05],
        [5.99609375, 253.47484018527098],
    ]
    np.testing.assert_allclose(codec.decode(codes, None), expected, rtol=1e-7)
    assert (codec.encode(np.array(expected), None) == codes).all()
