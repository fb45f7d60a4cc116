"""The mixture of tasks that one or several folders hold: each opened, with its share of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from generalist.errors import GeneralistError, UsageError
from generalist.integrity import check_text
from generalist.settings import family_of
from generalist.shards.manifest import DatasetHeader
from generalist.shards.reader import TaskData, _Fingerprinted, dataset_folders
from generalist.shards.remote import SPEC_FILE
from generalist.specs import load_yaml, nearest
from generalist.tokenization.described import difference_in_words
from generalist.windows.selection import Selection
from generalist.windows.spec import DatasetSpec
from generalist.windows.weights import tempered, weighted


@dataclass
class Mixture:
    """Opened folders and the share of tokens each should get.

    Attributes:
        tasks: the data of each folder; several may hold episodes of one task.
        weights: the weight of each folder; need not sum to one.
        available: task -> episodes in its folders, those that were not selected too.
    """

    tasks: list[TaskData]
    weights: list[float]
    available: dict[str, int]

    def add_corrections(self, rounds: Sequence[TaskData], share: float) -> None:
        """Give `share` of the weight of each task to its episodes in these folders.

        The folders, of one round of DAgger each, share it equally. What a task that is not in the
        mixture has there is left out.

        Args:
            rounds: see `corrections_below`.
            share: part of a task's weight, in (0, 1).

        Raises:
            GeneralistError: a folder holds a task of the mixture in another layout.
        """
        for name in dict.fromkeys(data.task for data in self.tasks):  # sets have no fixed order
            mine = [data for data in rounds if data.task == name and len(data)]
            if not mine:
                continue
            places = [i for i, data in enumerate(self.tasks) if data.task == name]
            check_layouts([*(self.tasks[i] for i in places), *mine])
            weight = sum(self.weights[i] for i in places)
            for i in places:
                self.weights[i] *= 1 - share
            self.tasks += mine
            self.weights += [weight * share / len(mine)] * len(mine)

    def add_attempts(
        self,
        roots: Sequence[Path],
        share: float,
        boost: float,
        processor: _Fingerprinted | None = None,
    ) -> None:
        """Give a part of the weight to what an agent did well of itself, below these folders.

        A task's attempts share its weight with what the mixture holds of it. Tasks that it does not
        hold share the weight of all. A token of an attempt weighs at most `boost` times as much as
        the mean token beside it, so a few attempts get less than `share`.

        Args:
            roots: a folder for each round; it need not hold anything.
            share: largest part of the weight, in (0, 1).
            boost: see above.
            processor: the processor in use, whose fingerprint the data must have.
        """
        folders = [path for root in roots for path in dataset_folders(root, may_be_none=True)]
        found = [data for folder in folders if len(data := TaskData(folder, processor))]
        held = list(dict.fromkeys(data.task for data in self.tasks))
        for name in held:
            places = [i for i, data in enumerate(self.tasks) if data.task == name]
            self._mix_in([data for data in found if data.task == name], places, share, boost)
        new = [data for data in found if data.task not in held]
        self._mix_in(new, range(len(self.tasks)), share, boost)

    def _mix_in(
        self, mine: Sequence[TaskData], places: Sequence[int], share: float, boost: float
    ) -> None:
        """Give some folders a part of the weight of those at `places`; they share it by tokens."""
        if not mine:
            return
        weighed = boost * sum(map(_tokens, mine))
        part = min(share, weighed / (weighed + sum(_tokens(self.tasks[i]) for i in places)))
        weight = sum(self.weights[i] for i in places)
        for i in places:
            self.weights[i] *= 1 - part
        of_a_token = weight * part / sum(map(_tokens, mine))
        self.tasks += mine
        self.weights += [of_a_token * _tokens(data) for data in mine]

    @property
    def damaged(self) -> list[str]:
        """What was left out (only with skip_damaged)."""
        return [message for data in self.tasks for message in data.damaged]


def open_mixture(
    roots: str | Path | Sequence[str | Path],
    weights: Mapping[str, float] | None = None,
    processor: _Fingerprinted | None = None,
    *,
    skip_damaged: bool = False,
    selection: Selection | None = None,
    task_temperature: float | None = None,
) -> Mixture:
    """Open all tasks below one or several folders.

    A task has one weight, however many folders hold it; they share it by their timesteps.

    Args:
        roots: one folder or several.
        weights: by task, or by family, whose tasks share it; what they do not name has the weight
            of the spec it was collected with, else 1. With weight 0 a task is left out.
        processor: the processor in use, whose fingerprint the data must have.
        skip_damaged: verify all shards now, and leave damaged ones out.
        selection: which episodes to take; None for all.
        task_temperature: T, in place of the specs' weights; see `weights.tempered`.

    Raises:
        UsageError: a weight names a task or family that is not there.
        GeneralistError: no episode is left, or two folders hold one task in two layouts.
    """
    paths = [Path(root) for root in ([roots] if isinstance(roots, (str, Path)) else roots)]
    given = dict(weights or {})
    found = _found(paths)
    _check_names(given, [each.task for each in found])
    opened = _opened([each for each in found if each.is_wanted(given)], processor, skip_damaged)
    available = {
        task: sum(data.index.counts["episodes"] for data, _ in mine)
        for task, mine in opened.items()
    }
    if selection is not None:
        opened = {task: _selected(mine, selection) for task, mine in opened.items()}
    if not opened:
        raise GeneralistError(
            f"{', '.join(map(str, paths))}: no episode is left to train on; "
            "collect some, or give a task a weight above 0."
        )
    names = list(opened)
    tokens = [sum(_tokens(data) for data, _ in mine) for mine in opened.values()]
    if task_temperature is None:
        # Specs that disagree count by the timesteps that were collected with each.
        base = [sum(_share(data, mine) * w for data, w in mine) for mine in opened.values()]
    else:
        base = tempered(tokens, task_temperature)
    folders = [
        (data, weight * _share(data, mine))
        for weight, mine in zip(weighted(names, base, given), opened.values(), strict=True)
        for data, _ in mine
    ]
    return Mixture([data for data, _ in folders], [weight for _, weight in folders], available)


def corrections_below(
    roots: Sequence[Path], processor: _Fingerprinted | None = None
) -> list[TaskData]:
    """All corrections below some folders, such as that of a round or of a run.

    Args:
        roots: the folders.
        processor: the processor in use, whose fingerprint the data must have.

    Raises:
        GeneralistError: a folder holds none, or was encoded with another processor.
    """
    return [TaskData(folder, processor) for root in roots for folder in dataset_folders(root)]


def earlier_corrections(
    roots: Sequence[Path], tasks: Sequence[TaskData], processor: _Fingerprinted | None = None
) -> list[TaskData]:
    """The corrections of earlier runs, as far as they are of some tasks; each folder once.

    Args:
        roots: a folder for each run, or for each round of one.
        tasks: the demonstrations.
        processor: as in `corrections_below`.

    Raises:
        UsageError: there is no such folder, or it has none of the tasks.
        GeneralistError: as `corrections_below`.
    """
    wanted = {data.task for data in tasks}
    found: dict[Path, TaskData] = {}  # roots or links may lead to one twice
    for root in roots:
        if not root.is_dir():
            raise UsageError(
                f"corrections.earlier names {root}, which is no folder. A run keeps its "
                "corrections in OUTPUT_DIR/corrections; leave the folder out to do without."
            )
        there = corrections_below([root], processor)
        mine = [data for data in there if data.task in wanted]
        if not mine:
            names = ", ".join(sorted({data.task for data in there}))
            raise UsageError(
                f"corrections.earlier names {root}, which has corrections of {names} alone. The "
                "data hold none of these tasks; leave the folder out."
            )
        for data in mine:
            found.setdefault(data.folder.resolve(), data)
    return list(found.values())


def check_layouts(tasks: Sequence[TaskData]) -> None:
    """Check that folders of one task have one layout.

    In two layouts the same ids mean different things: other fields, bounds, bins or backgrounds.

    Raises:
        GeneralistError: two folders hold one task in two layouts; both are named.
    """
    first: dict[str, TaskData] = {}
    for data in tasks:
        other = first.setdefault(data.task, data)
        if data.layout != other.layout:
            raise GeneralistError(
                f"{other.folder} and {data.folder} both hold {data.task}, but in two layouts, in "
                f"which the same ids mean different things: "
                f"{difference_in_words(other.layout, data.layout)}. Leave one of the folders out, "
                "or collect both with the same spaces, options, bins and tokenizer; `collect "
                "--like FOLDER` takes the backgrounds of another dataset."
            )


_Opened = list[tuple[TaskData, float]]  # the folders of one task, with their specs' weights


@dataclass(frozen=True)
class _Found:
    """A dataset folder that is not yet opened."""

    folder: Path
    task: str
    weight: float  # of the spec it was collected with

    def is_wanted(self, given: Mapping[str, float]) -> bool:
        """Whether its weight is above 0: its task's own, else that of family and spec."""
        if self.task in given:
            return given[self.task] > 0
        return self.weight > 0 and given.get(family_of(self.task), 1.0) > 0


