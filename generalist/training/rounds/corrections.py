"""A round of DAgger within a run: the model acts, the experts say what they would have done.

Tasks are played side by side, one to a process, into shards of the round's own. A round that was
cut short goes on with the episodes that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from generalist.errors import GeneralistError
from generalist.processes import process_pool, usable_cpus
from generalist.shards.manifest import Manifest
from generalist.shards.strangers import expert_of_header
from generalist.training.data import TrainingData, corrections_root, warn_of_unknown
from generalist.training.recipe import Recipe
from generalist.training.strategies.launch import StopSignal

FIRST_SEED = 900_000  # the last block of seeds for data; no shipped dataset plays in it
SOURCE = "dagger"
_SEEDS_PER_ROUND = 1_000


@dataclass(frozen=True)
class Job:
    """The episodes of one task in one round."""

    task: str
    checkpoint: Path
    folder: Path
    header: dict[str, Any]  # of the demonstrations, whose layout these share
    episodes: int
    max_steps: int | None
    expert: str | None  # None: the task's default
    seed: int


def play_round(
    recipe: Recipe,
    data: TrainingData,
    checkpoint: Path,
    number: int,
    stop: StopSignal,
    say: Callable[[str], None],
) -> bool:
    """Play what is missing of round `number`, from 0; False where `stop` was raised before its end.

    Raises GeneralistError where a process ended before it was done.
    """
    jobs = [job for job in _jobs(recipe, data, checkpoint, number) if not _is_there(job)]
    say(f"Round {number + 1} of {recipe.corrections.rounds}: acting in {len(jobs)} tasks.")
    try:
        with process_pool(min(len(jobs), recipe.cores or usable_cpus())) as pool:
            running: set[Future[str]] = {pool.submit(play, job) for job in jobs}
            while running:
                if stop.raised:
                    raise _Stopped
                ended, running = wait(running, timeout=0.5)
                for each in ended:
                    say(each.result())
    except _Stopped:
        return False
    except BrokenProcessPool as error:
        raise GeneralistError(
            "A process in which the model acted ended before it was done; perhaps memory ran out. "
            "The same command continues."
        ) from error
    return True


class _Stopped(Exception):
    """The run was asked to stop while jobs were running."""


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


def _jobs(recipe: Recipe, data: TrainingData, checkpoint: Path, number: int) -> Iterator[Job]:
    """What a round consists of."""
    corrections = recipe.corrections
    for task, wanted in corrections.tasks.items():
        if task not in data.headers:
            continue
        yield Job(
            task,
            checkpoint,
            corrections_root(recipe, number) / task,
            asdict(data.headers[task]),
            wanted.episodes,
            wanted.max_steps,
            wanted.expert or expert_of_header(task, data.headers[task].collection),
            FIRST_SEED + number * _SEEDS_PER_ROUND,
        )


def _is_there(job: Job) -> bool:
    """Whether nothing is left to play."""
    if not (job.folder / "dataset.json").exists():
        return False
    return Manifest.read(job.folder).counts()["episodes"] >= job.episodes


def play(job: Job) -> str:
    """Act, label, write; returns what to say about it."""
    import torch
    from transformers.utils import logging

    from generalist.acting.agent import Agent
    from generalist.acting.rollout import dagger_episodes
    from generalist.collecting.encode import encode_episode
    from generalist.shards.manifest import DatasetHeader
    from generalist.shards.shards import ShardWriter

    torch.set_num_threads(1)
    logging.disable_progress_bar()  # of a second of loading weights, in the middle of the run's own
    agent = Agent.from_pretrained(job.checkpoint, task=job.task, device="cpu")
    header = DatasetHeader(**job.header)
    with ShardWriter(job.folder, header) as shards:
        written = shards.episodes_written
        episodes = dagger_episodes(
            agent,
            job.task,
            episodes=job.episodes - written,
            seed=job.seed + written,
            expert=job.expert,
            max_steps=job.max_steps,
            progress=False,
            **(header.collection.get("options") or {}),
        )
        for episode in episodes:  # in the order of their seeds
            shards.add(encode_episode(episode, agent.processor, agent.layout, SOURCE))
    mean = sum(episode.return_ for episode in episodes) / len(episodes)
    steps = sum(len(episode.rewards) for episode in episodes)
    return f"  {job.task}: {len(episodes)} episodes, {steps:,} steps, mean return {mean:.4g}"
