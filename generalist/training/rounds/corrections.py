"""A round of DAgger within a run: the model acts, the experts say what they would have done.

Tasks are jobs of their own, each into shards of the round. A round that was cut short goes on with
the episodes that are missing, as long as the same weights act.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.errors import GeneralistError
from generalist.integrity import read_json, sealed, unsealed
from generalist.shards.files import write_json
from generalist.shards.manifest import Manifest
from generalist.shards.strangers import expert_of_header
from generalist.training.data import TrainingData, corrections_root, warn_of_unknown
from generalist.training.ranks import Problem, Ranks
from generalist.training.recipe import SEEDS_PER_ROUND, Recipe
from generalist.training.rounds.jobs import Job, play_jobs, processes_for
from generalist.training.strategies.launch import StopSignal

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

FIRST_SEED = 900_000  # the last block of seeds for data; no shipped dataset plays in it
SOURCE = "dagger"
ROUND_FILE = "round.json"  # which weights play it


def play_round(
    recipe: Recipe,
    data: TrainingData,
    checkpoint: Path,
    number: int,
    *,
    ranks: Ranks,
    stop: StopSignal,
    say: Callable[[str], None],
) -> bool:
    """Play what is missing of round `number`, from 0; False where `stop` was raised before its end.

    Raises GeneralistError where a job failed.
    """

    def find() -> list[Job]:
        if forget_other_weights(corrections_root(recipe, number), checkpoint):
            say(f"Round {number + 1} was begun with other weights and is played anew.")
        jobs = list(_jobs(recipe, data, number))
        say(f"Round {number + 1} of {recipe.corrections.rounds}: acting in {len(jobs)} tasks.")
        return jobs

    def tell(job: Job, outcome: Any) -> None:
        if isinstance(outcome, Problem):
            raise GeneralistError(
                f"Round {number + 1} of corrections failed in {job.task}: {outcome.message} "
                "The same command continues it."
            )
        say(outcome)

    processes = processes_for(ranks, recipe.cores)
    return play_jobs(find, checkpoint, ranks=ranks, processes=processes, stop=stop, tell=tell)


def forget_other_weights(folder: Path, checkpoint: Path) -> bool:
    """Remove a round that other weights have begun; True where there was one.

    It may be what is left of a run whose checkpoints are gone.
    """
    mark = {path.name: _sha256(path) for path in sorted(checkpoint.glob("*.safetensors"))}
    path = folder / ROUND_FILE
    with suppress(GeneralistError):  # it is damaged, or not there
        if unsealed(read_json(path), path) == mark:
            return False
    begun = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(path, sealed(mark))
    return begun


def corrected_tasks(recipe: Recipe, data: TrainingData) -> list[str]:
    """Which tasks of the data are corrected; warns of those that the data do not hold.

    Raises UsageError where the recipe has to name an expert.
    """
    tasks = list(recipe.corrections.tasks)
    warn_of_unknown("corrections.tasks", tasks, data.headers)
    found = [task for task in tasks if task in data.headers]
    for task in found:
        if recipe.corrections.tasks[task].expert is None:
            expert_of_header(task, data.headers[task].collection)
    return found


def _jobs(recipe: Recipe, data: TrainingData, number: int) -> Iterator[Job]:
    """What is left to be played of a round."""
    for task, wanted in recipe.corrections.tasks.items():
        folder = corrections_root(recipe, number) / task
        if task not in data.headers or _episodes_in(folder) >= wanted.episodes:
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
    """Seed of the first episode of each task in round `number`, from 0."""
    return FIRST_SEED + number * SEEDS_PER_ROUND


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _episodes_in(folder: Path) -> int:
    """How many episodes a dataset folder holds."""
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
    """Act, label, write what is missing of a task's episodes; returns what to say about it.

    Args:
        agent: acts in its task.
        folder: of the round's shards of the task.
        header: of the demonstrations, whose layout the corrections share.
        episodes: how many the round has.
        seed: of the first.
        max_steps: cuts them there.
        expert: who labels; None for the task's default.
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
