"""A round of self-improvement within a run: the model attempts tasks, and its successes are data.

Each task is a job. It writes what is kept of the attempts as shards of the round, then the outcome,
which failed attempts count in too. A job without an outcome is played anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.acting.attempts import Terms, attempt
from generalist.errors import GeneralistError, UsageError
from generalist.integrity import read_json, sealed, unsealed
from generalist.seeds import IMPROVEMENT_SEED
from generalist.settings import setting_of
from generalist.shards.files import write_json
from generalist.shards.manifest import DatasetHeader
from generalist.shards.strangers import tasks_matching
from generalist.tokenization.layout import Layout
from generalist.training.checkpoint import RunState
from generalist.training.data import TrainingData, improvement_root, open_data, warn_of_unknown
from generalist.training.optimizer import progress
from generalist.training.ranks import Problem
from generalist.training.recipe import Recipe
from generalist.training.resume import bring_rounds
from generalist.training.rounds.corrections import forget_other_weights
from generalist.training.rounds.jobs import Job, play_jobs, processes_for
from generalist.training.rounds.recipe import SEEDS_PER_ROUND, TaskImprovement
from generalist.training.rounds.round import Run, begin_of_round

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

OUTCOME_FILE = "outcome.json"  # of a task in a round; written last


class Improvement:
    """The round (see generalist.training.rounds.round) in which the model improves by itself.

    Args:
        recipe: the recipe of the run.
        data: its demonstrations.

    Attributes:
        recipe: the recipe of the run.
        count: number of rounds in the run.

    Raises:
        UsageError: a task cannot be improved in as the recipe has it.
    """

    recipe: Recipe
    count: int

    def __init__(self, recipe: Recipe, data: TrainingData) -> None:
        self.recipe = recipe
        tasks = improved_tasks(recipe, data)
        for task, wanted in tasks.items():
            _terms(recipe, data, task, wanted)  # says what is wrong with them
        self.count = recipe.improvement.rounds if tasks else 0

    def due(self, state: RunState) -> bool:
        """See Round. Rounds are due at equal distances of progress, from `begin` on."""
        if state.improvements >= self.count:
            return False
        next_at = begin_of_round(state.improvements, self.count, self.recipe.improvement.begin)
        return progress(self.recipe.schedule, state.step, state.elapsed_seconds) >= next_at

    def play(self, run: Run) -> bool:
        """See Round. Logs `improvement/WHAT/TASK`, also where no attempt succeeded.

        Raises:
            GeneralistError: a job failed.
        """
        run.save()
        with run.exported() as checkpoint:
            complete = play_jobs(
                partial(self._find, run, checkpoint),
                checkpoint,
                ranks=run.ranks,
                processes=processes_for(run.ranks, self.recipe.cores),
                stop=run.stop,
                tell=partial(self._tell, run),
            )
        if complete:
            if run.ranks.main:  # of all jobs, those before an interruption too
                run.log.row(run.state, self._row(run.data, run.state.improvements))
            run.state.improvements += 1
        return complete

    def _find(self, run: Run, checkpoint: Path) -> list[Job]:
        """The jobs of the present round that have no outcome."""
        number = run.state.improvements
        if forget_other_weights(improvement_root(self.recipe, number), checkpoint):
            run.log.say(
                f"Round {number + 1} of improvement was begun with other weights and is played "
                "anew."
            )
        jobs = list(_jobs(self.recipe, run.data, number))
        run.log.say(
            f"Round {number + 1} of {self.count} of improvement: attempts at {len(jobs)} tasks."
        )
        return jobs

    def _tell(self, run: Run, job: Job, outcome: Any) -> None:
        """Print the outcome of a job; raise GeneralistError where it failed."""
        if isinstance(outcome, Problem):
            raise GeneralistError(
                f"Round {run.state.improvements + 1} of improvement failed in {job.task}: "
                f"{outcome.message} The same command continues it."
            )
        run.log.say(in_words(job.task, outcome))

    def _row(self, data: TrainingData, number: int) -> dict[str, float]:
        """The row of the log for a round."""
        row: dict[str, float] = {}
        for task in improved_tasks(self.recipe, data):
            path = improvement_root(self.recipe, number) / task / OUTCOME_FILE
            counts = unsealed(read_json(path), path)
            row |= {f"improvement/{name}/{task}": count for name, count in counts.items()}
            row[f"improvement/success/{task}"] = counts["successes"] / counts["attempts"]
        return row

    def rows(self, state: RunState) -> TrainingData | None:
        """See Round. The data are those before, and what was kept of all rounds so far."""
        if not state.improvements:
            return None
        return open_data(self.recipe, state.rounds, state.improvements)

    def restore(self, run: Run, checkpoint: Path) -> None:
        """See Round. Copies what another run's checkpoint was trained on into this run's folder."""
        run.ranks.on_main(
            lambda: bring_rounds(
                checkpoint, self.recipe, run.state.improvements, improvement_root, "attempts"
            )
        )


def improved_tasks(recipe: Recipe, data: TrainingData) -> dict[str, TaskImprovement]:
    """The tasks to improve in, in the recipe's order, and the attempts at each.

    A full name comes before a pattern that stands for it too; else the first pattern counts.
    Documents match no pattern. Warns of patterns without a match.
    """
    given, found = recipe.improvement.tasks, {}
    played = [task for task in data.headers if not Layout.from_dict(data.layouts[task]).is_document]
    for name, wanted in given.items():
        matches = tasks_matching(played, [name])
        if not matches:
            warn_of_unknown("improvement.tasks", [name], data.headers)
        for task in matches:
            if task == name or (task not in found and task not in given):
                found[task] = wanted
    return found


def _terms(recipe: Recipe, data: TrainingData, task: str, wanted: TaskImprovement) -> Terms:
    """How attempts at a task are made and judged.

    Raises:
        UsageError: all attempts would be the same, or the judge has nothing to go by.
    """
    improvement, asked = recipe.improvement, f"improvement.tasks.{task}"
    temperature = improvement.temperature
    if temperature is None:
        temperature = setting_of(recipe.acting.temperature, task)
    assert temperature is not None
    if wanted.attempts > 1 and not temperature:
        raise UsageError(
            f"{asked} has {wanted.attempts} attempts at temperature 0, which are all the same; set "
            "improvement.temperature above 0, or attempts to 1."
        )
    _check_success(task, wanted)
    by_value = improvement.judge == "value"
    return Terms(
        attempts=wanted.attempts,
        least_return=wanted.least_return,
        least_value=_least_value(recipe, data, task) if by_value else None,
        keep=improvement.keep,
        last_steps=improvement.last_steps,
        named_first=improvement.named_first and not by_value,
        hindsight=improvement.hindsight,
        temperature=temperature,
        max_steps=wanted.max_steps,
    )


def _least_value(recipe: Recipe, data: TrainingData, task: str) -> float:
    """The return that the model has to expect at the last step of a success."""
    if task not in data.returns:
        raise UsageError(
            f"improvement.judge is value, and the run learns no value of {task}: it takes the "
            "section `returns`, and demonstrations of the task whose returns differ. Or let the "
            "checker judge."
        )
    worst, best = data.returns[task].range
    return worst + recipe.improvement.least_value * (best - worst)


def _check_success(task: str, wanted: TaskImprovement) -> None:
    """Raise UsageError where nothing says what a success is."""
    from generalist.envs import get_task

    if get_task(task).metric == "return" and wanted.least_return is None:
        raise UsageError(
            f"The score of {task} is its return, so improvement.tasks.{task} has to say which "
            "return is a success: least_return."
        )


def _jobs(recipe: Recipe, data: TrainingData, number: int) -> Iterator[Job]:
    """The jobs of the tasks that have no outcome in a round."""
    for task, wanted in improved_tasks(recipe, data).items():
        folder = improvement_root(recipe, number) / task
        if (folder / OUTCOME_FILE).is_file():
            continue
        header = data.headers[task]
        options = {**(header.collection.get("options") or {}), **wanted.options}
        made = {"options": options, "source": "improvement"}
        play = partial(
            play_attempts,
            folder=folder,
            header=asdict(replace(header, collection=made)),
            episodes=wanted.episodes,
            seed=first_seed(number),
            terms=_terms(recipe, data, task, wanted),
        )
        yield Job(task, play)


def first_seed(number: int) -> int:
    """Seed of the first proposal of each task in round `number`, counted from 0."""
    return IMPROVEMENT_SEED + number * SEEDS_PER_ROUND


def play_attempts(
    agent: Agent,
    *,
    folder: Path,
    header: dict[str, Any],
    episodes: int,
    seed: int,
    terms: Terms,
) -> dict[str, int]:
    """Attempt what is proposed in a task, and write what is kept as shards.

    Args:
        agent: the agent, in its task.
        folder: folder of the task in the round; what an interruption left there is removed.
        header: of the shards; its layout is that of the task's demonstrations, if any.
        episodes: number of proposals.
        seed: of the first one.
        terms: how attempts are made and judged.

    Returns:
        The counts of the outcome.
    """
    from generalist.collecting.encode import encode_episode
    from generalist.shards.shards import ShardWriter

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    dataset = DatasetHeader(**header)
    found = attempt(
        agent,
        agent.task,
        range(seed, seed + episodes),
        terms,
        options=dataset.collection["options"],
    )
    if found.episodes:
        with ShardWriter(folder, dataset) as shards:
            for episode in found.episodes:
                source = episode.info["source"]
                shards.add(encode_episode(episode, agent.processor, agent.layout, source))
    write_json(folder / OUTCOME_FILE, sealed(found.counts()))
    return found.counts()


def in_words(task: str, counts: Mapping[str, int]) -> str:
    """A line that sums up the attempts at a task."""
    line = (
        f"  {task}: {counts['successes']} of {counts['attempts']} attempts succeeded, at "
        f"{counts['solved']} of {counts['proposals']} proposals; kept {counts['kept']}"
    )
    if counts["hindsight"]:
        line += f", and {counts['hindsight']} in hindsight"
    if counts["agreed"] < counts["attempts"]:
        line += f"; the environment agrees with {counts['agreed']} judgements"
    return f"{line}."
