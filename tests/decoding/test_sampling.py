"""Choosing among the legal ids."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.decoding.sampling import Sampling, choose
from generalist.errors import UsageError

LOGITS = torch.tensor([[0.0, 2.0, 1.0, -1.0]])


def test_temperature_zero_takes_the_most_probable() -> None:
    assert choose(LOGITS, Sampling())[0].tolist() == [1]


def test_frequencies_follow_the_probabilities() -> None:
    n = 20_000
    uniform = torch.linspace(0, 1, n + 1)[:-1]
    for temperature in (0.5, 1.0, 2.0):
        sampling = Sampling(temperature)
        chosen = choose(LOGITS.expand(n, -1), sampling, uniform=uniform)[0]
        frequency = torch.bincount(chosen, minlength=4) / n
        expected = (LOGITS[0] / temperature).softmax(-1)
        torch.testing.assert_close(frequency, expected, atol=1e-3, rtol=0)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    probabilities = torch.tensor([0.15, 0.5, 0.3, 0.05])
    logits = probabilities.log().expand(1000, -1)
    uniform = torch.linspace(0, 1, 1001)[:-1]
    for top_p, kept in ((0.4, {1}), (0.6, {1, 2}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        chosen = choose(logits, Sampling(1.0, top_p), uniform=uniform)[0]
        assert set(chosen.tolist()) == kept


def test_expectation_takes_the_mean_bin_of_ordinal_positions_only() -> None:
    logits = torch.tensor([[0.4, 0.0, 0.0, 0.0, 0.6]]).log()  # mean 2.4
    sampling = Sampling(ordinal="mean")
    assert choose(logits, sampling, ordinal=True)[0].tolist() == [2]
    assert choose(logits, sampling)[0].tolist() == [4]


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 50),
    rows=st.integers(1, 5),
    temperature=st.floats(0.01, 10),
    top_p=st.floats(0.01, 1),
    seed=st.integers(0, 10_000),
)
def test_any_choice_lies_in_the_slice_and_no_row_minds_the_others(
    size: int, rows: int, temperature: float, top_p: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(rows, size, generator=generator)
    uniform = torch.rand(rows, generator=generator)
    sampling = Sampling(temperature, top_p)
    chosen = choose(logits, sampling, uniform=uniform)[0]
    assert ((chosen >= 0) & (chosen < size)).all()
    for row in range(rows):
        alone = choose(logits[row : row + 1], sampling, uniform=uniform[row : row + 1])[0]
        assert alone[0] == chosen[row]


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match="temperature"):
        Sampling(temperature=-1)
    with pytest.raises(UsageError, match="top_p"):
        Sampling(top_p=0)


def test_the_median_keeps_to_the_likelier_side_and_does_not_jump() -> None:
    sampling = Sampling(ordinal="median")
    two_sides = torch.tensor([[0.3, 0.1, 0.0, 0.2, 0.4]]).log()
    assert choose(two_sides, sampling, ordinal=True)[0].tolist() == [3]
    ragged = torch.tensor([[0.21, 0.19, 0.2, 0.2, 0.2]]).log()  # the mode is at the very edge
    assert choose(ragged, sampling, ordinal=True)[0].tolist() == [2]
    assert choose(ragged, sampling)[0].tolist() == [0]


def test_ordinal_positions_are_sampled_at_a_part_of_the_temperature() -> None:
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(0)) * 2
    uniform = torch.rand(200, generator=torch.Generator().manual_seed(1))
    ordinal = choose(logits, Sampling(1.0, ordinal_factor=0.3), ordinal=True, uniform=uniform)[0]
    cooler = choose(logits, Sampling(0.3), uniform=uniform)[0]
    assert torch.equal(ordinal, cooler)
    assert not torch.equal(ordinal, choose(logits, Sampling(1.0), uniform=uniform)[0])
    with pytest.raises(UsageError, match="ordinal_factor"):
        Sampling(1.0, ordinal_factor=0.0)


@settings(max_examples=60, deadline=None)
@given(
    allowed=st.lists(st.booleans(), min_size=1, max_size=40).filter(any),
    ordinal=st.sampled_from([None, "mode", "median"]),
    temperature=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    top_p=st.floats(0.01, 1),
    seed=st.integers(0, 10_000),
)
def test_an_id_without_probability_is_never_chosen(
    allowed: list[bool], ordinal: str | None, temperature: float, top_p: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(200, len(allowed), generator=generator)
    logits[:, ~torch.tensor(allowed)] = float("-inf")
    uniform = torch.rand(200, generator=generator)
    uniform[0], uniform[1] = 0.0, 1.0  # float32 rounds what is just below 1 up to it
    sampling = Sampling(temperature, top_p, ordinal or "mode")
    chosen = choose(logits, sampling, ordinal=ordinal is not None, uniform=uniform)[0]
    assert torch.tensor(allowed)[chosen].all()


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    top_p=st.floats(0.01, 1),
    ordinal=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_log_probs_say_how_often_each_is_chosen(
    size: int, temperature: float, top_p: float, ordinal: bool, seed: int
) -> None:
    """Over all numbers that can be drawn; asking changes no choice."""
    n = 2000
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(1, size, generator=generator)).expand(n, -1)
    given = {"ordinal": ordinal, "uniform": torch.linspace(0, 1, n + 1)[:-1]}
    sampling = Sampling(temperature, top_p)
    chosen, log_probs = choose(logits, sampling, **given, log_probs=True)
    assert torch.equal(chosen, choose(logits, sampling, **given)[0])
    assert log_probs.dtype == torch.float32 and (log_probs <= 1e-6).all()
    for token in chosen.unique():
        share = (chosen == token).float().mean()
        torch.testing.assert_close(
            log_probs[chosen == token].exp().mean(), share, atol=2e-3, rtol=0
        )
