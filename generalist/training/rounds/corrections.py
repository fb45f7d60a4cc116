"""A round of DAgger within a run: the model acts, and the experts label every state.

Each task is a job that writes shards of the round. An interrupted round continues with the missing
episodes, if the weights are the same.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.errors import GeneralistError
from generalist.integrity import read_json, sealed, unsealed
from generalist.seeds import CORRECTIONS_SEED
from generalist.shards.files import write_json
from generalist.shards.manifest import Manifest
from generalist.shards.strangers import expert_of_header, tasks_matching
from generalist.training.checkpoint import RunState
from generalist.training.data import TrainingData, corrections_root, open_data, warn_of_unknown
from generalist.training.optimizer import progress
from generalist.training.ranks import Problem
from generalist.training.recipe import Recipe
from generalist.training.resume import bring_rounds
from generalist.training.rounds.jobs import Job, play_jobs, processes_for
from generalist.training.rounds.recipe import SEEDS_PER_ROUND, TaskCorrections
from generalist.training.rounds.round import Run, begin_of_round

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

SOURCE = "dagger"
ROUND_FILE = "round.json"  # hashes of the weights that act


class Corrections:
    """The round (see generalist.training.rounds.round) in which experts correct the model.

    Args:
        recipe: the recipe of the run.
        data: its demonstrations.

    Attributes:
        recipe: the recipe of the run.
        count: number of rounds in the run.

    Raises:
        UsageError: the recipe has to name an expert.
    """

    recipe: Recipe
    count: int

    def __init__(self, recipe: Recipe, data: TrainingData) -> None:
        self.recipe = recipe
        self.count = recipe.corrections.rounds if corrected_tasks(recipe, data) else 0

    def due(self, state: RunState) -> bool:
        """See Round. Rounds are due at equal distances of progress, from `corrections.begin` on."""
        if state.rounds >= self.count:
            return False
        next_at = begin_of_round(state.rounds, self.count, self.recipe.corrections.begin)
        return progress(self.recipe.schedule, state.step, state.elapsed_seconds) >= next_at

    def play(self, run: Run) -> bool:
        """See Round.

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
            run.state.rounds += 1
        return complete

    def _find(self, run: Run, checkpoint: Path) -> list[Job]:
        """The jobs of the present round with missing episodes."""
        number = run.state.rounds
        if forget_other_weights(corrections_root(self.recipe, number), checkpoint):
            run.log.say(f"Round {number + 1} was begun with other weights and is played anew.")
        jobs = list(_jobs(self.recipe, run.data, number))
        run.log.say(f"Round {number + 1} of {self.count}: acting in {len(jobs)} tasks.")
        return jobs

    def _tell(self, run: Run, job: Job, outcome: Any) -> None:
        """Print the outcome of a job; raise GeneralistError where it failed."""
        if isinstance(outcome, Problem):
            raise GeneralistError(
                f"Round {run.state.rounds + 1} of corrections failed in {job.task}: "
                f"{outcome.message} The same command continues it."
            )
        run.log.say(outcome)

    def rows(self, state: RunState) -> TrainingData | None:
        """See Round. The data are the demonstrations and the corrections of all rounds so far."""
        return open_data(self.recipe, state.rounds, state.improvements) if state.rounds else None

    def restore(self, run: Run, checkpoint: Path) -> None:
        """See Round. Copies the corrections of another run's checkpoint into this run's folder."""
        run.ranks.on_main(
            lambda: bring_rounds(
                checkpoint, self.recipe, run.state.rounds, corrections_root, "corrections"
            )
        )


