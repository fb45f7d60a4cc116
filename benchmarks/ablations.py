"""What PopArt and importance weights are for: games learned with them and without.

    python -m benchmarks.ablations scales --json scales.json
    python -m benchmarks.ablations lag --json lag.json

One network plays three games of MinAtar at once, by recipes/reinforce/minatar.yaml, for as many
steps of the environments in every row. A row is a run from nothing. Its figures are the mean
returns of the episodes that ended in the last quarter of the run, played for learning, in the
game's own points. Freeway is cut after 250 of its 2,500 steps, so that there are such episodes.

scales: rewards times 1, 10 and 1,000 in different games, beside rewards as they are; with PopArt,
    with categorical values, and without either.
lag: unrolls that are learned from 16 updates after they were played, with importance weights and
    without, beside unrolls that are learned from at once. IMPALA's surrogate in one pass is where
    importance weights are all that corrects; the clipped one in two passes is the recipes' own.

Rows that the file of --json holds are not run again, so an interrupted measurement goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.measure import print_table, screen, write_json, written
from generalist.training.loop import train
from generalist.training.recipe import Recipe, load_recipe
from generalist.training.reinforcement import source
from generalist.training.reinforcement.unrolls import Played, play_unroll

RECIPE = "reinforce/minatar"
OPTIONS: dict[str, dict[str, Any]] = {"minatar/Freeway": {"max_steps": 250}}
SCALES = {"minatar/Breakout": 1.0, "minatar/Freeway": 10.0, "minatar/SpaceInvaders": 1000.0}
LAG_UPDATES = 16
CATEGORICAL = ("reinforcement.value_head=categorical",)
IMPALA = ("reinforcement.surrogate=v-trace", "reinforcement.passes=1")


@dataclass(frozen=True)
class Setting:
    """What a row changes in the recipe.

    Attributes:
        name: of the row.
        scales: factors on the rewards of the games.
        overrides: of the recipe.
        lag_updates: updates between playing an unroll and learning from it, beyond the usual.
    """

    name: str
    scales: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SCALES, 1.0))
    overrides: tuple[str, ...] = ()
    lag_updates: int = 0


EXPERIMENTS = {
    "scales": (
        Setting("PopArt, rewards as they are"),
        Setting("PopArt, times 1, 10, 1000", SCALES),
        Setting("categorical, rewards as they are", overrides=CATEGORICAL),
        Setting("categorical, times 1, 10, 1000", SCALES, CATEGORICAL),
        Setting("plain, rewards as they are", overrides=("reinforcement.popart=false",)),
        Setting("plain, times 1, 10, 1000", SCALES, ("reinforcement.popart=false",)),
    ),
    "lag": (
        Setting("v-trace, at once", overrides=IMPALA),
        Setting("v-trace, 16 updates late", overrides=IMPALA, lag_updates=LAG_UPDATES),
        Setting(
            "v-trace, 16 late, no importance weights",
            overrides=(*IMPALA, "reinforcement.importance=false"),
            lag_updates=LAG_UPDATES,
        ),
        Setting("clipped, at once"),
        Setting("clipped, 16 updates late", lag_updates=LAG_UPDATES),
    ),
}


@dataclass
class Row:
    """A run.

    Attributes:
        setting: name of its setting.
        seed: of weights and environments.
        asked_steps: of the environments, as asked for.
        steps: of the environments, in whole unrolls.
        minutes: what it took.
        returns: game -> mean return of the episodes of the last quarter; None where none ended.
        entropy: game -> entropy of the policy at the end, in nats.
    """

    setting: str
    seed: int
    asked_steps: int
    steps: int
    minutes: float
    returns: dict[str, float | None]
    entropy: dict[str, float]


class Late:
    """Plays unrolls, and gives each some unrolls later.

    Args:
        play: as `play_unroll`.
        unrolls: how many later. As many more are played at the first call.
    """

    def __init__(self, play: Callable[..., Played], unrolls: int) -> None:
        self._play, self._unrolls = play, unrolls
        self._waiting: deque[Played] = deque()

    def __call__(self, *arguments: Any, **options: Any) -> Played:
        """The oldest unroll that waits, with the episodes and the steps played now."""
        more = 1 + self._unrolls - len(self._waiting)
        played = [self._play(*arguments, **options) for _ in range(more)]
        self._waiting += played
        return Played(
            self._waiting.popleft().unroll,
            [each for one in played for each in one.finished],
            sum(one.steps for one in played),
        )


def recipe_for(setting: Setting, steps: int, seed: int, folder: Path) -> tuple[Recipe, int]:
    """The recipe of a row, and how many unrolls late it learns from what it plays."""
    tasks = {
        task: {"reward_scale": scale, "options": OPTIONS.get(task, {})}
        for task, scale in setting.scales.items()
    }
    overrides = [
        f"reinforcement.tasks={json.dumps(tasks)}", *setting.overrides, f"seed={seed}",
        "schedule.minutes=null", "schedule.steps=1", "cores=1", "trackers=[]",
        "checkpoint.every_minutes=null", f"output_dir={folder}",
    ]  # fmt: skip
    recipe = load_recipe(RECIPE, overrides)
    wanted = recipe.reinforcement
    assert wanted is not None
    updates = wanted.passes * wanted.minibatches
    late = setting.lag_updates // updates
    unroll = wanted.unroll * sum(task.environments for task in wanted.tasks.values())
    recipe.schedule.steps = max(1, round(steps / unroll) - late) * updates
    recipe.log_every = updates
    return recipe, late


def run(setting: Setting, steps: int, seed: int) -> Row:
    """Learn from nothing for so many steps of the environments."""
    folder = Path(tempfile.mkdtemp(prefix="generalist-benchmark-"))
    try:
        recipe, late = recipe_for(setting, steps, seed, folder / "run")
        began = time.monotonic()
        with patch.object(source, "play_unroll", Late(play_unroll, late)):
            train(recipe)
        minutes = (time.monotonic() - began) / 60
        log = [json.loads(line) for line in (folder / "run" / "log.jsonl").open()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    late_rows = log[3 * len(log) // 4 :]
    return Row(
        setting.name, seed, steps, int(log[-1]["environment_steps"]), minutes,
        {game: mean_return(late_rows, game) for game in SCALES},
        {game: log[-1][f"entropy/{game}"] for game in SCALES},
    )  # fmt: skip


def mean_return(log: list[dict[str, float]], game: str) -> float | None:
    """Of the game's episodes in some rows of a log; None where none ended."""
    counts = [row.get(f"episodes/{game}", 0.0) for row in log]
    if not sum(counts):
        return None
    returns = [row.get(f"return/{game}", 0.0) for row in log]
    return sum(n * each for n, each in zip(counts, returns, strict=True)) / sum(counts)


