"""Measure what a random policy and the experts score in each task, and write it to scores.json.

    python -m generalist.envs.measure [TASK ...] [--who random] [--episodes 20] [--workers 2]
        [--expert planner@256] [--max-steps 4500] [--log episodes.jsonl] [--again]

A score is the mean over whole episodes with its standard error; its seeds lie far above those of
collected data. The file is written after each score, so the same command goes on where it stopped;
with a log it goes on after the last episode. The score of the task's default expert is what agents
are compared with; those of others stand beside it, under their names. Episodes that were cut go
into the log alone.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from tqdm import tqdm

from generalist.envs.options import default_options
from generalist.envs.registry import (
    SCORES_PATH,
    Score,
    get_task,
    is_document_task,
    make,
    registered_names,
    reload_scores,
)
from generalist.errors import GeneralistError, UsageError, in_words
from generalist.processes import process_pool
from generalist.seeds import EVALUATION_SEED

RANDOM = "random"
# What plays the game, whose versions stand in the record.
_PACKAGES = {
    "atari": ("ale-py",),
    "babyai": ("minigrid",),
    "board": ("open_spiel",),
    "dmc": ("dm_control", "mujoco"),
    "doom": ("vizdoom",),
    "doomworld": ("vizdoom",),
    "gym": ("gymnasium", "mujoco", "Box2D"),
    "metaworld": ("metaworld", "mujoco"),
    "minatar": ("minatar",),
    "miniworld": ("miniworld",),
} | dict.fromkeys(("caption", "vqa"), ("minigrid", "miniworld", "vizdoom"))

Record = dict[str, Any]


@dataclass(frozen=True)
class Player:
    """Who plays a task: `random`, or an expert by name, a planner's with its budget."""

    task: str
    name: str

    @property
    def key(self) -> str:
        """Where the score stands in the task's entry of scores.json.

        `random`; `expert` for the task's default expert, with any budget; `experts` for others.
        """
        if self.name == RANDOM:
            return RANDOM
        short = self.name.partition("@")[0]
        return "expert" if short == get_task(self.task).default_expert else "experts"


@dataclass(frozen=True)
class Trial:
    """An episode to be played."""

    player: Player
    seed: int
    max_steps: int | None = None

    @property
    def facts(self) -> Record:
        """What an episode of the log is known by."""
        task, who = self.player.task, self.player.name
        return {"task": task, "who": who, "max_steps": self.max_steps, "seed": self.seed}


_env: tuple[str, gymnasium.Env] | None = None  # of this process; made anew for another task


