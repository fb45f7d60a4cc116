"""Scores during a run: training pauses while the model plays a few episodes.

Scores change nothing in training. With or without them, and however it is interrupted, a run by
steps ends with the same weights.
"""

from __future__ import annotations

import fnmatch
import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.integrity import write_folder
from generalist.seeds import RUN_SCORES_SEED
from generalist.shards.files import write_json
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


BEST = "best"  # folder of the model with the best scores so far
BEST_NOTE = "best.json"  # its score and step


class Scores:
    """The round (see generalist.training.rounds.round) that scores the present model.

    Args:
        recipe: the recipe of the run.
        data: the data of the run, which name tasks and options of environments.

    Attributes:
        recipe: the recipe of the run.
        tasks: names of the tasks to score.
    """

    recipe: Recipe
    tasks: list[str]

    _periods: tuple[int, int] | None  # periods of minutes and of steps at the last call of `due`

    def __init__(self, recipe: Recipe, data: TrainingData) -> None:
        self.recipe = recipe
        self.tasks = evaluated_tasks(recipe, data)
        self._periods = None

    def due(self, state: RunState) -> bool:
        """See Round. A round is due when a period ended since the last call; resuming adds none."""
        cadence = self.recipe.evaluation
        minutes, steps = cadence.every_minutes, cadence.every_steps
        now = (
            int(state.elapsed_seconds / 60 / minutes) if minutes else 0,
            state.step // steps if steps else 0,
        )
        before, self._periods = self._periods or now, now
        return bool(self.tasks) and (now[0] > before[0] or now[1] > before[1])

    def play(self, run: Run) -> bool:
        """See Round. A task that fails is reported and left out.

        Logs `score/TASK`, the mean of the task's metric, and `normalized_score/TASK` where the
        scores of random play and expert are known. Logs nothing where the run was stopped.
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
            if complete and self.recipe.evaluation.keep_best and run.ranks.main:
                self._keep_if_best(run, checkpoint, row)
        if complete:
            run.log.scores(run.state, dict(sorted(row.items())))
        return complete

    def _keep_if_best(self, run: Run, checkpoint: Path, row: dict[str, float]) -> None:
        """Copy the model to `best/` where its scores are the best so far."""
        folder, note = (self.recipe.output_dir / name for name in (BEST, BEST_NOTE))
        score = mean_score(row, len(self.tasks))
        if score is None:
            run.log.say("No scores to compare: some tasks have no normalised score. Kept nothing.")
            return
        before = json.loads(note.read_text())["score"] if note.is_file() else -math.inf
        if score <= before:
            return
        write_folder(folder, partial(_copy_into, checkpoint))
        write_json(note, {"score": score, "step": run.state.step})

    def _find(self, run: Run) -> list[Job]:
        """One job per task."""
        episodes = self.recipe.evaluation.episodes
        return [
            Job(task, partial(score, episodes=episodes, options=self._options(run.data, task)))
            for task in self.tasks
        ]

    def _tell(self, run: Run, row: dict[str, float], job: Job, outcome: Any) -> None:
        """Add the outcome of a job to the row, or report its failure."""
        if isinstance(outcome, Problem):
            run.log.say(f"{job.task} could not be scored: {outcome.message}")
        else:
            row.update(outcome)

    def rows(self, state: RunState) -> None:
        """See Round. Scores do not change the data."""

    def restore(self, run: Run, checkpoint: Path) -> None:
        """See Round. There is nothing to restore."""

    def _options(self, data: TrainingData, task: str) -> dict[str, Any]:
        """Options of the environment: those of the data, with the recipe's `max_steps`, if any."""
        cut = self.recipe.evaluation.max_steps
        options = data.headers[task].collection.get("options") or {}
        return options | ({} if cut is None else {"max_steps": cut})


def _copy_into(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def mean_score(row: dict[str, float], tasks: int) -> float | None:
    """The mean normalised score of a row; of a single task the score; None where some lack one."""
    for prefix in ("normalized_score/", "score/"):
        found = [value for name, value in row.items() if name.startswith(prefix)]
        if len(found) == tasks and (tasks == 1 or prefix == "normalized_score/"):
            return sum(found) / tasks
    return None


def evaluated_tasks(recipe: Recipe, data: TrainingData) -> list[str]:
    """The tasks of the data to score; warns of names and patterns without a match."""
    wanted = recipe.evaluation.tasks
    found = [
        task
        for task in tasks_matching(data.headers, wanted)
        if not Layout.from_dict(data.layouts[task]).is_document  # documents are not played
    ]
    unmatched = [each for each in wanted if not fnmatch.filter(data.headers, each)]
    warn_of_unknown("evaluation.tasks", unmatched, data.headers)
    return found


def score(agent: Agent, *, episodes: int, options: dict[str, Any]) -> dict[str, float]:
    """Score an agent in its task.

    Args:
        agent: the agent.
        episodes: number of episodes.
        options: options of the environment.

    Returns:
        The task's part of the row of the log.
    """
    from generalist.acting.rollout import rollout

    result = rollout(agent, episodes=episodes, seed=RUN_SCORES_SEED, progress=False, **options)
    row = {f"score/{agent.task}": result.mean}
    if result.normalized is not None:
        row[f"normalized_score/{agent.task}"] = result.normalized
    return row
