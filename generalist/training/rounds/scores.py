"""Scores on the way: training pauses, the model acts a few episodes, and training goes on.

Nothing that is trained on depends on it: with or without, and however it is interrupted, a run by
steps comes to the same weights.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.shards.strangers import tasks_matching
from generalist.tokenization.layout import Layout
from generalist.training.checkpoint import RunState
from generalist.training.data import TrainingData, warn_of_unknown
from generalist.training.ranks import Problem, Ranks
from generalist.training.recipe import EvaluationRecipe, Recipe
from generalist.training.rounds.jobs import Job, play_jobs, processes_for
from generalist.training.strategies.launch import StopSignal

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

FIRST_SEED = 1_900_000  # of no data, and not of `generalist evaluate`: that scores unseen episodes


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
        if not Layout.from_dict(data.layouts[task]).is_document  # which nobody acts in
    ]
    unmatched = [each for each in wanted if not fnmatch.filter(data.headers, each)]
    warn_of_unknown("evaluation.tasks", unmatched, data.headers)
    return found


def play_evaluation(
    recipe: Recipe,
    data: TrainingData,
    tasks: Sequence[str],
    checkpoint: Path,
    *,
    ranks: Ranks,
    stop: StopSignal,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Act in tasks of the data, side by side; a task that fails is said and left out.

    Returns `score/TASK`, the mean of the task's metric, and `normalized_score/TASK` where random
    and expert are known; empty where `stop` was raised before the end.
    """
    row: dict[str, float] = {}

    def find() -> list[Job]:
        return [
            Job(
                task,
                partial(
                    score,
                    episodes=recipe.evaluation.episodes,
                    options=_options(recipe, data.headers[task].collection),
                ),
            )
            for task in tasks
        ]

    def tell(job: Job, outcome: Any) -> None:
        if isinstance(outcome, Problem):
            say(f"{job.task} could not be scored: {outcome.message}")
        else:
            row.update(outcome)

    processes = processes_for(ranks, recipe.cores)
    complete = play_jobs(find, checkpoint, ranks=ranks, processes=processes, stop=stop, tell=tell)
    return dict(sorted(row.items())) if complete else {}


def _options(recipe: Recipe, collection: dict[str, Any]) -> dict[str, Any]:
    """Options of the environment: those it was collected with, but for episodes that were cut."""
    cut = recipe.evaluation.max_steps
    return (collection.get("options") or {}) | ({} if cut is None else {"max_steps": cut})


def score(agent: Agent, *, episodes: int, options: dict[str, Any]) -> dict[str, float]:
    """Play episodes of the agent's task; returns its part of the row.

    options: of the environment.
    """
    from generalist.acting.rollout import rollout

    result = rollout(agent, episodes=episodes, seed=FIRST_SEED, progress=False, **options)
    row = {f"score/{agent.task}": result.mean}
    if result.normalized is not None:
        row[f"normalized_score/{agent.task}"] = result.normalized
    return row
