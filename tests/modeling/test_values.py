"""Values with PopArt: statistics move, values stay."""

from __future__ import annotations

import pytest
import torch

from generalist.errors import GeneralistError
from generalist.modeling.values import Values, load_values, save_values, start_values

TASKS = ("gym/A", "gym/B", "gym/C")
WIDTH = 16


def drawn() -> Values:
    generator = torch.Generator().manual_seed(0)
    values = Values(TASKS, WIDTH)
    with torch.no_grad():
        values.weight.normal_(generator=generator)
        values.bias.normal_(generator=generator)
    return values


def test_outputs_stay_when_statistics_move():
    values = drawn()
    hidden = torch.randn(60, WIDTH, generator=torch.Generator().manual_seed(1))
    task = torch.arange(60) % 3
    for scale in (1.0, 1e3, 1e-2):  # of the returns that come
        before, spread = values.unnormalised(values(hidden, task), task), values.spread
        mean = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64) * scale
        square = mean.square() + scale**2
        values.adapt(mean, square, torch.ones(3, dtype=torch.bool), rate=0.3)
        after = values.unnormalised(values(hidden, task), task)
        unit = torch.maximum(spread, values.spread)[task]  # what outputs are exact in
        assert ((after - before).abs() <= 1e-5 * unit).all()


def test_the_first_returns_count_whole_and_later_ones_by_the_rate():
    values = Values(TASKS, WIDTH)
    here = torch.tensor([True, False, True])
    first = torch.tensor([10.0, 99.0, -4.0], dtype=torch.float64)
    values.adapt(first, first.square() + 4, here, rate=0.1)
    assert values.mean.tolist() == pytest.approx([10.0, 0.0, -4.0])
    assert values.spread.tolist() == pytest.approx([2.0, 1.0, 2.0])
    for _ in range(200):
        values.adapt(first * 0 + 3, first * 0 + 9 + 25, here, rate=0.1)
    assert values.mean.tolist() == pytest.approx([3.0, 0.0, 3.0])
    assert values.spread.tolist() == pytest.approx([5.0, 1.0, 5.0])


def test_returns_that_are_all_alike_divide_by_no_zero():
    values = drawn()
    zero = torch.zeros(3, dtype=torch.float64)
    values.adapt(zero, zero, torch.ones(3, dtype=torch.bool), rate=1.0)
    assert values.spread.min() > 0 and torch.isfinite(values.weight).all()


def test_a_checkpoint_keeps_them_and_a_run_takes_its_own_tasks(tmp_path):
    (tmp_path / "generalist").mkdir()
    values = drawn()
    values.adapt(*torch.ones(2, 3, dtype=torch.float64), torch.ones(3, dtype=torch.bool), rate=0.5)
    save_values(values, tmp_path)
    again = load_values(tmp_path)
    assert again.tasks == TASKS
    for name, tensor in values.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    started = start_values(("gym/C", "gym/New"), WIDTH, str(tmp_path))
    assert torch.equal(started.weight[0], values.weight[2])
    assert started.mean[0] == values.mean[2] and not started.weight[1].any()
    assert load_values(tmp_path / "elsewhere") is None


def test_a_damaged_file_is_said(tmp_path):
    (tmp_path / "generalist").mkdir()
    path = tmp_path / "generalist" / "values.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(GeneralistError, match=r"values\.safetensors does not hold"):
        load_values(tmp_path)
