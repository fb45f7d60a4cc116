"""What asking for a return is worth, and whether values say what follows.

    python -m benchmarks.returns asked --data data/mixed --asked runs/mixed/evaluation/asked \\
        --expert EXPERT --clone CLONE --best BEST
    python -m benchmarks.returns values --data data/heldout --checkpoint runs/mixed/checkpoint

`asked` compares reports of `generalist evaluate` over the same episodes: of a checkpoint that is
asked for an expert's return, of a clone of everything and of a clone of the best tenth, with the
best demonstrator in the data (the strength whose episodes return most). Intervals are Student's t
of 95%. Asked and got are the seven levels of the suite `asked`, as Spearman's rank correlation.

`values` reads episodes that the checkpoint was not trained on, step by step. Nothing is asked for.
The value at each step is compared with the return-to-go that followed: Pearson's correlation, and
the mean distance between both over ten groups of steps, from the lowest values to the highest, in
parts of the range of returns-to-go.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.measure import print_table, screen, write_json
from generalist.acting.agent import Agent
from generalist.acting.forms import Asked
from generalist.shards.files import read_json
from generalist.shards.reader import TaskData, dataset_folders
from generalist.tokenization.returns import TaskReturns
from generalist.windows.returns import Earnings

GROUPS = 10


@dataclass
class Compared:
    """Mean returns in one task, and what follows from them."""

    task: str
    demonstrator: float
    clone: float
    best_tenth: float
    expert_asked: float
    above_clone: bool
    not_below_best_tenth: bool
    of_demonstrator: float
    rank_correlation: float


@dataclass
class Valued:
    """How well the values of one task say what follows."""

    task: str
    steps: int
    correlation: float
    distance: float
    reliability: list[tuple[float, float]]  # mean value and mean return-to-go of each group


def results_of(report: Path) -> dict[str, list[dict[str, Any]]]:
    """By task, the results in the folder of a report; without those that failed or were skipped."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted((report / "results").glob("*.json")):
        result = read_json(path)
        if "returns" in result and not result["prompted"]:
            found[result["task"]].append(result)
    return found


def interval(returns: list[float]) -> tuple[float, float]:
    """The 95% interval of the mean."""
    values = np.asarray(returns, float)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def best_demonstrator(data: TaskData) -> float:
    """Mean return of the episodes of the strength that returns most."""
    by_strength: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for record in data.records:
        strength = record.get("expert"), record.get("noise"), record.get("delay_steps", 0)
        by_strength[strength].append(record["return"])
    return max(float(np.mean(returns)) for returns in by_strength.values())


def compare(
    data: Path, *, asked: Path | None, expert: Path, clone: Path, best: Path
) -> list[Compared]:
    """Compare reports, task by task."""
    reports = {"expert": results_of(expert), "clone": results_of(clone), "best": results_of(best)}
    levels = {} if asked is None else results_of(asked)
    rows = []
    for folder in dataset_folders(data):
        task_data = TaskData(folder)
        task = task_data.task
        if not all(task in each for each in reports.values()):
            continue
        own = {who: each[task][0]["returns"] for who, each in reports.items()}
        means = {who: float(np.mean(returns)) for who, returns in own.items()}
        ranges = {who: interval(returns) for who, returns in own.items()}
        at_levels = [each for each in levels.get(task, []) if "asked_return" in each]
        got = [(each["asked_return"], float(np.mean(each["returns"]))) for each in at_levels]
        rows.append(
            Compared(
                task=task,
                demonstrator=(demonstrator := best_demonstrator(task_data)),
                clone=means["clone"],
                best_tenth=means["best"],
                expert_asked=means["expert"],
                above_clone=ranges["expert"][0] > ranges["clone"][1],
                not_below_best_tenth=ranges["expert"][1] >= ranges["best"][0],
                of_demonstrator=share(means["expert"], demonstrator, task_data),
                rank_correlation=float(stats.spearmanr(*zip(*got, strict=True)).statistic)
                if len(got) > 2
                else float("nan"),
            )
        )
    return rows


def share(mean: float, demonstrator: float, data: TaskData) -> float:
    """A mean return on the way from the worst demonstrator's episodes (0) to the best (1)."""
    worst = float(np.quantile(data.episodes["return"], 0.05))
    return (mean - worst) / (demonstrator - worst)


def read_values(
    agent: Agent, data: TaskData, returns: TaskReturns, episodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) values and (n,) returns-to-go of all steps of the first episodes of a folder."""
    layout, earnings = data.layout, Earnings(data, returns.discount)
    columns = layout.positions.of_role("observation")
    values, to_go = [], []
    for number in range(min(episodes, len(data))):
        row = data.row(number)
        seen = data.tokens_of(row).reshape(row.steps, -1)[:, columns]
        header = agent.header(data.index.instruction(row.instruction))
        decoder = agent.new_decoder(1)
        decoder.reset(0, header.ids, number, header.added)
        for step in range(row.steps):
            now = decoder, [0], seen[step][None], [agent._choices]
            chosen = agent.form.act(*now, log_probs=False, asked=Asked([None], [None]))
            values.append(float(agent._values(chosen)[0]))
        to_go.append(earnings.of(row).to_go)
    return np.array(values), np.concatenate(to_go)


def judge(task: str, values: np.ndarray, to_go: np.ndarray, returns: TaskReturns) -> Valued:
    """Compare values with what followed."""
    groups = np.array_split(np.argsort(values), GROUPS)
    pairs = [(float(values[g].mean()), float(to_go[g].mean())) for g in groups]
    distance = float(np.mean([abs(value - real) for value, real in pairs]))
    return Valued(
        task=task,
        steps=len(values),
        correlation=float(np.corrcoef(values, to_go)[0, 1]),
        distance=distance / (returns.high - returns.low),
        reliability=pairs,
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["asked", "values"])
    parser.add_argument("--data", type=Path, required=True)
    for report in ("asked", "expert", "clone", "best"):
        parser.add_argument(f"--{report}", type=Path, help="folder of a report")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.what == "asked":
        reports = {key: getattr(options, key) for key in ("asked", "expert", "clone", "best")}
        compared = compare(options.data, **reports)
        columns = [key.replace("_", " ") for key in Compared.__dataclass_fields__]
        print_table(screen(), "Asked for an expert's return", columns, map(astuple, compared))
        write_json(options.json, {"tasks": [asdict(each) for each in compared]})
        return
    folders = [TaskData(folder) for folder in dataset_folders(options.data)]
    agent = Agent.from_pretrained(options.checkpoint, folders[0].task, device="cpu")
    valued = []
    for data in folders:
        if data.task in agent.returns:
            returns = TaskReturns.from_dict(agent.returns[data.task])
            own = agent.for_task(data.task)
            read = read_values(own, data, returns, options.episodes)
            valued.append(judge(data.task, *read, returns))
    rows = [astuple(each)[:4] for each in valued]
    print_table(screen(), "Values", ["task", "steps", "correlation", "distance"], rows)
    write_json(options.json, {"tasks": [asdict(each) for each in valued]})


if __name__ == "__main__":
    main()
