"""`python -m tests.training.interrupted RECIPE FOLDER`: training that is stopped, and resumed.

For runs of several ranks. Each writes FOLDER/rank-N.json: the step it was stopped at, and the rows
that it read before and after that.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from generalist.training.data import open_data
from generalist.training.loop import TrainingInterrupted, train
from generalist.training.recipe import load_recipe
from generalist.training.resume import ROWS_COMPARED
from tests.training.runs import Counting, last_step, replaced


def main(recipe_path: str, folder: str) -> None:
    recipe, rank = load_recipe(recipe_path), int(os.environ["RANK"])
    data = open_data(recipe)

    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    # Only one rank hears it.
    middle = recipe.schedule.steps // 2 * recipe.data.rows_per_step
    before = Counting(data.windows, at=middle, action=terminate if rank == 1 else None)
    try:
        train(recipe, replaced(data, before))
    except TrainingInterrupted:
        step = last_step(recipe.output_dir)
    after = Counting(data.windows)
    train(recipe, replaced(data, after))
    # Each start first compares some rows of all ranks.
    rows = {"before": before.rows[ROWS_COMPARED:], "after": after.rows[ROWS_COMPARED:]}
    facts = {"step": step, **rows}
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
