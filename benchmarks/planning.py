"""What the planner scores, and in how much time, on two sets of tasks that were stated beforehand.

    python -m benchmarks.planning control --budget 256 --log control.jsonl
    python -m benchmarks.planning atari --budget 100 --log atari.jsonl

Episodes that the log holds are not played again, so an interrupted measurement goes on, and
`python -m generalist.envs.measure` with the same log writes its scores down. TASK ... measures
some of the set. The budget is simulator steps for each decision, which in Atari are four frames;
several say what return more of it buys.

control: the 28 BENCHMARKING tasks of the Control Suite; passed with five times random play's
    return, or 300 more (of 1,000).
atari: ten games, cut after 18,000 frames, five minutes of play, as those of the human testers of
    Mnih et al. 2015 (doi:10.1038/nature14236, Extended Data Table 2) were; passed with the
    human-normalised score 1, (score - random) / (human - random) with the table's numbers, or with
    the most that the game gives.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import print_table, screen, write_json
from generalist.envs.measure import Player, Trial, played
from generalist.seeds import EVALUATION_SEED

_OF_THE_SUITE = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse"),
    "cheetah": ("run",),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run"),
    "manipulator": ("bring_ball",),
    "pendulum": ("swingup",),
    "point_mass": ("easy",),
    "reacher": ("easy", "hard"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run"),
}
CONTROL = [f"dmc/{domain}-{each}" for domain, tasks in _OF_THE_SUITE.items() for each in tasks]
FACTOR, MORE = 5.0, 300.0

ATARI_STEPS = 4_500  # of 4 frames


@dataclass(frozen=True)
class Game:
    """What random play and a professional tester scored, and the most there is to be had."""

    random: float
    human: float
    most: float = float("inf")


# Chosen before any was measured: much happens within the seconds that a planner looks ahead, and
# an episode does not depend on objects that are met minutes later.
ATARI = {
    "atari/Assault": Game(222.4, 1496.0),
    "atari/Asterix": Game(210.0, 8503.0),
    "atari/Boxing": Game(0.1, 4.3, most=100.0),
    "atari/Breakout": Game(1.7, 31.8, most=864.0),
    "atari/CrazyClimber": Game(10781.0, 35411.0),
    "atari/DemonAttack": Game(152.1, 3401.0),
    "atari/Gopher": Game(257.6, 2321.0),
    "atari/Krull": Game(1598.0, 2395.0),
    "atari/RoadRunner": Game(11.5, 7845.0),
    "atari/SpaceInvaders": Game(148.0, 1652.0),
}


@dataclass(frozen=True)
class Row:
    """A task's scores, what they come to, and what an episode of the planner takes."""

    task: str
    budget: int
    random: float
    planner: float
    measure: float  # planner / random; in Atari the human-normalised score
    passed: bool
    episodes: int
    steps: float
    cpu_seconds: float
    seconds: float


def beats_random(planner: float, random: float) -> bool:
    """True for five times random play's return, or 300 more."""
    return planner > random and (planner >= FACTOR * random or planner >= random + MORE)


def human_normalised(task: str, score: float) -> float:
    """0 is random play, 1 the tester of Mnih et al. 2015."""
    game = ATARI[task]
    return (score - game.random) / (game.human - game.random)


def measure(task: str, budget: int, options: argparse.Namespace) -> Row:
    """Play a task's missing episodes, and say what they come to."""
    max_steps = ATARI_STEPS if task in ATARI else None

    def play(who: str, episodes: int) -> list[dict[str, Any]]:
        seeds = range(EVALUATION_SEED, EVALUATION_SEED + episodes)
        trials = [Trial(Player(task, who), seed, max_steps) for seed in seeds]
        found = dict(played(trials, log=options.log))
        for outcome in found.values():
            if isinstance(outcome, Exception):
                raise outcome
        return [found[trial] for trial in trials]  # type: ignore[misc]

    planned = play(f"planner@{budget}", options.episodes)
    random = _mean(play("random", options.random_episodes), "score")
    planner = _mean(planned, "score")
    if task in ATARI:
        value = human_normalised(task, planner)
        passed = value >= 1.0 or planner >= ATARI[task].most
    else:
        value = planner / random if random else float("inf")
        passed = beats_random(planner, random)
    times = (_mean(planned, key) for key in ("steps", "cpu_seconds", "seconds"))
    return Row(task, budget, random, planner, value, passed, len(planned), *times)


def _mean(records: list[dict[str, Any]], key: str) -> float:
    return statistics.fmean(record[key] for record in records)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["control", "atari"])
    parser.add_argument("tasks", nargs="*", help="of the set; default: all of it")
    parser.add_argument("--budget", type=int, action="append", help="repeatable; default: 256")
    parser.add_argument("--episodes", type=int, default=1, help="of the planner")
    parser.add_argument("--random-episodes", type=int, default=10)
    parser.add_argument("--log", type=Path, help="JSON lines of episodes, to go on from")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    stated = CONTROL if options.kind == "control" else list(ATARI)
    if unknown := set(options.tasks) - set(stated):
        parser.error(f"not in the set {options.kind}: {', '.join(sorted(unknown))}")
    budgets = options.budget or [256]
    rows = [measure(task, each, options) for task in options.tasks or stated for each in budgets]
    value = "times random" if options.kind == "control" else "human-normalised"
    columns = ("task", "budget", "random", "planner", value, "passed", "episodes", "steps")
    print_table(
        screen(),
        f"{sum(row.passed for row in rows)} of {len(rows)} passed",
        (*columns, "CPU seconds", "seconds"),
        (
            (
                *(row.task, row.budget, row.random, row.planner, row.measure),
                *("yes" if row.passed else "no", row.episodes, row.steps),
                *(row.cpu_seconds, row.seconds),
            )
            for row in rows
        ),
    )
    write_json(options.json, {"rows": [vars(row) for row in rows]})


if __name__ == "__main__":
    main()
