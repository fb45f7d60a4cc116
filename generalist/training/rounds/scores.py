"""Scores on the way: training pauses, the model acts a few episodes, and training goes on.

Nothing that is trained on depends on it: with or without, and however it is interrupted, a run by
steps comes to the same weights.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generalist.errors import GeneralistError
from generalist.processes import process_pool, usable_cpus
from generalist.shards.strangers import tasks_matching
from generalist.training.checkpoint import RunState
from generalist.training.data import TrainingData, warn_of_unknown
from generalist.training.recipe import EvaluationRecipe, Recipe
from generalist.training.strategies.launch import StopSignal

FIRST_SEED = 1_900_000  # of no data, and not of `generalist evaluate`: that scores unseen episodes


@dataclass(frozen=True)
class Job:
    """The episodes of one task."""

    task: str
    checkpoint: Path
    episodes: int
    options: dict[str, Any]


class Cadence:
    """When scores are due: a function of where the run stands, so that resuming changes nothing."""

    def __init__(self, recipe: EvaluationRecipe, state: RunState) -> None:
        self._recipe = recipe
        self._periods = self._periods_at(state)

    def _periods_at(self, state: RunState) -> int:
        minutes = self._recipe.every_minutes
        return int(state.elapsed_seconds / 60 / minutes) if minutes else 0

    def is_due(self, state: RunState) -> bool:
        """Whether scores are due after this step; asked once a step."""
        before, self._periods = self._periods, self._periods_at(state)
        steps = self._recipe.every_steps
        return self._periods > before or bool(steps and state.step % steps == 0)


def evaluated_tasks(recipe: Recipe, data: TrainingData) -> list[str]:
    """Which tasks of the data are scored; warns of names and patterns that match none."""
    wanted = recipe.evaluation.tasks
    found = [
        task
        for task in tasks_matching(data.headers, wanted)
        if data.headers[task].layout["separator"] is not None  # documents are not acted in
    ]
    unmatched = [each for each in wanted if not fnmatch.filter(data.headers, each)]
    warn_of_unknown("evaluation.tasks", unmatched, data.headers)
    return found


def play_evaluation(
    recipe: Recipe,
    data: TrainingData,
    tasks: Sequence[str],
    checkpoint: Path,
    stop: StopSignal,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Act in tasks of the data, side by side; a task that fails is said and left out.

    Returns `score/TASK`, the mean of the task's metric, and `normalized_score/TASK` where random
    and expert are known; empty where `stop` was raised before the end.
    """
    jobs = [
        Job(
            task,
            checkpoint,
            recipe.evaluation.episodes,
            _options(recipe, data.headers[task].collection),
        )
        for task in tasks
    ]
    row: dict[str, float] = {}
    try:
        with process_pool(min(len(jobs), recipe.cores or usable_cpus())) as pool:
            running: dict[Future[dict[str, float]], Job] = {pool.submit(act, j): j for j in jobs}
            while running:
                if stop.raised:
                    raise _Stopped
                for ended in wait(running, timeout=0.5, return_when="FIRST_COMPLETED").done:
                    job = running.pop(ended)
                    try:
                        row |= ended.result()
                    except GeneralistError as error:
                        say(f"{job.task} could not be scored: {error}")
    except _Stopped:
        return {}
    except BrokenProcessPool:
        say("A process in which the model acted ended before it was done; scores are missing.")
    return dict(sorted(row.items()))


class _Stopped(Exception):
    """The run was asked to stop while jobs were running."""


def _options(recipe: Recipe, collection: dict[str, Any]) -> dict[str, Any]:
    """Options of the environment: those it was collected with, but for episodes that were cut."""
    cut = recipe.evaluation.max_steps
    return (collection.get("options") or {}) | ({} if cut is None else {"max_steps": cut})


def act(job: Job) -> dict[str, float]:
    """Play the episodes of a job; returns its part of the row."""
    import torch
    from transformers.utils import logging

    from generalist.acting.agent import Agent
    from generalist.acting.rollout import rollout

    torch.set_num_threads(1)
    logging.disable_progress_bar()  # of a second of loading weights, in the middle of the run's own
    agent = Agent.from_pretrained(job.checkpoint, task=job.task, device="cpu")
    try:
        result = rollout(
            agent, episodes=job.episodes, seed=FIRST_SEED, progress=False, **job.options
        )
    except GeneralistError as error:  # of a kind, and with arguments, that survive the way back
        raise GeneralistError(str(error)) from None
    row = {f"score/{job.task}": result.mean}
    if result.normalized is not None:
        row[f"normalized_score/{job.task}"] = result.normalized
    return row
