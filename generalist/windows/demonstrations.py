"""Demonstrations: the episodes of a task that may be shown before a segment, by instruction."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from generalist.shards.reader import TaskData


class Demonstrations:
    """What experts played in the folders of one task, in groups of the same instruction.

    What an agent did while it was corrected is no demonstration. Where episodes have instructions,
    4 bytes are kept for each of them.

    Args:
        folders: the data of the task's folders.
    """

    def __init__(self, folders: Sequence[TaskData]) -> None:
        self._folders = list(folders)
        self._episodes = [data.demonstrations for data in folders]
        self._stops = list(accumulate(len(numbers) for numbers in self._episodes))
        self._group_of = _groups(self._folders)
        groups = 1 + max(int(numbers.max()) for numbers in self._group_of)
        self._order: np.ndarray | None = None  # demonstrations sorted by group; None: as they are
        counts = np.array([self._stops[-1]])
        if groups > 1:
            group = self._group_of_each()
            counts = np.bincount(group, minlength=groups)
            self._order = np.argsort(group, kind="stable").astype(np.int32)
        self._counts: list[int] = counts.tolist()
        self._starts: list[int] = (np.cumsum(counts) - counts).tolist()

    def _group_of_each(self) -> np.ndarray:
        """(demonstrations,) int32 group of each, folder after folder."""
        found = []
        for data, numbers, group_of in zip(
            self._folders, self._episodes, self._group_of, strict=True
        ):
            every = np.concatenate([group_of[rows["instruction"]] for rows in data.pieces()])
            found.append(every if isinstance(numbers, range) else every[numbers])
        return np.concatenate(found)

    def others(self, folder: int, episode: int, instruction: int) -> int:
        """How many other episodes have the instruction of this one.

        Args:
            folder: number of the folder.
            episode: number of the episode in the folder.
            instruction: number of its instruction in the folder's index, -1 for none.
        """
        count = self._counts[self._group_of[folder][instruction]]
        return count - self._holds(folder, episode)

    def draw(
        self, folder: int, episode: int, *, instruction: int, uniform: float
    ) -> tuple[int, int] | None:
        """Another episode with the instruction of this one, as numbers of its folder and in there.

        Args:
            folder: number of the folder.
            episode: number of the episode in the folder.
            instruction: number of the instruction in the folder's index, -1 for none.
            uniform: a random number in [0, 1).

        Returns:
            Numbers of a folder and of an episode there; None where no other episode has this
            instruction.
        """
        others = self.others(folder, episode, instruction)
        if not others:
            return None
        group = self._group_of[folder][instruction]
        first = self._starts[group]
        found = self._demonstration(first + int(uniform * others))
        if found == (folder, episode):  # the last stands in for the one that is left out
            found = self._demonstration(first + others)
        return found

    def _holds(self, folder: int, episode: int) -> bool:
        """Whether an episode is itself a demonstration."""
        numbers = self._episodes[folder]
        if isinstance(numbers, range):
            return True
        place = int(numbers.searchsorted(episode))
        return place < len(numbers) and int(numbers[place]) == episode

    def _demonstration(self, place: int) -> tuple[int, int]:
        """Folder and number of the demonstration at a place in the order of groups."""
        if self._order is not None:
            place = int(self._order[place])
        folder = bisect_right(self._stops, place)
        first = self._stops[folder - 1] if folder else 0
        return folder, int(self._episodes[folder][place - first])


def _groups(folders: Sequence[TaskData]) -> list[np.ndarray]:
    """The group of each instruction; those of the same text are of one group in all folders.

    Returns:
        Of each folder (instructions + 1,) int32, the last for episodes without an instruction.
    """
    marks = []
    for data in folders:
        count = len(data.index.instruction_ends)
        texts = (data.index.instruction(number) for number in range(count))
        # 64 bits of a digest in place of texts, which are many where each episode has its own.
        own = [0] + [1 + _digest(text) for text in texts]
        marks.append(np.array(own[1:] + own[:1], np.uint64))
    _, groups = np.unique(np.concatenate(marks), return_inverse=True)
    return np.split(groups.astype(np.int32), np.cumsum([len(own) for own in marks])[:-1])


def _digest(text: str | None) -> int:
    """A number below 2^64 - 1 that stands for a text."""
    digest = hashlib.blake2b((text or "").encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % (2**64 - 1)
