"""Small real datasets, made by the libraries whose files are imported."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from unittest import mock

import numpy as np

from generalist.episode import Episode
from generalist.experts.collect import collect_episode
from generalist.experts.registry import get_expert

CARTPOLE = "gym/CartPole-v1"
PENDULUM = "gym/Pendulum-v1"
WORDS = ("bring the cup", "close the drawer")


def played(task: str, episodes: int, steps: int = 30) -> list[Episode]:
    """Episodes of the task's own expert, disturbed so that they differ in length and content."""
    from generalist.envs import make

    env = make(task)
    return [
        collect_episode(env, task, get_expert(task), seed, noise=0.3, max_steps=steps + seed)
        for seed in range(episodes)
    ]


def minari_dataset(
    folder: Path, episodes: int, env_id: str = "CartPole-v1", env=None, **options
) -> Path:
    """Random play of a real environment, written by Minari from its episode buffers.

    env: the environment itself, where it is not just that of the id.

    Minari's DataCollector does the same but needs jax, which is not among our dependencies; where
    it is installed, a test uses it.
    """
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    env = env or gymnasium.make(env_id, max_episode_steps=40)
    env.action_space.seed(0)
    buffers = []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        buffer = EpisodeBuffer(id=seed, seed=seed, observations=[observation], actions=[])
        while not buffer.rewards or not (buffer.terminations[-1] or buffer.truncations[-1]):
            buffer.actions.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(buffer.actions[-1])
            buffer.observations.append(observation)
            buffer.rewards.append(reward)
            buffer.terminations.append(terminated)
            buffer.truncations.append(truncated)
        buffers.append(dataclasses.replace(buffer, observations=_by_key(buffer.observations)))
    root = {"MINARI_DATASETS_PATH": str(folder / "minari-root")}
    with mock.patch.dict(os.environ, root):
        dataset = minari.create_dataset_from_buffers("test/random-v0", buffers, env=env, **options)
    return moved(dataset, folder / "random")


def moved(dataset, folder: Path) -> Path:
    """The folder of a Minari dataset, taken out of Minari's own root."""
    Path(dataset.storage.data_path).parent.rename(folder)
    return folder


def _by_key(observations: list) -> list | dict:
    if not isinstance(observations[0], dict):
        return observations
    return {key: [each[key] for each in observations] for key in observations[0]}


def episode_rows(recorded: list[Episode], action: str = "continuous_actions") -> dict[str, list]:
    """Columns as the JAT dataset has them: a row an episode."""
    return {
        "continuous_observations": [e.observations.tolist() for e in recorded],
        action: [e.actions.tolist() for e in recorded],
        "rewards": [e.rewards.tolist() for e in recorded],
    }


def step_rows(recorded: list[Episode]) -> dict[str, list]:
    """Columns of names of one's own: a row a step."""
    return {
        "seen": [row for e in recorded for row in e.observations.tolist()],
        "pushed": [row for e in recorded for row in e.actions.tolist()],
        "points": [value for e in recorded for value in e.rewards.tolist()],
        "number": [10 + i for i, e in enumerate(recorded) for _ in range(e.steps)],
    }


def lerobot_folder(
    folder: Path,
    recorded: list[Episode],
    episodes_per_file: int = 3,
    features: dict | None = None,
    version: str = "v3.0",
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """A LeRobot dataset of version 3, written with pyarrow after its published layout.

    extra: features of shape [1] besides, (steps of all episodes,) each; stored as single values.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size, act = recorded[0].observations.shape[1], recorded[0].actions.shape[1]
    data_path = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    facts, start = [], 0
    extra = extra or {}
    for first in range(0, len(recorded), episodes_per_file):
        file_index = first // episodes_per_file
        tables = []
        for number, episode in enumerate(recorded[first : first + episodes_per_file], first):
            steps = episode.steps
            tables.append(
                pa.table({
                    "observation.state": _fixed(episode.observations, size),
                    "action": _fixed(episode.actions, act),
                    "next.reward": pa.array(episode.rewards, pa.float32()),
                    "next.done": pa.array(np.arange(steps) == steps - 1),
                    "timestamp": pa.array(np.arange(steps) / 10, pa.float32()),
                    "frame_index": pa.array(np.arange(steps)),
                    "episode_index": pa.array(np.full(steps, number)),
                    "index": pa.array(start + np.arange(steps)),
                    "task_index": pa.array(np.full(steps, number % len(WORDS))),
                    **{name: pa.array(all_[start:start + steps]) for name, all_ in extra.items()},
                })
            )  # fmt: skip
            facts.append({
                "episode_index": number, "tasks": [WORDS[number % len(WORDS)]], "length": steps,
                "data/chunk_index": 0, "data/file_index": file_index,
                "dataset_from_index": start, "dataset_to_index": start + steps,
            })  # fmt: skip
            start += steps
        path = folder / data_path.format(chunk_index=0, file_index=file_index)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), path)
    meta = folder / "meta"
    (meta / "episodes" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(facts), meta / "episodes/chunk-000/file-000.parquet")
    tasks = {"task_index": [0, 1], "task": list(WORDS)}
    pq.write_table(pa.table(tasks), meta / "tasks.parquet")
    known = {
        "observation.state": {"dtype": "float32", "shape": [size], "names": None},
        "action": {"dtype": "float32", "shape": [act], "names": None},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        "episode_index": {"dtype": "int64", "shape": [1], "names": None},
        **{
            name: {"dtype": str(all_.dtype), "shape": [1], "names": None}
            for name, all_ in extra.items()
        },
    }
    info = {
        "codebase_version": version, "fps": 10, "total_episodes": len(recorded),
        "total_frames": start, "total_tasks": len(WORDS), "chunks_size": 1000,
        "data_path": data_path, "video_path": None, "features": {**known, **(features or {})},
    }  # fmt: skip
    (meta / "info.json").write_text(json.dumps(info))
    seen = {
        "observation.state": np.concatenate([e.observations for e in recorded]),
        "action": np.concatenate([e.actions for e in recorded]),
        **{name: all_[:, None] for name, all_ in extra.items()},
    }
    stats = {
        name: {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        for name, values in seen.items()
    }
    (meta / "stats.json").write_text(json.dumps(stats))
    return folder


def _fixed(values: np.ndarray, size: int):
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), size)


def save_recordings(folder: Path) -> None:
    """One small dataset of each kind, for the commands in README.md."""
    import datasets

    minari_dataset(folder, 2).rename(folder / "minari")
    recorded = played(PENDULUM, 3)
    datasets.Dataset.from_dict(episode_rows(recorded)).save_to_disk(folder / "jat")
    steps = datasets.Dataset.from_dict(step_rows(recorded))
    steps.to_parquet(folder / "steps.parquet")
    lerobot_folder(folder / "robot", recorded)
    (folder / "notes").mkdir()
    (folder / "notes" / "today.txt").write_text("A document of one's own.\n")
