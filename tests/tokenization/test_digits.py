from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.tokenization.digits import DigitsCodec, digits_for

COUNTS = [1, 2, 1024, 1025, 5000, 2**20, 2**20 + 1, 10**9 + 1, 2**32, 2**62]


def codec_of(low, count, dtype="int64"):
    digits, base = zip(*(digits_for(n, 1024) for n in count), strict=True)
    return DigitsCodec((len(count),), dtype, tuple(low), tuple(count), digits, base)


@given(st.sampled_from(COUNTS) | st.integers(1, 2**62))
def test_digits_are_as_few_as_can_be_and_their_base_the_smallest(count):
    digits, base = digits_for(count, 1024)
    assert base <= 1024 and base**digits >= count
    assert digits == 1 or 1024 ** (digits - 1) < count
    assert base == 1 or (base - 1) ** digits < count


def test_five_thousand_values_are_two_digits():
    codec = codec_of([0], [5000])
    assert (codec.digits, codec.base, codec.legal) == ((2,), (71,), ((0, 71), (0, 71)))
    assert codec.encode(np.array([[0], [71], [4999]]), None).tolist() == [[0, 0], [1, 0], [70, 29]]


@given(st.lists(st.tuples(st.integers(-9, 9), st.sampled_from(COUNTS)), min_size=1), st.data())
def test_every_integer_comes_back(elements, data):
    low, count = zip(*elements, strict=True)
    codec = codec_of(low, count)
    values = [data.draw(st.integers(a, a + n - 1)) for a, n in elements]
    codes = codec.encode(np.array([values, low]), None)
    first, stop = np.array(codec.legal).T
    assert codes.shape == (2, codec.tokens) and ((first <= codes) & (codes < stop)).all()
    assert codec.decode(codes, None).tolist() == [values, list(low)]


@pytest.mark.parametrize("count", [7, 13, 100])
def test_every_combination_of_digits_is_a_legal_value_and_none_is_missing(count):
    digits, base = digits_for(count, 4)
    codec = DigitsCodec((1,), "int64", (-3,), (count,), (digits,), (base,))
    codes = np.array(list(product(*(range(*legal) for legal in codec.legal))))
    values = codec.decode(codes, None).ravel()
    assert set(values) == set(range(-3, count - 3))
    assert (np.diff(values) >= 0).all(), "in order, so what is beyond is the last value"


@given(st.sampled_from([3, 7, 50, 300]), st.data())
def test_digits_that_a_mask_allows_lead_to_the_values_that_it_allows_and_to_all(count, data):
    digits, base = digits_for(count, 7)
    codec = DigitsCodec((1,), "int64", (0,), (count,), (digits,), (base,))
    chosen = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    allowed = np.isin(np.arange(count), list(chosen))
    found = [()]
    for _ in range(digits):
        found = [
            (*prefix, digit)
            for prefix in found
            for digit in np.flatnonzero(codec.legal_after(0, prefix, allowed)).tolist()
        ]
    assert set(codec.decode(np.array(found), None).ravel()) == chosen


def test_values_out_of_range_name_step_and_element():
    codec = codec_of([0, 10], [5000, 3])
    with pytest.raises(ValueError, match="is 13 at step 1, element 1; .* integers 10 to 12"):
        codec.encode(np.array([[0, 10], [4999, 13]]), None)


def test_unsigned_integers_beyond_those_with_a_sign():
    codec = codec_of([2**63 + 5], [5000], dtype="uint64")
    values = np.array([[2**63 + 5], [2**63 + 5004]], dtype=np.uint64)
    again = codec.decode(codec.encode(values, None), None)
    assert again.dtype == np.uint64 and (again == values).all()
