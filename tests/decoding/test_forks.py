"""Forked slots: what they hold, what is copied, and that rows at once are rows alone."""

from __future__ import annotations

import pytest
import torch

from generalist.decoding.cache import RowPlan
from generalist.decoding.decoder import Decoder
from generalist.decoding.rows import SeparateRows
from generalist.errors import GeneralistError
from tests.decoding.models import tiny_model


def vectors(seed: int, count: int, positions: int) -> torch.Tensor:
    return torch.randn(count, positions, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("plain", [False, True])
def test_a_fork_goes_on_as_its_source_would(plain: bool) -> None:
    """Through a chain, a swap and a fork of what is not cached yet."""
    model, header = tiny_model(window=40), [1, 2, 3]
    decoder = Decoder(model, 4, plain=plain)
    for slot in range(2):
        decoder.reset(slot, header, seed=slot)
    first = vectors(0, 2, 2)
    decoder.observe([0, 1], [5, 6], first)
    decoder.take([0, 1], 7, vectors(1, 2, 1))  # waits for the next pass
    decoder.fork([0, 1], [2, 3])
    decoder.append([2, 3], [8], vectors(2, 2, 1))
    decoder.fork([2, 3], [3, 2])
    one = decoder.append([2, 3], [9], vectors(3, 2, 1))
    straight = Decoder(model, 2, plain=plain)
    for slot in range(2):
        straight.reset(slot, header, seed=slot)
    swapped = [
        torch.stack([each[1], each[0]]) for each in (first, vectors(1, 2, 1), vectors(2, 2, 1))
    ]
    straight.observe([0, 1], [5, 6], swapped[0])
    straight.take([0, 1], 7, swapped[1])
    straight.append([0, 1], [8], swapped[2])
    other = straight.append([0, 1], [9], vectors(3, 2, 1))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    decoder.finish([2])
    assert decoder.context(2).tolist() == [*header, 5, 6, 7, 8, 9]
    assert decoder.context(0).tolist() == [*header, 5, 6, 7]


def test_what_forks_share_is_copied_once() -> None:
    decoder = Decoder(tiny_model(window=40), 5)
    decoder.reset(0, [1, 2, 3])
    decoder.observe([0], [5] * 10, vectors(0, 1, 10))
    copied = []
    copy_rows = decoder.forward.copy_rows
    decoder.forward.copy_rows = lambda *given: (copied.append(given[2:]), copy_rows(*given))
    decoder.fork([0] * 4, [1, 2, 3, 4])
    decoder.append([1, 2, 3, 4], [6], vectors(1, 4, 1))
    decoder.fork([2, 2, 4], [1, 3, 2])
    assert copied == [(0, 13), (13, 14)]
    decoder.fork([0, 1], [1, 4])
    assert copied[-1] == (0, 14), "a fork of the episode itself has no part in common with others"
    assert [len(decoder.context(slot)) for slot in (0, 1, 4)] == [3] * 3, "no timestep is whole"
    decoder.finish([0, 1, 4])
    assert [len(decoder.context(slot)) for slot in (0, 1, 4)] == [13, 13, 14]


def test_a_fork_does_not_outgrow_the_window() -> None:
    decoder = Decoder(tiny_model(window=16), 2, ahead_tokens=4)
    decoder.reset(0, [1, 2])
    for step in range(6):  # turns over, and leaves room for forks
        decoder.observe([0], [3, 4], vectors(step, 1, 2))
        decoder.finish([0])
        assert len(decoder.context(0)) <= 12
    decoder.fork([0], [1])
    room = 16 - len(decoder.context(0))
    decoder.append([1], [5] * room, vectors(7, 1, room))
    with pytest.raises(GeneralistError, match="does not fit into a window of 16"):
        decoder.append([1], [5], vectors(8, 1, 1))
    with pytest.raises(GeneralistError, match="header of 11 does not fit into a window of 12"):
        decoder.reset(0, [1] * 11)
        decoder.observe([0], [3, 4], vectors(9, 1, 2))


def test_log_probs_are_of_the_interval_alone() -> None:
    decoder = Decoder(tiny_model(), 1)
    decoder.reset(0, [1, 2])
    hidden = decoder.observe([0], [3], vectors(0, 1, 1))[:, 0]
    found = decoder.log_probs(hidden, (4, 9))
    weight = decoder.head.weight[4:9].detach()
    torch.testing.assert_close(found.clone(), (hidden.clone() @ weight.T).log_softmax(-1))


@pytest.mark.parametrize("rows", [[0, 2, 4, 6, 8], [3, 4, 5, 6], [0, 2, 5, 7, 9, 11, 1]])
@pytest.mark.parametrize("count", [1, 3])
def test_rows_that_are_attended_to_at_once_are_as_alone(rows: list[int], count: int) -> None:
    """Some of equal distances, some not; of equal lengths but one."""
    torch.manual_seed(0)
    start = [5] * (len(rows) - 1) + [2]
    alike, alone = (SeparateRows(12, 10, 0.3) for _ in range(2))
    device = torch.device("cpu")
    before = RowPlan(rows, [0] * len(rows), start, device, False)
    old = [torch.randn(sum(start), 2, 8) for _ in range(2)]
    alike.write(0, *old, before)
    keys, values = (torch.randn(len(rows) * count, 2, 8) for _ in range(2))
    queries = torch.randn(len(rows) * count, 4, 8)
    plan = RowPlan(rows, start, [count] * len(rows), device, False)
    assert len(plan.runs) < len(rows)
    alike.write(0, keys, values, plan)
    together = alike.attend(0, queries, plan)
    offset = 0
    for number, row in enumerate(rows):
        part = slice(number * count, (number + 1) * count)
        first = RowPlan([row], [0], [start[number]], device, False)
        alone.write(0, *(each[offset : offset + start[number]] for each in old), first)
        offset += start[number]
        own = RowPlan([row], [start[number]], [count], device, False)
        alone.write(0, keys[part], values[part], own)
        torch.testing.assert_close(alone.attend(0, queries[part], own), together[part])


@pytest.mark.parametrize("plain", [False, True])
def test_a_fork_with_its_younger_row_sees_what_its_source_would(plain: bool) -> None:
    """Timesteps on both sides of two turns of the window, from wherever they are forked."""
    model, header, steps = tiny_model(window=40), [1, 2, 3], 9
    options = {"body_tokens": 10, "backlog_tokens": 3, "plain": plain}
    straight = Decoder(model, 1, **options)
    straight.reset(0, header)
    states = []
    for step in range(steps):
        states.append(straight.observe([0], [5, 6], vectors(step, 1, 2)).clone())
        straight.finish([0])
    for start in range(1, 7):
        decoder = Decoder(model, 3, **options)
        decoder.reset(0, header)
        for step in range(start):
            decoder.observe([0], [5, 6], vectors(step, 1, 2))
            if step + 1 < start:
                decoder.finish([0])
        decoder.fork([0, 0], [1, 2], younger=True)
        decoder.finish([0, 1, 2])
        for step in range(start, steps):
            found = decoder.observe([1, 2], [5, 6], vectors(step, 1, 2).repeat(2, 1, 1))
            for own in found:
                torch.testing.assert_close(own, states[step][0], atol=1e-4, rtol=1e-4)
            decoder.finish([1, 2])
            decoder.fork([1], [2], younger=True)
        decoder.observe([0], [5, 6], vectors(start, 1, 2))
