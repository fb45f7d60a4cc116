"""What asking for a return is worth, and whether values say what follows.

    python -m benchmarks.returns asked --data data/mixed --asked runs/mixed/evaluation/asked \\
        --expert EXPERT --clone CLONE --best BEST
    python -m benchmarks.returns values --data data/heldout --checkpoint runs/mixed/checkpoint \\
        --plot values.svg
    python -m benchmarks.returns transfer --asked runs/mgdt/heldout/transfer \\
        --clone runs/mgdt-clone/heldout/transfer

`asked` compares reports of `generalist evaluate` over the same episodes: of a checkpoint that is
asked by --wanted-return expert, of a clone of everything and of a clone of the best tenth, with the
best demonstrator in the data (the strength whose episodes return most). The report of the suite
`asked` has the same checkpoint asked for nothing and for seven levels, of which 100% is the other
way of asking for the best. Intervals are Student's t of 95%. Asked and got are the seven levels, as
Spearman's rank correlation.

`values` reads episodes that the checkpoint was not trained on, step by step. Nothing is asked for.
The value at each step is compared with the return-to-go that followed: Pearson's correlation, and
the mean distance between both over ten groups of steps, from the lowest values to the highest, in
parts of the range of returns-to-go. `--plot` draws these groups, a reliability plot: on the
diagonal the mean return-to-go of a group is its mean value. Steps of one episode share its luck, so
intervals take an episode, not a step, for one observation.

`transfer` compares reports of `generalist evaluate transfer`: of a checkpoint that is asked for a
return, and of one that clones. Each was fine-tuned on games that it had not seen, and each recipe
also trained a model on these alone. `above` means that intervals of 95% are disjoint.
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
from generalist.evaluation.heldout import FINE_TUNED, FROM_SCRATCH
from generalist.evaluation.measure import checkpoint_tasks
from generalist.evaluation.plots import reliability_plot
from generalist.evaluation.reliability import Group, reliability
from generalist.shards.files import read_json, replacing
from generalist.shards.reader import TaskData, dataset_folders
from generalist.tokenization.returns import TaskReturns
from generalist.windows.returns import Earnings

GROUPS = 10
NEEDED = {
    "asked": ("data", "asked", "expert", "clone", "best"),
    "values": ("data", "checkpoint"),
    "transfer": ("asked", "clone"),
}


@dataclass
class Compared:
    """Mean returns in one task, and what follows from them."""

    task: str
    asked: str  # `nothing`, `expert` or `100%`
    got: float
    clone: float
    best_tenth: float
    demonstrator: float
    above_clone: bool
    not_below_best_tenth: bool
    of_demonstrator: float
    rank_correlation: float  # of all levels, the same in each row of a task


@dataclass
class Valued:
    """How well the values of one task say what follows."""

    task: str
    steps: int
    correlation: float
    distance: float
    reliability: list[Group]


@dataclass
class Transferred:
    """Mean returns in a game that was left out of training."""

    task: str
    fine_tuned: float  # asked for a return
    from_scratch: float  # asked for the same
    clone: float  # fine-tuned, asked for nothing
    clone_from_scratch: float
    above_from_scratch: bool
    above_clone: bool


def results_of(report: Path) -> dict[str, list[dict[str, Any]]]:
    """By task, the results of a report with the task's own instruction, but for what failed."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted((report / "results").glob("*.json")):
        result = read_json(path)
        if "returns" in result and not result["prompted"] and result["instruction"] == "own":
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


def compare(data: Path, *, asked: Path, expert: Path, clone: Path, best: Path) -> list[Compared]:
    """Compare reports, task by task, for each way of asking."""
    levels, experts = results_of(asked), results_of(expert)
    clones, tenths = results_of(clone), results_of(best)
    rows = []
    for folder in dataset_folders(data):
        task_data = TaskData(folder)
        task = task_data.task
        if not all(task in each for each in (levels, experts, clones, tenths)):
            continue
        ways = {str(each.get("asked", "nothing")): each["returns"] for each in levels[task]}
        asked_for = {"nothing": ways["nothing"], "expert": experts[task][0]["returns"]}
        asked_for["100%"] = ways["100"] if "100" in ways else ways["100.0"]
        cloned, tenth = clones[task][0]["returns"], tenths[task][0]["returns"]
        demonstrator = best_demonstrator(task_data)
        for way, returns in asked_for.items():
            low, high = interval(returns)
            rows.append(
                Compared(
                    task=task,
                    asked=way,
                    got=float(np.mean(returns)),
                    clone=float(np.mean(cloned)),
                    best_tenth=float(np.mean(tenth)),
                    demonstrator=demonstrator,
                    above_clone=low > interval(cloned)[1],
                    not_below_best_tenth=high >= interval(tenth)[0],
                    of_demonstrator=share(float(np.mean(returns)), demonstrator, task_data),
                    rank_correlation=rank_correlation(levels[task]),
                )
            )
    return rows


