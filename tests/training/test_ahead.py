"""Work one step ahead: in order, no further, and failures come where they belong."""

from __future__ import annotations

import threading

import pytest

from generalist.training.ahead import one_ahead


def test_no_more_than_one_is_made_ahead_and_in_order():
    made = []

    def make(number: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        made.append(number)
        return 10 * number

    with one_ahead(make, 3) as values:
        for number in (3, 4, 5):
            assert next(values) == 10 * number
            assert made[-1] <= number + 1
    assert made == [3, 4, 5, 6]


def test_a_failure_comes_with_its_own_number():
    def make(number: int) -> int:
        if number == 1:
            raise ValueError("row 1")
        return number

    with one_ahead(make, 0) as values:
        assert next(values) == 0
        with pytest.raises(ValueError, match="row 1"):
            next(values)
