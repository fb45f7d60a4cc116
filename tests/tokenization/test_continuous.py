import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.tokenization.continuous import ContinuousCodec, inverse_mu_law, mu_law

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


def test_the_edges_of_the_mu_law():
    assert code(UNBOUNDED, 0.0) == BINS // 2
    assert code(UNBOUNDED, 256.0) == code(UNBOUNDED, 1e30) == BINS - 1
    assert code(UNBOUNDED, -256.0) == code(UNBOUNDED, -1e30) == 0


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