def play(trial: Trial) -> Record:
    """Play an episode; returns its facts with score, steps, and seconds of clock and of CPU."""
    from generalist.experts import collect_episode, get_expert, random_episode

    player, begun, cpu = trial.player, time.perf_counter(), time.process_time()
    env = _environment(player.task)
    if player.name == RANDOM:
        episode = random_episode(
            WithoutSight(env), player.task, trial.seed, max_steps=trial.max_steps
        )
    else:
        expert = get_expert(player.task, player.name)
        seen = WithoutSight(env) if hasattr(expert, "budget") else env
        episode = collect_episode(seen, player.task, expert, trial.seed, max_steps=trial.max_steps)
    return {
        **trial.facts,
        "score": get_task(player.task).score_of(episode.return_, episode.success),
        "steps": episode.steps,
        "seconds": round(time.perf_counter() - begun, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def _environment(task: str) -> gymnasium.Env:
    global _env
    if _env is None or _env[0] != task:
        if _env is not None:
            _env[1].close()
        _env = task, make(task)
    return _env[1]


class WithoutSight(gymnasium.ObservationWrapper):
    """No observations, for players that look at none: half an hour of frames fills 0.6 GB."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 0, (1,), np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        """A single 0."""
        return np.zeros(1, np.uint8)


def score_of_records(player: Player, records: Sequence[Record], command: str) -> Score:
    """The mean score of whole episodes, in the order of their seeds."""
    scores = [record["score"] for record in records]
    several = len(scores) > 1
    return Score(
        mean=round(statistics.fmean(scores), 4),
        stderr=round(statistics.stdev(scores) / math.sqrt(len(scores)), 4) if several else None,
        episodes=len(scores),
        seeds=(records[0]["seed"], records[-1]["seed"] + 1),
        date=datetime.date.today().isoformat(),
        command=command,
        expert="" if player.name == RANDOM else player.name,
        environment=environment_facts(player.task),
        foresees=_foresees(player),
    )


def environment_facts(task: str) -> dict[str, Any]:
    """What scores depend on: the limit of steps, the defaults of options, versions of packages."""
    facts = {key: value for key, value in default_options(task).items() if _is_told(key, value)}
    for package in _PACKAGES[get_task(task).family]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[package] = importlib.metadata.version(package)
    return facts


def _is_told(name: str, value: Any) -> bool:
    plain = isinstance(value, (bool, int, float, str))
    return plain and name not in ("camera", "height", "width")  # of pictures


def _foresees(player: Player) -> bool:
    """Whether the expert knows chances that are still to come, such as sticking actions."""
    if player.name == RANDOM:
        return False
    from generalist.experts import get_expert

    return bool(getattr(get_expert(player.task, player.name), "foresees", False))


def store(player: Player, score: Score, path: Path = SCORES_PATH) -> None:
    """Write a score beside those already in the file, in the order of the tasks' names."""
    table = _read(path)
    entry = table.setdefault(player.task, {})
    entry["metric"] = get_task(player.task).metric
    if player.key == "experts":
        entry.setdefault("experts", {})[player.name] = score.to_dict()
    else:
        entry[player.key] = score.to_dict()
    temporary = path.with_suffix(".json.partial")
    text = json.dumps(dict(sorted(table.items())), indent=1) + "\n"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    reload_scores()


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m generalist.envs.measure",
        description="Measure random and expert scores and store them in scores.json.",
    )
    parser.add_argument(
        "tasks", nargs="*", help="default: random in all, and every expert that is no planner"
    )
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument(
        "--seed", type=int, default=EVALUATION_SEED, help="seed of the first episode"
    )
    parser.add_argument("--who", choices=[RANDOM, "expert"], help="only one of the two")
    parser.add_argument("--expert", help="by name; default: the task's default expert")
    parser.add_argument("--max-steps", type=int, help="cut episodes there; for the log alone")
    parser.add_argument("--workers", type=int, default=1, help="processes side by side")
    parser.add_argument("--log", type=Path, help="JSON lines of episodes, to go on from")
    parser.add_argument("--again", action="store_true", help="also what the file holds already")
    parser.add_argument("--out", type=Path, default=SCORES_PATH)
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except GeneralistError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on.", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    for name, least in (("episodes", 1), ("max_steps", 1), ("workers", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, got {value}.")
    players = _players(options)
    if not options.again and options.max_steps is None:
        there = _read(options.out)
        players = [each for each in players if not _is_measured(each, there, options)]
    seeds = range(options.seed, options.seed + options.episodes)
    trials = [Trial(player, seed, options.max_steps) for player in players for seed in seeds]
    found: dict[Player, list[Record]] = {player: [] for player in players}
    failed = False
    for trial, record in played(trials, log=options.log, workers=options.workers):
        player = trial.player
        if isinstance(record, Exception):
            failed = True
            print(f"{player.task}, seed {trial.seed}: {record}", file=sys.stderr, flush=True)
            continue
        found[player].append(record)
        if len(found[player]) == options.episodes:
            _conclude(player, sorted(found[player], key=lambda each: each["seed"]), options)
    return int(failed)


def played(
    trials: Sequence[Trial], *, log: Path | None = None, workers: int = 1
) -> Iterator[tuple[Trial, Record | Exception]]:
    """Records of episodes, or what went wrong in them; the others are played all the same.

    Args:
        trials: what to play.
        log: JSON lines, one an episode. What it holds is not played again, what is played is
            added.
        workers: processes side by side.
    """
    logged = _logged(log)
    left = []
    for trial in trials:
        if (record := logged.get(_key(trial.facts))) is None:
            left.append(trial)
        else:
            yield trial, record
    with tqdm(total=len(left), unit="episode", leave=False, disable=None) as bar:
        for trial, outcome in _attempts(left, workers):
            bar.update()
            if log is not None and not isinstance(outcome, Exception):
                _append(log, outcome)
            yield trial, outcome


