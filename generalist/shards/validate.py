"""`validate`: read every byte of a dataset and compare it with the manifest."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from generalist.errors import GeneralistError
from generalist.integrity import check_text
from generalist.shards.manifest import DatasetHeader, Manifest, ShardEntry
from generalist.shards.reader import dataset_folders
from generalist.shards.remote import SPEC_FILE
from generalist.shards.sample import DamagedShard, Sample, open_shard
from generalist.tokenization.layout import Layout
from generalist.vocabulary import Vocabulary


@dataclass
class TaskValidation:
    """The findings in one dataset folder; counts are of undamaged samples."""

    task: str
    folder: str
    shards: int = 0
    episodes: int = 0
    steps: int = 0
    tokens: int = 0
    damaged_samples: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class ValidationReport:
    """The findings below a root."""

    tasks: list[TaskValidation]
    skip_damaged: bool = False
    spec_problem: str | None = None  # of the spec that was collected into the root

    @property
    def problems(self) -> list[str]:
        """One sentence for each fault; it names the file, and the sample in a shard."""
        of_spec = [] if self.spec_problem is None else [self.spec_problem]
        return of_spec + [problem for task in self.tasks for problem in task.problems]

    @property
    def ok(self) -> bool:
        """True where nothing is wrong; with skip_damaged, where every task has episodes left."""
        if self.skip_damaged:
            return self.spec_problem is None and all(task.episodes for task in self.tasks)
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        tasks = [asdict(task) for task in self.tasks]
        facts = {"ok": self.ok, "skip_damaged": self.skip_damaged, "spec": self.spec_problem}
        return {**facts, "tasks": tasks}


def validate(root: str | Path, *, skip_damaged: bool = False) -> ValidationReport:
    """Verify all dataset folders at or below `root`; faults are reported, not raised.

    Args:
        root: a dataset folder, or a folder of them.
        skip_damaged: call the data good where every task has undamaged episodes.

    Raises:
        GeneralistError: there is no dataset at or below `root`.
    """
    tasks = [_task(folder) for folder in dataset_folders(root)]
    return ValidationReport(tasks, skip_damaged, _spec_problem(Path(root) / SPEC_FILE))


def _spec_problem(path: Path) -> str | None:
    try:
        if path.exists():
            check_text(path)
    except GeneralistError as error:
        return str(error)
    return None


def _task(folder: Path) -> TaskValidation:
    report = TaskValidation("", str(folder))
    try:
        _compare(folder, report)
    except GeneralistError as error:
        report.problems.append(str(error))
    return report


def _compare(folder: Path, report: TaskValidation) -> None:
    """Add what is wrong in a folder; raises GeneralistError where nothing in it can be read."""
    header = DatasetHeader.read(folder)
    report.task = header.task
    layout, vocabulary = header.parts(folder)
    if vocabulary.fingerprint != header.vocabulary_fingerprint:
        report.problems.append(
            f"{folder / 'dataset.json'}: the vocabulary has fingerprint "
            f"{vocabulary.fingerprint}, but {header.vocabulary_fingerprint} is written there."
        )
    manifest = Manifest.read(folder)
    listed = {entry.name for entry in manifest.shards}
    for path in sorted(folder.glob("shard-*.tar")):
        if path.name not in listed:
            report.problems.append(f"Shard {path} is not in the manifest and will not be read.")
    for entry in manifest.shards:
        _compare_shard(report, folder, entry, layout=layout, vocabulary=vocabulary)


def _compare_shard(
    report: TaskValidation,
    folder: Path,
    entry: ShardEntry,
    *,
    layout: Layout,
    vocabulary: Vocabulary,
) -> None:
    """Add what is wrong in a shard, and count what is not."""
    problems = []
    found = dict.fromkeys(("episodes", "steps", "tokens", "relabelled", "soft_labels"), 0)
    report.shards += 1
    for sample in open_shard(folder, entry, layout=layout, vocabulary=vocabulary):
        try:
            if isinstance(sample, DamagedShard):
                raise sample
            sample.verify()
            check_ids(sample, layout)
            soft_labels = sample.soft_labels  # checked as it is read
        except DamagedShard as error:
            problems.append(str(error))
            report.damaged_samples += 1
            continue
        found["episodes"] += len(sample.records)
        found["steps"] += sample.size_steps
        found["tokens"] += sample.size_tokens
        found["relabelled"] += sum(record["relabelled"] for record in sample.records)
        found["soft_labels"] += 0 if soft_labels is None else soft_labels.steps
    report.episodes += found["episodes"]
    report.steps += found["steps"]
    report.tokens += found["tokens"]
    path = folder / entry.name
    if not problems:
        for name, count in found.items():
            if count != (promised := getattr(entry, name)):
                problems.append(f"Shard {path} has {count} {name}, the manifest {promised}.")
    if not problems and path.exists():
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                problems.append(str(DamagedShard(path, None, "its sha256 is wrong")))
    report.problems += problems


def check_ids(sample: Sample, layout: Layout) -> None:
    """Raise DamagedShard unless separators and legal actions stand at the layout's positions."""
    timesteps = sample.tokens.reshape(-1, layout.tokens_per_timestep)
    separators = layout.positions.of_role("separator")
    wrong = (timesteps[:, separators] != layout.positions.first[separators]).any(axis=1)
    if wrong.any():
        raise DamagedShard(
            sample.shard, sample.key, f"timestep {int(wrong.argmax())} has no separator"
        )
    legal = np.array(layout.legal)
    for name, ids in (
        ("executed actions", timesteps[:, layout.positions.chosen]),
        ("labels", sample.labels),
    ):
        if ids is None:
            continue
        actions = ids.reshape(-1, len(legal))
        if (actions.min(axis=0) < legal[:, 0]).any() or (actions.max(axis=0) >= legal[:, 1]).any():
            raise DamagedShard(sample.shard, sample.key, f"the {name} hold ids that are no actions")