def _found(roots: Sequence[Path]) -> list[_Found]:
    """The dataset folders below the roots, each once though roots or links lead there twice."""
    found: dict[Path, _Found] = {}
    for root in roots:
        specified = _weights_of(root)
        for folder in dataset_folders(root):
            task = DatasetHeader.read(folder).task
            found.setdefault(folder.resolve(), _Found(folder, task, specified.get(task, 1.0)))
    return list(found.values())


def _opened(
    found: Sequence[_Found], processor: _Fingerprinted | None, skip_damaged: bool
) -> dict[str, _Opened]:
    """Task -> its folders that hold episodes."""
    opened: dict[str, _Opened] = {}
    for each in found:
        if len(data := TaskData(each.folder, processor, skip_damaged=skip_damaged)):
            opened.setdefault(each.task, []).append((data, each.weight))
    check_layouts([data for mine in opened.values() for data, _ in mine])
    return opened


def _selected(folders: _Opened, selection: Selection) -> _Opened:
    """The folders of a task with the episodes that are kept of them, but for those without any."""
    kept = selection.of([data for data, _ in folders])
    return [(data, weight) for data, (_, weight) in zip(kept, folders, strict=True) if len(data)]


def _share(data: TaskData, folders: _Opened) -> float:
    """Share of a folder in the timesteps of its task."""
    return data.steps / sum(other.steps for other, _ in folders)


def _tokens(data: TaskData) -> int:
    return data.steps * data.layout.tokens_per_timestep


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
    if not path.exists():
        return {}
    check_text(path)
    return load_yaml(path, DatasetSpec).task_weights()
