"""Scores on the way: training pauses, the model acts a few episodes, and training goes on.

Nothing that is trained on depends on it: with or without, and however it is interrupted, a run by
steps comes to the same weights.
"""

from __future__ import annotations

import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.seeds import RUN_SCORES_SEED
from generalist.shards.strangers import tasks_matching
from generalist.tokenization.layout import Layout
from generalist.training.checkpoint import RunState
from generalist.training.data import TrainingData, warn_of_unknown
from generalist.training.ranks import Problem
from generalist.training.recipe import Recipe
from generalist.training.rounds.jobs import Job, play_jobs, processes_for
from generalist.training.rounds.round import Run

if TYPE_CHECKING:
    from generalist.acting.agent import Agent


class Scores:
    """A round (see generalist.training.rounds.round) that scores the model as it stands.

    Args:
        recipe: of the run.
        data: which tasks there are, and how they are played.
    """

    recipe: Recipe
    tasks: list[str]

    _periods: tuple[int, int] | None  # of minutes and of steps, where it was last asked

    def __init__(self, recipe: Recipe, data: TrainingData) -> None:
        self.recipe = recipe
        self.tasks = evaluated_tasks(recipe, data)
        self._periods = None

    def due(self, state: RunState) -> bool:
        """See Round: where a period has ended since it was last asked, so resuming adds none."""
        cadence = self.recipe.evaluation
        minutes, steps = cadence.every_minutes, cadence.every_steps
        now = (
            int(state.elapsed_seconds / 60 / minutes) if minutes else 0,
            state.step // steps if steps else 0,
        )
        before, self._periods = self._periods or now, now
        return bool(self.tasks) and (now[0] > before[0] or now[1] > before[1])

    def play(self, run: Run) -> bool:
        """See Round. A task that fails is said and left out.

        Logs `score/TASK`, the mean of the task's metric, and `normalized_score/TASK` where random
        and expert are known; nothing where it was stopped.
        """
        row: dict[str, float] = {}
        with run.exported() as checkpoint:
            complete = play_jobs(
                partial(self._find, run),
                checkpoint,
                ranks=run.ranks,
                processes=processes_for(run.ranks, self.recipe.cores),
                stop=run.stop,
                tell=partial(self._tell, run, row),
            )
        if complete:
            run.log.scores(run.state, dict(sorted(row.items())))
        return complete

    def _find(self, run: Run) -> list[Job]:
        """A job for each task."""
        episodes = self.recipe.evaluation.episodes
        return [
            Job(task, partial(score, episodes=episodes, options=self._options(run.data, task)))
            for task in self.tasks
        ]

    def _tell(self, run: Run, row: dict[str, float], job: Job, outcome: Any) -> None:
        """Add what came of a job to the row."""
        if isinstance(outcome, Problem):
            run.log.say(f"{job.task} could not be scored: {outcome.message}")
        else:
            row.update(outcome)

    def rows(self, state: RunState) -> None:
        """See Round: what is trained on does not depend on scores."""

    def restore(self, run: Run, checkpoint: Path) -> None:
        """See Round: there is nothing to find again."""

    def _options(self, data: TrainingData, task: str) -> dict[str, Any]:
        """Of the environment: those it was collected with, but for episodes that are cut."""
        cut = self.recipe.evaluation.max_steps
        options = data.headers[task].collection.get("options") or {}
        return options | ({} if cut is None else {"max_steps": cut})


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


def score(agent: Agent, *, episodes: int, options: dict[str, Any]) -> dict[str, float]:
    """Play episodes of the agent's task; returns its part of the row.

    options: of the environment.
    """
    from generalist.acting.rollout import rollout

    result = rollout(agent, episodes=episodes, seed=RUN_SCORES_SEED, progress=False, **options)
    row = {f"score/{agent.task}": result.mean}
    if result.normalized is not None:
        row[f"normalized_score/{agent.task}"] = result.normalized
    return row
