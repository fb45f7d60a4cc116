"""Offline data of three strengths, recorded as others record it, and scores on the scale of D4RL.

    python -m benchmarks.offline make --out data/offline
    generalist train offline
    generalist evaluate offline
    python -m benchmarks.offline scores --data data/offline --report runs/offline/evaluation/offline

`make` trains soft actor-critic of stable-baselines3 in each task. Minari's DataCollector records
random play, the policy after half of the training, and the policy at its end. As in D4RL, actions
are drawn from the policy. The Minari datasets stay in OUT/minari; they are imported to OUT/random,
OUT/half and OUT/trained, and each episode's record names its dataset.

`scores` compares the episodes of the data with what a checkpoint does: a report has it as a clone,
which is asked for nothing, and asked for returns. References are D4RL's where they apply, else the
registry's (generalist/evaluation/d4rl.py). A mean over tasks is of those with D4RL's references.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium
import numpy as np

from benchmarks.measure import print_table, screen, write_json
from benchmarks.returns import results_of
from generalist.envs.options import changed_options
from generalist.errors import UsageError
from generalist.evaluation.d4rl import PUBLISHED, scale_of
from generalist.evaluation.intervals import mean_stderr
from generalist.experts.recipes import recipe_for
from generalist.importing.minari import MinariSource
from generalist.importing.write import import_source
from generalist.shards.reader import TaskData, dataset_folders
from generalist.streams import Stream, random_stream

TASKS = ("gym/Hopper-v5", "gym/HalfCheetah-v5", "gym/Walker2d-v5")
STRENGTHS = ("random", "half", "trained")
LEARNING_STARTS = 0.1
"""Share of the training that plays at random first, at most as many steps as the recipe says."""
SEEDS_PER_SET = 100_000  # so that no two sets of a task begin an episode alike

Act = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Row:
    """The episodes of a set of data, or of a checkpoint, in one task."""

    task: str
    who: str  # a dataset, `clone`, or what was asked for
    episodes: int
    cut: int | None  # steps after which episodes were cut, where the task itself does not
    mean: float
    stderr: float | None
    score: float | None  # on the scale of D4RL
    references: str

    @classmethod
    def of(cls, task: str, who: str, returns: Sequence[float], cut: int | None) -> Row:
        """The row of these returns of episodes."""
        mean, stderr = mean_stderr(returns)
        scale = scale_of(task)
        score, source = (None, "") if scale is None else (scale.of(mean), scale.source)
        return cls(task, who, len(returns), cut, mean, stderr, score, source)


def policies(task: str, train_steps: int, seed: int) -> Iterator[tuple[str, Act]]:
    """Yield name and policy of each strength; training goes on when the next one is asked for."""
    import stable_baselines3
    import torch

    torch.set_num_threads(1)  # such small networks are slower on several
    recipe = recipe_for("sac", task)
    starts = min(recipe.settings["learning_starts"], int(LEARNING_STARTS * train_steps))
    model = stable_baselines3.SAC(
        "MlpPolicy", gymnasium.make(_env_id(task)), seed=seed, device="cpu",
        policy_kwargs={"net_arch": list(recipe.network)},
        **{**recipe.settings, "learning_starts": starts},
    )  # fmt: skip
    # stable-baselines3 seeds its random actions like the environment; draw another seed.
    drawn = random_stream(seed, Stream.EXPERT_TRAINING).integers(2**31, size=2).tolist()
    model.action_space.seed(drawn[0])
    space = gymnasium.make(_env_id(task)).action_space
    space.seed(drawn[1])
    yield "random", lambda seen: space.sample()
    for steps in (train_steps // 2, train_steps):
        model.learn(steps - model.num_timesteps, reset_num_timesteps=False)
        yield f"sac@{steps}", lambda seen: model.predict(seen)[0]


def record(
    task: str, dataset: str, act: Act, *, steps: int, seed: int, max_steps: int | None, by: str
) -> Path:
    """Record whole episodes of at least `steps` steps in all, with Minari's own collector.

    Args:
        task: `gym/ID`.
        dataset: the id of the Minari dataset.
        act: an observation to an action.
        steps: of all episodes together.
        seed: of the first episode; the next ones follow.
        max_steps: where episodes are cut; None: where the task itself does.
        by: who acts, for the dataset's metadata.

    Returns:
        The folder of the dataset, below MINARI_DATASETS_PATH.
    """
    import minari

    limit = {} if max_steps is None else {"max_episode_steps": max_steps}
    env = minari.DataCollector(gymnasium.make(_env_id(task), **limit))
    done = 0
    for number in itertools.count(seed):
        observation, _ = env.reset(seed=number)
        over = False
        while not over:
            observation, _, terminated, truncated, _ = env.step(act(observation))
            over = terminated or truncated
            done += 1
        if done >= steps:
            break
    scale = PUBLISHED.get(task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Minari asks for an author, and more
        recorded = env.create_dataset(
            dataset,
            algorithm_name=by,
            ref_min_score=None if scale is None else scale.random,
            ref_max_score=None if scale is None else scale.expert,
        )
    env.close()
    return Path(recorded.storage.data_path).parent


def make_sets(
    task: str, out: Path, *, steps: int, train_steps: int, seed: int, max_steps: int | None
) -> None:
    """Record and import the three sets of a task.

    Raises:
        UsageError: a set is there already, perhaps of an interrupted call.
    """
    names = [f"{_env_id(task)}/{strength}-v0" for strength in STRENGTHS]
    minari_root = out / "minari"
    if any((minari_root / name).exists() for name in names):
        raise UsageError(
            f"{minari_root / _env_id(task)} holds sets already; delete {out}, or choose another "
            "--out."
        )
    acting = policies(task, train_steps, seed)
    with mock.patch.dict(os.environ, {"MINARI_DATASETS_PATH": str(minari_root.resolve())}):
        for number, (strength, name) in enumerate(zip(STRENGTHS, names, strict=True)):
            who, act = next(acting)
            first = seed + number * SEEDS_PER_SET
            folder = record(
                task, name, act, steps=steps, seed=first, max_steps=max_steps, by=who
            )  # fmt: skip
            import_source(MinariSource(str(folder)), task, out / strength, progress=False)


def behaviours(data: Path) -> list[Row]:
    """The episodes of the data, by task and dataset."""
    found: dict[tuple[str, str, int | None], list[float]] = defaultdict(list)
    for folder in dataset_folders(data):
        task_data = TaskData(folder)
        cut = _cut(task_data.task, task_data.header.collection.get("options", {}))
        for each in task_data.records:
            found[task_data.task, each["dataset"], cut].append(each["return"])
    return [Row.of(task, who, returns, cut) for (task, who, cut), returns in found.items()]


def acted(report: Path) -> list[Row]:
    """The episodes of a report of `generalist evaluate`: of the clone, and of each asking."""
    return [
        Row.of(task, _asked_for(each), each["returns"], _cut(task, each["options"]))
        for task, results in results_of(report).items()
        for each in results
    ]


def _cut(task: str, options: dict[str, Any]) -> int | None:
    return changed_options(task, options).get("max_steps")


def _asked_for(result: dict[str, Any]) -> str:
    wanted = result["settings"].get("wanted_return")
    return "clone" if wanted is None else f"asked {wanted}"


def means(rows: Sequence[Row]) -> list[tuple[str, int, float]]:
    """(who, tasks, mean score) of clone and askings over the tasks with D4RL's references."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.task in PUBLISHED and row.cut is None and row.score is not None:
            found[row.who].append(row.score)
    return [(who, len(scores), statistics.fmean(scores)) for who, scores in found.items()]


