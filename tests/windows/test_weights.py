"""Shares of tasks and families, whatever the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generalist.windows.weights import tempered, weighted

TASKS = ["gym/A", "gym/B", "dmc/C", "atari/D"]
positive = st.floats(0.01, 100)


@given(st.lists(positive, min_size=4, max_size=4), positive, positive)
def test_a_family_shares_its_weight_and_a_tasks_own_beats_it(base, family, own) -> None:
    whole = weighted(TASKS, base, {"gym": family})
    assert whole[0] + whole[1] == pytest.approx(family)
    assert whole[0] / whole[1] == pytest.approx(base[0] / base[1])
    assert whole[2:] == base[2:]
    assert weighted(TASKS, base, {"gym": family, "gym/A": own}) == pytest.approx(
        [own, family, *base[2:]]
    )


def test_a_family_of_weight_zero_is_left_out_but_for_a_task_with_its_own() -> None:
    assert weighted(TASKS, [1, 1, 1, 1], {"gym": 0, "gym/B": 2}) == [0, 2, 1, 1]
    assert weighted(TASKS, [0, 0, 1, 1], {"gym": 5}) == [0, 0, 1, 1]


@given(st.lists(st.integers(1, 10**12), min_size=4, max_size=4), st.floats(0.5, 50))
def test_temperature_goes_from_tokens_to_tasks(tokens, temperature) -> None:
    weights = tempered(tokens, temperature)
    assert sum(weights) == pytest.approx(4)
    assert weights[0] / weights[1] == pytest.approx((tokens[0] / tokens[1]) ** (1 / temperature))
