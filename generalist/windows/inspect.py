"""What is in a dataset, task by task."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from generalist.shards.manifest import DatasetHeader, Manifest
from generalist.shards.reader import dataset_folders
from generalist.tokenization.layout import Layout


@dataclass(frozen=True)
class TaskSummary:
    """A task's part of a dataset.

    Attributes:
        task: name of the task.
        episodes: how many there are.
        steps: timesteps of all episodes.
        tokens: tokens of all episodes.
        tokens_per_timestep: S.
        mean_return: mean raw return; None for documents, and where there is no episode.
        relabelled: share of steps whose label differs from the executed action.
        soft_labels: share of steps whose label is a distribution.
        rejected: how many seeds were left out for good.
        megabytes: size of the shards, in 10^6 bytes.
    """

    task: str
    episodes: int
    steps: int
    tokens: int
    tokens_per_timestep: int
    mean_return: float | None
    relabelled: float
    soft_labels: float
    rejected: int
    megabytes: float

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def describe(root: str | Path) -> list[TaskSummary]:
    """Summaries of the dataset folders at or below `root`, from their manifests alone.

    Raises:
        GeneralistError: there is no dataset, or a header or manifest is damaged; it is named.
    """
    return [_summary(folder) for folder in dataset_folders(root)]


def _summary(folder: Path) -> TaskSummary:
    dataset, manifest = DatasetHeader.read(folder), Manifest.read(folder)
    counts = manifest.counts()
    episodes, steps = counts["episodes"], counts["steps"]
    document = Layout.from_dict(dataset.layout).is_document
    total = sum(shard.return_sum for shard in manifest.shards)
    return TaskSummary(
        task=dataset.task,
        episodes=episodes,
        steps=steps,
        tokens=counts["tokens"],
        tokens_per_timestep=counts["tokens"] // max(1, steps),
        mean_return=None if document or not episodes else total / episodes,
        relabelled=counts["relabelled"] / max(1, steps),
        soft_labels=counts.get("soft_labels", 0) / max(1, steps),
        rejected=len(manifest.rejected),
        megabytes=sum(shard.bytes for shard in manifest.shards) / 1e6,
    )