def rows(experiment: str, steps: int, seeds: int, before: list[Row]) -> Iterator[tuple[Row, bool]]:
    """The rows of an experiment, seed by seed, and whether each was run now."""
    known = {(row.setting, row.seed, row.asked_steps): row for row in before}
    for seed in range(seeds):
        for setting in EXPERIMENTS[experiment]:
            there = known.get((setting.name, seed, steps))
            yield (there, False) if there else (run(setting, steps, seed), True)


def in_words(row: Row) -> list[Any]:
    """The cells of a row."""
    returns, entropy = row.returns.values(), row.entropy.values()
    return [row.setting, row.seed, row.steps, *returns, sum(entropy) / len(entropy), row.minutes]


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, print each row as it is done, and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--steps", type=int, default=120_000, help="of the environments, a row")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="rows, to go on from")
    options = parser.parse_args(arguments)
    console, before = screen(), []
    if options.json is not None and options.json.exists():
        before = [Row(**each) for each in json.loads(options.json.read_text())["rows"]]
    found: list[Row] = []
    for row, now in rows(options.experiment, options.steps, options.seeds, before):
        found.append(row)
        others = [each for each in before if each not in found]
        write_json(options.json, {"rows": [asdict(each) for each in [*found, *others]]})
        if now:
            said = ", ".join(f"{game} {written(mean)}" for game, mean in row.returns.items())
            console.print(f"{row.setting}, seed {row.seed}: {said}", soft_wrap=True)
    games = [game.partition("/")[2] for game in SCALES]
    columns = ["setting", "seed", "steps", *games, "entropy", "minutes"]
    print_table(console, "Mean return in the last quarter", columns, map(in_words, found))


if __name__ == "__main__":
    main()