def _append(log: Path, record: Record) -> None:
    """Add a line, on a line of its own also behind one that a kill cut off."""
    with log.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(record).encode() + b"\n")


def _attempts(trials: Sequence[Trial], workers: int) -> Iterator[tuple[Trial, Record | Exception]]:
    if workers == 1:
        yield from ((trial, _attempt(trial)) for trial in trials)
        return
    with process_pool(workers) as pool:
        running = {pool.submit(_attempt, trial): trial for trial in trials}
        for future in as_completed(running):
            yield running[future], future.result()


def _attempt(trial: Trial) -> Record | Exception:
    try:
        return play(trial)
    except Exception as error:  # an environment's own; it costs its task alone
        return GeneralistError(in_words(error))


def _conclude(player: Player, records: Sequence[Record], options: argparse.Namespace) -> None:
    """Store the score of a player all of whose episodes are known, and say it."""
    score = score_of_records(player, records, _command(player, options))
    if options.max_steps is None:
        store(player, score, options.out)
    error = "" if score.stderr is None else f" +/- {score.stderr:.2f}"
    seconds = sum(record["cpu_seconds"] for record in records)
    print(f"{player.task}: {player.name} {score.mean:.2f}{error} "
          f"({score.episodes} episodes, {seconds:.0f} s of CPU)", flush=True)  # fmt: skip


def _key(facts: Record) -> tuple[Any, ...]:
    return tuple(facts[name] for name in ("task", "who", "max_steps", "seed"))


def _logged(path: Path | None) -> dict[tuple[Any, ...], Record]:
    """The episodes of the log; a last line that was cut off by a kill is left out."""
    found: dict[tuple[Any, ...], Record] = {}
    if path is not None and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                record = json.loads(line)
                found[_key(record)] = record
    return found


def _players(options: argparse.Namespace) -> list[Player]:
    """Whom to measure; random play, which costs least, comes first."""
    tasks = options.tasks or [name for name in registered_names() if not is_document_task(name)]
    for name in tasks:
        if is_document_task(name):
            raise UsageError(f"{name} is documents; there are no episodes to measure.")
    found = []
    if options.who != "expert":
        found += [Player(name, RANDOM) for name in tasks]
    if options.who != RANDOM:
        for name in tasks:
            default = get_task(name).default_expert
            if not options.tasks and (default == "planner" or not (options.expert or default)):
                continue
            if expert := _expert_name(name, options.expert):
                found.append(Player(name, expert))
    return found


def _expert_name(task: str, name: str | None) -> str:
    """An expert's full name, a planner's with its budget; "" where the task has no default."""
    from generalist.experts import get_expert

    short = name or get_task(task).default_expert
    if not short:
        return ""
    own = getattr(get_expert(task, short), "name", short)
    return own if own.partition("@")[0] == short.partition("@")[0] else short


def _is_measured(player: Player, table: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether the file holds a score of the same player over as many whole episodes or more."""
    entry = table.get(player.task, {})
    others = entry.get("experts", {})
    fields = others.get(player.name) if player.key == "experts" else entry.get(player.key)
    if fields is None:
        return False
    score = Score.from_dict(fields)
    first = score.seeds[0] == options.seed
    same = score.expert in ("", player.name)
    return first and same and score.max_steps is None and score.episodes >= options.episodes


def _command(player: Player, options: argparse.Namespace) -> str:
    """The command that measures this score alone."""
    who = RANDOM if player.name == RANDOM else "expert"
    parts = [
        f"python -m generalist.envs.measure {player.task} --who {who}",
        f"--episodes {options.episodes} --seed {options.seed}",
        f"--expert {options.expert}" if options.expert and who == "expert" else "",
        f"--max-steps {options.max_steps}" if options.max_steps else "",
    ]
    return " ".join(part for part in parts if part)


if __name__ == "__main__":
    sys.exit(main())
