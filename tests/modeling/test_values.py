"""Values as scalars, which stay when statistics move, and as distributions."""

from __future__ import annotations

import math
import warnings
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from generalist.errors import GeneralistError
from generalist.modeling.values import (
    HEADS,
    CategoricalValues,
    Values,
    load_values,
    save_values,
    start_values,
)
from generalist.training.reinforcement.recipe import ReinforcementRecipe

TASKS = ("gym/A", "gym/B", "gym/C")
WIDTH = 16
CENTRES = np.linspace(-10, 10, 101)  # of the bins, in spreads
ALL = torch.ones(3, dtype=torch.bool)

of_both_heads = pytest.mark.parametrize("head", sorted(HEADS))


def drawn(head: str = "scalar") -> Values:
    generator = torch.Generator().manual_seed(0)
    values = start_values(head, TASKS, WIDTH)
    with torch.no_grad():
        values.weight.normal_(generator=generator)
        values.bias.normal_(generator=generator)
    return values


def states(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of the three tasks by turns."""
    hidden = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1))
    return hidden, torch.arange(count) % 3


def adapt(values: Values, mean: list[float], spread: list[float], rate: float = 1.0) -> None:
    """Move the statistics by returns of these means and spreads."""
    means, spreads = (torch.tensor(each, dtype=torch.float64) for each in (mean, spread))
    values.adapt(means, means.square() + spreads.square(), ALL, rate)


def test_a_recipe_names_the_heads():
    named = get_args(ReinforcementRecipe.model_fields["value_head"].annotation)
    assert set(named) == set(HEADS)


def test_outputs_stay_when_statistics_move():
    values = drawn()
    hidden, task = states()
    for scale in (1.0, 1e3, 1e-2):  # of the returns that come
        before, spread = values.value(values(hidden, task), task), values.spread
        adapt(values, [0.3 * scale, -2.0 * scale, 5.0 * scale], [scale] * 3, rate=0.3)
        after = values.value(values(hidden, task), task)
        unit = torch.maximum(spread, values.spread)[task]  # what outputs are exact in
        assert ((after - before).abs() <= 1e-5 * unit).all()


@of_both_heads
def test_the_first_returns_count_whole_and_later_ones_by_the_rate(head):
    values = start_values(head, TASKS, WIDTH)
    here = torch.tensor([True, False, True])
    first = torch.tensor([10.0, 99.0, -4.0], dtype=torch.float64)
    values.adapt(first, first.square() + 4, here, rate=0.1)
    assert values.mean.tolist() == pytest.approx([10.0, 0.0, -4.0])
    assert values.spread.tolist() == pytest.approx([2.0, 1.0, 2.0])
    for _ in range(200):
        values.adapt(first * 0 + 3, first * 0 + 9 + 25, here, rate=0.1)
    assert values.mean.tolist() == pytest.approx([3.0, 0.0, 3.0])
    assert values.spread.tolist() == pytest.approx([5.0, 1.0, 5.0])


@of_both_heads
def test_returns_that_are_all_alike_divide_by_no_zero(head):
    values = drawn(head)
    adapt(values, [0.0] * 3, [0.0] * 3)
    adapt(values, [0.0] * 3, [0.0] * 3)
    assert values.spread.min() > 0 and torch.isfinite(values.weight).all()


# Distributions


def reference(values: Values, hidden: np.ndarray, task: int, wanted: float) -> tuple[float, float]:
    """The value of one state, and its loss, by the formulas of Farebrother et al. 2024."""
    weight, bias = (each.detach().numpy()[task] for each in (values.weight, values.bias))
    logits = (weight @ hidden + bias).astype(np.float64)
    log_probs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    mean, spread = values.mean[task].item(), values.spread[task].item()
    value = mean + spread * np.dot(np.exp(log_probs), CENTRES)
    target = min(10.0, max(-10.0, (wanted - mean) / spread))
    edges = [-math.inf, *(CENTRES[1:] + CENTRES[:-1]) / 2, math.inf]
    below = [0.5 * (1 + math.erf((edge - target) / (0.15 * math.sqrt(2)))) for edge in edges]
    return value, -float(np.dot(np.diff(below), log_probs))


def test_distributions_equal_a_plain_reference():
    values = drawn("categorical")
    adapt(values, [0.3, -2.0, 500.0], [1.0, 4.0, 100.0], rate=0.7)
    with torch.no_grad():
        values.weight.normal_(generator=torch.Generator().manual_seed(5))
    hidden, task = states(12)
    wanted = torch.tensor([0.0, -3.0, 420.0, 40.0] * 3)  # 40 lies beyond the bins of the first
    outputs = values(hidden, task)
    assert outputs.shape == (12, 101)
    found = values.value(outputs, task), values.losses(outputs, wanted, task)
    expected = [
        reference(values, hidden[i].numpy(), int(task[i]), float(wanted[i])) for i in range(12)
    ]
    for column, (one, other) in enumerate(zip(found, zip(*expected, strict=True), strict=True)):
        np.testing.assert_allclose(
            one.detach(), other, rtol=2e-5, err_msg=("value", "loss")[column]
        )


def test_a_target_is_the_mean_of_its_distribution_within_the_bins_and_cut_beyond():
    values = CategoricalValues(TASKS, WIDTH)
    inside = torch.cat([torch.linspace(-9.4, 9.4, 1001), torch.tensor([0.0, 0.1, 1e-3])])
    shares = values.projected(inside)
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(shares.numpy() @ CENTRES, inside, atol=2e-5)
    beyond = values.projected(torch.tensor([10.0, 11.0, 1e6, -1e6]))
    assert torch.equal(beyond[0], beyond[1]) and torch.equal(beyond[0], beyond[2])
    np.testing.assert_allclose(beyond.numpy() @ CENTRES, [9.94, 9.94, 9.94, -9.94], atol=0.01)


def test_what_is_learned_is_the_mean_of_noisy_returns():
    """A value by classification is no mode and no median."""
    values = CategoricalValues(("gym/A",), 1)
    returns = torch.tensor([0.0] * 9 + [100.0])  # one in ten succeeds
    task, hidden = torch.zeros(10, dtype=torch.long), torch.zeros(10, 1)
    values.adapt(returns.mean()[None].double(), returns.square().mean()[None].double(),
                 torch.ones(1, dtype=torch.bool), 1.0)  # fmt: skip
    optimizer = torch.optim.Adam(values.parameters(), lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        values.losses(values(hidden, task), returns, task).mean().backward()
        optimizer.step()
    assert values.value(values(hidden, task), task)[0].item() == pytest.approx(10.0, abs=0.1)


def test_values_move_with_the_statistics_and_distributions_stay():
    values = drawn("categorical")
    hidden, task = states()
    adapt(values, [0.3, -2.0, 5.0], [1.0, 4.0, 0.5])
    before = (values.value(values(hidden, task), task) - values.mean[task]) / values.spread[task]
    weight = values.weight.clone()
    adapt(values, [300.0, 0.0, -5.0], [1000.0, 0.1, 0.5], rate=0.7)
    after = (values.value(values(hidden, task), task) - values.mean[task]) / values.spread[task]
    assert torch.equal(values.weight, weight) and after.std() > 1
    np.testing.assert_allclose(after.detach(), before.detach(), atol=1e-5)


# Checkpoints


@of_both_heads
def test_a_checkpoint_keeps_them_and_a_run_takes_its_own_tasks(head, tmp_path):
    (tmp_path / "generalist").mkdir()
    values = drawn(head)
    values.adapt(*torch.ones(2, 3, dtype=torch.float64), ALL, rate=0.5)
    save_values(values, tmp_path)
    again = load_values(tmp_path)
    assert again.tasks == TASKS and again.head == head
    for name, tensor in values.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    started = start_values(head, ("gym/C", "gym/New"), WIDTH, str(tmp_path))
    assert torch.equal(started.weight[0], values.weight[2])
    assert started.mean[0] == values.mean[2] and not started.weight[1].any()
    assert load_values(tmp_path / "elsewhere") is None


@of_both_heads
def test_values_of_the_other_kind_begin_anew_at_the_mean_and_it_is_said(head, tmp_path):
    (tmp_path / "generalist").mkdir()
    (other,) = HEADS.keys() - {head}
    values = drawn(other)
    adapt(values, [3.0, -4.0, 500.0], [1.0, 2.0, 3.0])
    save_values(values, tmp_path)
    with pytest.warns(UserWarning, match=f"has {other} values, and the recipe asks for {head}"):
        started = start_values(head, TASKS[::-1], WIDTH, str(tmp_path))
    hidden, task = states()
    found = started.value(started(hidden, task), task)
    np.testing.assert_allclose(found.detach(), started.mean[task], rtol=1e-6)
    assert started.mean.tolist() == [500.0, -4.0, 3.0] and started.seen.min() == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no task of it goes on
        start_values(head, ("gym/New",), WIDTH, str(tmp_path))


def test_a_file_of_an_earlier_version_holds_scalars(tmp_path):
    (tmp_path / "generalist").mkdir()
    path = tmp_path / "generalist" / "values.safetensors"
    save_values(drawn(), tmp_path)
    save_file(load_file(path), path, metadata={"tasks": "\n".join(TASKS)})
    assert load_values(tmp_path).head == "scalar"


def test_a_damaged_file_is_said(tmp_path):
    (tmp_path / "generalist").mkdir()
    path = tmp_path / "generalist" / "values.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(GeneralistError, match=r"values\.safetensors does not hold"):
        load_values(tmp_path)
    save_values(drawn("categorical"), tmp_path)
    metadata = {"tasks": "\n".join(TASKS), "head": "quantiles"}
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(GeneralistError, match=r"values\.safetensors does not hold.*quantiles"):
        load_values(tmp_path)
