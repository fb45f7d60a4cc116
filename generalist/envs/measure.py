"""Measure what a random policy and the expert score in each task, and write it to scores.json.

    python -m generalist.envs.measure [TASK ...] [--episodes 20] [--seed 1000000]
        [--who expert] [--expert planner@256] [--max-steps 4500] [--log episodes.jsonl] [--resume]

The seeds lie far above those of collected data. A score is the mean over the episodes with its
standard error; a success rate for tasks that are scored so. An expert other than the task's default
one goes into the log alone: scores.json holds what agents are compared with. Of a planner it says
which budget the score is of.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
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


@dataclass(frozen=True)
class Trial:
    """What to measure: who plays which seeds of a task, and where its episodes are logged.

    who: "random" or the name of an expert.
    log: a file of JSON lines, one an episode; those that it holds are not played again.
    """

    task: str
    who: str
    seeds: range
    max_steps: int | None = None
    log: Path | None = None

    def episodes(self) -> list[dict[str, Any]]:
        """A record of each seed's episode: score, steps, seconds, and the trial's own facts."""
        known = {record["seed"]: record for record in self._logged()}
        env = None
        for seed in tqdm(
            [seed for seed in self.seeds if seed not in known],
            desc=f"{self.task} {self.who}",
            unit="episode",
            leave=False,
            disable=None,
        ):
            env = env or make(self.task)
            known[seed] = self._play(env, seed)
            if self.log is not None:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(known[seed]) + "\n")
        if env is not None:
            env.close()
        return [known[seed] for seed in self.seeds]

    def _facts(self) -> dict[str, Any]:
        return {"task": self.task, "who": self.who, "max_steps": self.max_steps}

    def _logged(self) -> list[dict[str, Any]]:
        if self.log is None or not self.log.exists():
            return []
        facts = self._facts().items()
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [record for record in map(json.loads, lines) if facts <= record.items()]

    def _play(self, env: gymnasium.Env, seed: int) -> dict[str, Any]:
        from generalist.experts import collect_episode, get_expert, random_episode

        begun, cpu = time.perf_counter(), time.process_time()
        if self.who == "random":
            episode = random_episode(env, self.task, seed, self.max_steps)
        else:
            expert = get_expert(self.task, self.who)
            episode = collect_episode(env, self.task, expert, seed, max_steps=self.max_steps)
        return {
            **self._facts(),
            "seed": seed,
            "score": get_task(self.task).score_of(episode.return_, episode.success),
            "steps": episode.steps,
            "seconds": round(time.perf_counter() - begun, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
        }


def measure(trial: Trial, command: str) -> Score:
    """The mean score of a trial's episodes."""
    scores = [record["score"] for record in trial.episodes()]
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return Score(
        mean=round(statistics.fmean(scores), 4),
        stderr=round(spread / math.sqrt(len(scores)), 4),
        episodes=len(scores),
        seeds=(trial.seeds.start, trial.seeds.stop),
        date=datetime.date.today().isoformat(),
        command=command,
        expert="" if trial.who == "random" else trial.who,
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
    parser.add_argument("tasks", nargs="*", help="default: all whose expert is no planner")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first episode")
    parser.add_argument("--who", choices=["random", "expert"], help="only one of the two")
    parser.add_argument("--expert", help="by name; default: the task's default expert")
    parser.add_argument("--max-steps", type=int, help="cut episodes there")
    parser.add_argument("--log", type=Path, help="JSON lines of episodes, to go on from")
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
    if options.max_steps is not None and options.max_steps < 1:
        raise UsageError(f"--max-steps must be at least 1, got {options.max_steps}.")
    seeds = range(options.seed, options.seed + options.episodes)
    tasks = options.tasks or [
        name for name in registered_names() if get_task(name).default_expert not in ("", "planner")
    ]
    for name in tasks:
        if is_document_task(name):
            raise UsageError(f"{name} is documents; there are no episodes to measure.")
    measured = _read(options.out)
    for name in tasks:
        command = _command(name, options)
        parties = _parties(name, options)
        if options.resume:
            there = measured.get(name, {})
            parties = {
                role: who
                for role, who in parties.items()
                if there.get(role, {}).get("command") != command
            }
            if not parties:
                continue
        scores = {
            role: measure(Trial(name, who, seeds, options.max_steps, options.log), command)
            for role, who in parties.items()
        }
        said = ", ".join(
            f"{s.expert or who} {s.mean:.2f} +/- {s.stderr:.2f}" for who, s in scores.items()
        )
        if "expert" in scores and not _same(scores["expert"].expert, _default_expert(name)):
            del scores["expert"]
        store(name, scores, options.out)
        print(f"{name}: {said} ({options.episodes} episodes)", flush=True)
    return 0


def _parties(task: str, options: argparse.Namespace) -> dict[str, str]:
    """Whom to measure: "random" and "expert", and which expert that is."""
    parties = {}
    if options.who != "expert":
        parties["random"] = "random"
    expert = options.expert or _default_expert(task)
    if options.who != "random" and expert:
        parties["expert"] = expert
    return parties


def _default_expert(task: str) -> str:
    """The name of the task's default expert, a planner's with its budget; "" where it has none."""
    from generalist.experts import get_expert

    short = get_task(task).default_expert
    return getattr(get_expert(task), "name", short) if short else ""


def _same(one: str, other: str) -> bool:
    """True for an expert's name with one budget and with another."""
    return one.partition("@")[0] == other.partition("@")[0]


def _command(task: str, options: argparse.Namespace) -> str:
    """The command that measures this task alone."""
    parts = [
        f"python -m generalist.envs.measure {task}",
        f"--episodes {options.episodes} --seed {options.seed}",
        f"--expert {options.expert}" if options.expert else "",
        f"--max-steps {options.max_steps}" if options.max_steps else "",
    ]
    return " ".join(part for part in parts if part)


if __name__ == "__main__":
    sys.exit(main())
