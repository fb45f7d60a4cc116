"""The mixture of tasks that one or several folders hold: each opened, with its share of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from generalist.errors import GeneralistError, UsageError
from generalist.settings import family_of
from generalist.shards.manifest import DatasetHeader
from generalist.shards.reader import TaskData, _Fingerprinted, dataset_folders
from generalist.specs import load_yaml, nearest
from generalist.windows.selection import Selection
from generalist.windows.spec import SPEC_FILE, DatasetSpec
from generalist.windows.weights import tempered, weighted


@dataclass
class Mixture:
    """Opened tasks and the share of tokens each should get."""

    tasks: list[TaskData]
    weights: list[float]

    def add_corrections(
        self, roots: Sequence[Path], share: float, processor: _Fingerprinted | None = None
    ) -> None:
        """Give `share` of the weight of each task to its episodes below these folders.

        The folders, of one round of DAgger each, share it equally.
        """
        rounds = [TaskData(folder, processor) for root in roots for folder in dataset_folders(root)]
        for name in {data.task for data in rounds}:
            mine = [data for data in rounds if data.task == name and len(data)]
            places = [i for i, data in enumerate(self.tasks) if data.task == name]
            weight = sum(self.weights[i] for i in places)
            for i in places:
                self.weights[i] *= 1 - share
            self.tasks += mine
            self.weights += [weight * share / len(mine)] * len(mine)

    @property
    def damaged(self) -> list[str]:
        """What was left out (only with skip_damaged)."""
        return [message for data in self.tasks for message in data.damaged]


def open_mixture(
    roots: str | Path | Sequence[str | Path],
    weights: Mapping[str, float] | None = None,
    processor: _Fingerprinted | None = None,
    skip_damaged: bool = False,
    selection: Selection | None = None,
    task_temperature: float | None = None,
) -> Mixture:
    """Open all tasks below one or several folders.

    weights: by task, or by family, whose tasks share it; what they do not name has the weight of
        the spec it was collected with, else 1. With weight 0 a task is left out.
    selection: which episodes to take; all by default.
    task_temperature: T, in place of the specs' weights; see `weights.tempered`.

    Raises UsageError for a weight of a task or family that is not there.
    """
    paths = [Path(root) for root in ([roots] if isinstance(roots, (str, Path)) else roots)]
    given = dict(weights or {})
    folders, names, base = [], [], []
    for root in paths:
        specified = _weights_of(root)
        for folder in dataset_folders(root):
            folders.append(folder)
            names.append(DatasetHeader.read(folder).task)
            base.append(specified.get(names[-1], 1.0))
    _check_names(given, names)
    tasks, kept = [], []
    for folder, before, weight in zip(folders, base, weighted(names, base, given), strict=True):
        if weight > 0 and len(data := TaskData(folder, processor, skip_damaged)):
            tasks.append(data if selection is None else selection.of(data))
            kept.append(before)
    if not tasks:
        raise GeneralistError(
            f"{', '.join(map(str, paths))}: no episode is left to train on; "
            "collect some, or give a task a weight above 0."
        )
    names = [data.task for data in tasks]
    if task_temperature is not None:
        tokens = [int(data.episodes["length"].sum()) for data in tasks]
        kept = tempered(names, tokens, task_temperature)
    return Mixture(tasks, weighted(names, kept, given))


def _check_names(weights: Mapping[str, float], tasks: Sequence[str]) -> None:
    known = {*tasks, *map(family_of, tasks)}
    if unknown := set(weights) - known:
        name = min(unknown)
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(known))}."
        raise UsageError(f"A weight is given for {name!r}, but the data has no such task; {hint}")


def _weights_of(root: Path) -> dict[str, float]:
    """Weights of the spec that was collected into `root`, if it was."""
    path = root / SPEC_FILE
    return load_yaml(path, DatasetSpec).task_weights() if path.exists() else {}