def forget_other_weights(folder: Path, checkpoint: Path) -> bool:
    """Remove the episodes of a round if other weights played them.

    They may come from a run whose checkpoints are gone.

    Args:
        folder: folder of the round.
        checkpoint: folder of the weights that act now.

    Returns:
        Whether there were such episodes.
    """
    weights = sorted(checkpoint.rglob("*.safetensors"))  # embedders lie in a folder of their own
    mark = {path.relative_to(checkpoint).as_posix(): _sha256(path) for path in weights}
    path = folder / ROUND_FILE
    with suppress(GeneralistError):  # the file is damaged or missing
        if unsealed(read_json(path), path) == mark:
            return False
    begun = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(path, sealed(mark))
    return begun


def corrected_tasks(recipe: Recipe, data: TrainingData) -> dict[str, TaskCorrections]:
    """The tasks of the data to correct, in the recipe's order, and the episodes of each.

    A full name comes before a pattern that stands for it too; else the first pattern counts. Warns
    of names and patterns without a match.

    Raises:
        UsageError: the recipe has to name an expert.
    """
    given, found = recipe.corrections.tasks, {}
    shown = [task for task in data.headers if task not in data.undemonstrated]
    for name, wanted in given.items():
        matches = tasks_matching(shown, [name])
        if not matches:
            warn_of_unknown("corrections.tasks", [name], shown)
        for task in matches:
            if task == name or (task not in found and task not in given):
                found[task] = wanted
    for task, wanted in found.items():
        if wanted.expert is None:
            expert_of_header(task, data.headers[task].collection)
    return found


def _jobs(recipe: Recipe, data: TrainingData, number: int) -> Iterator[Job]:
    """The jobs of the tasks that lack episodes of a round."""
    for task, wanted in corrected_tasks(recipe, data).items():
        folder = corrections_root(recipe, number) / task
        if _episodes_in(folder) >= wanted.episodes:
            continue
        play = partial(
            play_corrections,
            folder=folder,
            header=asdict(data.headers[task]),
            episodes=wanted.episodes,
            seed=first_seed(number),
            max_steps=wanted.max_steps,
            expert=wanted.expert or expert_of_header(task, data.headers[task].collection),
        )
        yield Job(task, play)


def first_seed(number: int) -> int:
    """Seed of the first episode of each task in round `number`, counted from 0."""
    return CORRECTIONS_SEED + number * SEEDS_PER_ROUND


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _episodes_in(folder: Path) -> int:
    """The number of episodes in a dataset folder."""
    there = (folder / "dataset.json").exists()
    return Manifest.read(folder).counts()["episodes"] if there else 0


def play_corrections(
    agent: Agent,
    *,
    folder: Path,
    header: dict[str, Any],
    episodes: int,
    seed: int,
    max_steps: int | None,
    expert: str | None,
) -> str:
    """Play the missing episodes of a task in a round, and write them as shards.

    Args:
        agent: the agent, in its task.
        folder: folder of the shards.
        header: header of the demonstrations; the corrections have the same layout.
        episodes: number of episodes in the round.
        seed: seed of the first episode of the round.
        max_steps: cut (truncate) episodes there.
        expert: name of the expert that labels; None for the task's default.

    Returns:
        A line that sums up the episodes.
    """
    from generalist.acting.rollout import dagger_episodes
    from generalist.collecting.encode import encode_episode
    from generalist.shards.manifest import DatasetHeader
    from generalist.shards.shards import ShardWriter

    dataset = DatasetHeader(**header)
    with ShardWriter(folder, dataset) as shards:
        written = shards.episodes_written
        played = dagger_episodes(
            agent,
            agent.task,
            episodes=episodes - written,
            seed=seed + written,
            expert=expert,
            max_steps=max_steps,
            progress=False,
            **(dataset.collection.get("options") or {}),
        )
        for episode in played:  # in the order of their seeds
            shards.add(encode_episode(episode, agent.processor, agent.layout, SOURCE))
    mean = sum(episode.return_ for episode in played) / len(played)
    steps = sum(len(episode.rewards) for episode in played)
    return f"  {agent.task}: {len(played)} episodes, {steps:,} steps, mean return {mean:.4g}"
