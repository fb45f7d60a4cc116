"""Episodes of a person become data: shards that validate, train and replay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium

from generalist.collecting.encode import encode_episode
from generalist.episode import Episode
from generalist.session import Trace
from generalist.shards.manifest import DatasetHeader
from generalist.shards.shards import ShardWriter
from generalist.shards.spaces import space_to_json
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor

SOURCE = "person"


def episode_of(trace: Trace, *, person_steps: int) -> Episode:
    """The episode so far; one that goes on counts as cut off.

    Args:
        trace: of a session that keeps its steps.
        person_steps: how many of its actions were the person's.
    """
    episode = trace.to_episode({"expert": SOURCE, "noise": 0.0, "person_steps": person_steps})
    if not trace.done:
        episode.truncated = True
    return episode


def keep_episode(
    episode: Episode,
    root: Path,
    *,
    env: gymnasium.Env,
    processor: GeneralistProcessor,
    layout: Layout,
    options: Mapping[str, Any],
) -> Path:
    """Append an episode to ROOT/family/Name, which is made where it does not exist.

    Args:
        episode: of one task.
        root: folder of the dataset.
        env: the environment it was played in.
        processor: encodes it.
        layout: of the task.
        options: of the environment.

    Returns:
        The folder of the task.

    Raises:
        GeneralistError: the folder holds data of another layout or processor, or is in use.
    """
    folder = root / episode.task
    spaces = {
        "observation": space_to_json(env.observation_space),
        "action": space_to_json(env.action_space),
    }
    collection = {"expert": SOURCE, "options": dict(options)}
    vocabulary = processor.vocabulary
    header = DatasetHeader.create(
        episode.task, layout, vocabulary, processor.fingerprint, spaces, collection
    )
    with ShardWriter(folder, header) as writer:
        writer.add(encode_episode(episode, processor, layout, SOURCE))
    return folder
