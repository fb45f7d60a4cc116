"""DDP on two ranks, launched as a user launches it, and short enough for every run of the tests."""

from __future__ import annotations

import json

import torch

from generalist.training.loop import train
from tests.training.runs import launched, recipe_file, weights


def test_two_ranks_are_resumed_equal_one_process_and_see_each_row_once(make_recipe, data, tmp_path):
    train(make_recipe(output_dir=tmp_path / "one"), data)
    recipe = make_recipe(output_dir=tmp_path / "two")
    path = recipe_file(recipe, tmp_path / "launch")
    output = launched(path, "ddp", "tests.training.interrupted", str(tmp_path))
    assert "DDP over 2 processes" in output.read_text()

    mine, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, atol=1e-5, rtol=1e-5)

    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    stopped = ranks[0]["step"]
    assert 0 < stopped < 6 and ranks[1]["step"] == stopped
    rows, steps = recipe.data.rows_per_step, recipe.schedule.steps
    for part, first, last in (("before", 0, stopped), ("after", stopped, steps)):
        assert ranks[0][part] and ranks[1][part], "one rank read everything"
        read = sorted(ranks[0][part] + ranks[1][part])  # one or two steps are read ahead
        assert read == list(range(first * rows, first * rows + len(read)))
        assert last * rows <= read[-1] + 1 <= (last + 2) * rows