def rank_correlation(results: list[dict[str, Any]]) -> float:
    """Spearman's, of the returns that were asked for and the mean returns that were got."""
    pairs = [
        (each["asked_return"], float(np.mean(each["returns"])))
        for each in results
        if "asked_return" in each
    ]
    return float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)


def share(mean: float, demonstrator: float, data: TaskData) -> float:
    """A mean return on the way from the worst twentieth of the episodes to the best strength.

    Not a number where these return the same.
    """
    worst = float(np.quantile(data.episodes["return"], 0.05))
    return (mean - worst) / (demonstrator - worst) if demonstrator > worst else float("nan")


def transferred(asked: Path, clone: Path) -> list[Transferred]:
    """Compare two reports of held-out games, task by task; what was not measured is left out."""
    mine, other = (read_json(report / "report.json")["scores"] for report in (asked, clone))
    rows = []
    for task in mine:
        ways = [of.get(task, {}).get(way) for of in (mine, other)
                for way in (FINE_TUNED, FROM_SCRATCH)]  # fmt: skip
        if any(score is None or score["interval"] is None for score in ways):
            continue
        fine_tuned, from_scratch, cloned, cloned_from_scratch = ways
        low = fine_tuned["interval"][0]
        rows.append(
            Transferred(
                task=task,
                fine_tuned=fine_tuned["mean"],
                from_scratch=from_scratch["mean"],
                clone=cloned["mean"],
                clone_from_scratch=cloned_from_scratch["mean"],
                above_from_scratch=low > from_scratch["interval"][1],
                above_clone=low > cloned["interval"][1],
            )
        )
    return rows


def read_values(
    agent: Agent, data: TaskData, returns: TaskReturns, episodes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all steps of the first episodes of a folder: (n,) values, returns-to-go, episodes."""
    layout, earnings = data.layout, Earnings(data, returns.discount)
    columns = layout.positions.of_role("observation")
    values, to_go, numbers = [], [], []
    for number in range(min(episodes, len(data))):
        row = data.row(number)
        stored = data.tokens_of(row).reshape(row.steps, -1)
        seen = stored[:, columns].astype(np.int64)
        header = agent.header(data.index.instruction(row.instruction))
        decoder = agent.new_decoder(1)
        decoder.reset(0, header.ids, number, header.added)
        for step in range(row.steps):
            now = decoder, [0], seen[step][None], [agent._choices]
            chosen = agent.form.act(*now, log_probs=False, asked=Asked([None], [None]))
            worth = agent._values(chosen)
            assert worth is not None  # something was asked
            values.append(float(worth[0]))
        to_go.append(earnings.of(row).to_go)
        numbers.append(np.full(row.steps, number))
    return np.array(values), np.concatenate(to_go), np.concatenate(numbers)


def judge(
    task: str, values: np.ndarray, to_go: np.ndarray, episodes: np.ndarray, returns: TaskReturns
) -> Valued:
    """Compare values with what followed, step by step; all arrays are (n,)."""
    groups = reliability(values, to_go, episodes, GROUPS)
    distance = float(np.mean([abs(group.value - group.followed) for group in groups]))
    return Valued(
        task=task,
        steps=len(values),
        correlation=float(np.corrcoef(values, to_go)[0, 1]),
        distance=distance / (returns.high - returns.low),
        reliability=groups,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["asked", "values", "transfer"])
    parser.add_argument("--data", type=Path)
    for report in ("asked", "expert", "clone", "best"):
        parser.add_argument(f"--{report}", type=Path, help="folder of a report")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--plot", type=Path, help="file of the picture of `values`, an SVG")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if missing := [key for key in NEEDED[options.what] if getattr(options, key) is None]:
        parser.error(f"{options.what} needs --{missing[0]}")
    if options.what == "transfer":
        moved = transferred(options.asked, options.clone)
        columns = [key.replace("_", " ") for key in Transferred.__dataclass_fields__]
        print_table(screen(), "Games that were left out", columns, map(astuple, moved))
        write_json(options.json, {"tasks": [asdict(each) for each in moved]})
        return
    if options.what == "asked":
        reports = {key: getattr(options, key) for key in ("asked", "expert", "clone", "best")}
        compared = compare(options.data, **reports)
        columns = [key.replace("_", " ") for key in Compared.__dataclass_fields__]
        print_table(screen(), "Asked for an expert's return", columns, map(astuple, compared))
        write_json(options.json, {"tasks": [asdict(each) for each in compared]})
        return
    known = checkpoint_tasks(options.checkpoint)
    folders = [TaskData(folder) for folder in dataset_folders(options.data)]
    folders = [data for data in folders if data.task in known]
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
    if options.plot is not None:
        with replacing(options.plot) as file:
            picture = reliability_plot({each.task: each.reliability for each in valued})
            file.write(picture.encode())
    write_json(options.json, {"tasks": [asdict(each) for each in valued]})


if __name__ == "__main__":
    main()
