"""Measure what a random policy and the expert score in each task, and write it to scores.json.

    python -m generalist.envs.measure [TASK ...] [--episodes 20] [--seed 1000000] [--resume]

The seeds lie far above those of collected data. A score is the mean over the episodes with its
standard error; a success rate for tasks that are scored so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from generalist.envs.registry import (
    SCORES_PATH,
    Score,
    get_task,
    is_document_task,
    make,
    registered_names,
    reload_scores,
)
from generalist.errors import GeneralistError, UsageError

FIRST_SEED = 1_000_000


def measure(task_name: str, who: str, episodes: int, seed: int, command: str) -> Score:
    """Play `episodes` episodes of "random" or "expert", reset with seed, seed + 1, ..."""
    from generalist.experts import collect_episode, get_expert, random_episode

    task = get_task(task_name)
    env = make(task_name)
    scores = []
    for episode_seed in tqdm(
        range(seed, seed + episodes),
        desc=f"{task_name} {who}",
        unit="episode",
        leave=False,
        disable=None,
    ):
        if who == "expert":
            episode = collect_episode(env, task_name, get_expert(task_name), episode_seed)
        else:
            episode = random_episode(env, task_name, episode_seed)
        scores.append(task.score_of(episode.return_, episode.success))
    env.close()
    spread = statistics.stdev(scores) if episodes > 1 else 0.0
    return Score(
        mean=round(statistics.fmean(scores), 4),
        stderr=round(spread / math.sqrt(episodes), 4),
        episodes=episodes,
        seeds=(seed, seed + episodes),
        date=datetime.date.today().isoformat(),
        command=command,
    )


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def store(task_name: str, scores: dict[str, Score], path: Path = SCORES_PATH) -> None:
    """Write the scores of one task beside those already in the file, in the order of names."""
    table = _read(path)
    entry: dict[str, Any] = {"metric": get_task(task_name).metric}
    entry |= {who: score.to_dict() for who, score in scores.items()}
    table[task_name] = {**table.get(task_name, {}), **entry}
    temporary = path.with_suffix(".json.partial")
    text = json.dumps(dict(sorted(table.items())), indent=1) + "\n"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    reload_scores()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m generalist.envs.measure",
        description="Measure random and expert scores and store them in scores.json.",
    )
    parser.add_argument("tasks", nargs="*", help="default: every registered task with an expert")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first episode")
    parser.add_argument("--who", choices=["random", "expert"], help="only one of the two")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what the same command has measured"
    )
    parser.add_argument("--out", type=Path, default=SCORES_PATH)
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except GeneralistError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _run(options: argparse.Namespace) -> int:
    if options.episodes < 1:
        raise UsageError(f"--episodes must be at least 1, got {options.episodes}.")
    tasks = options.tasks or [name for name in registered_names() if get_task(name).default_expert]
    measured = _read(options.out)
    for name in tasks:
        if is_document_task(name):
            raise UsageError(f"{name} is documents; there are no episodes to measure.")
        command = (
            f"python -m generalist.envs.measure {name} "
            f"--episodes {options.episodes} --seed {options.seed}"
        )
        parties = [options.who] if options.who else ["random", "expert"]
        if not get_task(name).default_expert:
            parties = [who for who in parties if who == "random"]
        if options.resume:
            there = measured.get(name, {})
            parties = [who for who in parties if there.get(who, {}).get("command") != command]
            if not parties:
                continue
        scores = {
            who: measure(name, who, options.episodes, options.seed, command) for who in parties
        }
        store(name, scores, options.out)
        said = ", ".join(f"{who} {s.mean:.2f} +/- {s.stderr:.2f}" for who, s in scores.items())
        print(f"{name}: {said} ({options.episodes} episodes)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
