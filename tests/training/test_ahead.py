"""Steps ahead of the present one: in order, and failures come where they belong."""

from __future__ import annotations

import multiprocessing
import os
import threading

import pytest
import torch

from generalist.errors import GeneralistError
from generalist.modeling.embedders import Embedded
from generalist.training.ahead import one_ahead, several_ahead
from generalist.training.passes import PackedRows, Targets


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


def _passes(step: int) -> list[PackedRows]:
    """Two passes that say their step, and the process that made them."""
    if step == 8:
        raise GeneralistError("shard-000001.tar is damaged")

    def ids(number: int) -> torch.Tensor:
        return torch.full((2, 3), number)

    flat = {name: torch.arange(4) + step for name in Targets.__dataclass_fields__}
    return [
        PackedRows(
            targets=Targets(**flat),
            input_ids=ids(step + part),
            position_ids=ids(os.getpid()),
            segment_starts=torch.tensor([0, 6], dtype=torch.int32),
            attended=step,
            embedded=(Embedded(name="tasks", ids=ids(part), index=torch.tensor([0])),),
        )
        for part in range(2)
    ]


def test_processes_give_the_same_in_order_and_end_with_the_iterator():
    with several_ahead(_passes, 3, workers=2) as values:
        made = [next(values) for _ in range(4)]
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []
    for step, passes in enumerate(made, start=3):
        for got, expected in zip(passes, _passes(step), strict=True):
            assert got.attended == step
            assert torch.equal(got.input_ids, expected.input_ids)
            assert torch.equal(got.targets.order, expected.targets.order)
            assert torch.equal(got.embedded[0].ids, expected.embedded[0].ids)
    makers = {passes[0].position_ids[0, 0].item() for passes in made}
    assert len(makers) == 2
    assert os.getpid() not in makers


def test_a_failure_in_a_process_comes_in_its_own_words():
    with several_ahead(_passes, 7, workers=1) as values:
        assert next(values)[0].attended == 7
        with pytest.raises(GeneralistError, match=r"^shard-000001.tar is damaged$"):
            next(values)