def _env_id(task: str) -> str:
    return task.removeprefix("gym/")


def _show(rows: list[Row], averaged: list[tuple[str, int, float]], path: Path | None) -> None:
    columns = [*Row.__dataclass_fields__]
    cells = [["" if cell is None else cell for cell in astuple(row)] for row in rows]
    print_table(screen(), "On the scale of D4RL", columns, cells)
    if averaged:
        print_table(screen(), "Mean over tasks", ["who", "tasks", "score"], averaged)
    means_json = [{"who": who, "tasks": n, "score": score} for who, n, score in averaged]
    write_json(path, {"rows": [asdict(row) for row in rows], "means": means_json})


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="record three sets of each task, and import them")
    making.add_argument("--out", type=Path, default=Path("data/offline"))
    making.add_argument("--task", action="append", help=f"gym/ID; default: {', '.join(TASKS)}")
    making.add_argument("--steps", type=int, default=20_000, help="of each set, at least")
    making.add_argument("--train-steps", type=int, default=100_000, help="of each policy")
    making.add_argument("--max-steps", type=int, help="cut episodes there")
    making.add_argument("--seed", type=int, default=0)
    scoring = commands.add_parser("scores", help="compare data and reports")
    scoring.add_argument("--data", type=Path, default=Path("data/offline"))
    scoring.add_argument("--report", type=Path, action="append", default=[])
    for each in (making, scoring):
        each.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "scores":
        # Two reports may have the same episodes: those that are asked for a level of the data.
        reported = [*dict.fromkeys(row for report in options.report for row in acted(report))]
        rows = sorted([*behaviours(options.data), *reported], key=lambda row: row.task)
        _show(rows, means(reported), options.json)
        return
    if min(options.steps, options.train_steps) < 2:
        parser.error("--steps and --train-steps must be at least 2")
    for task in options.task or TASKS:
        make_sets(
            task, options.out, steps=options.steps, train_steps=options.train_steps,
            seed=options.seed, max_steps=options.max_steps,
        )  # fmt: skip
    _show(behaviours(options.out), [], options.json)


if __name__ == "__main__":
    main()
