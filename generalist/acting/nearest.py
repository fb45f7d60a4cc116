"""The demonstrated timesteps that are nearest to an observation.

How far two observations x and y are apart:

    distance^2 = sum over real numbers of ((x - y) / sigma)^2 + how many of the other codes differ

sigma is the standard deviation of a number over all demonstrated timesteps. What never changes
there counts nothing. Values are those at the centres of bins, as a model is shown them.

Legend: T = demonstrated timesteps, N = observations, K = tokens of an observation, R = real numbers
of it, C = K - R its other codes, k = action tokens, n = timesteps that are found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from generalist.errors import UsageError
from generalist.shards.manifest import DatasetHeader
from generalist.shards.reader import TaskData, dataset_folders
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor

_NORMAL_PERCENTILE = 95
_NORMAL_QUERIES = 1_000
"""The normal distance is taken over so many demonstrated timesteps at most."""


class Found(NamedTuple):
    """Demonstrated timesteps, the nearest first.

    Attributes:
        numbers: (n,) int64, of the timesteps.
        distances: (n,) float64 from what was observed.
    """

    numbers: np.ndarray
    distances: np.ndarray


class DemonstratedSteps:
    """The timesteps of a task's demonstrations, each with the action that the expert would take.

    Args:
        observed: (T, K) ids of observations.
        actions: (T, k) ids of actions.
        episode: (T,) int64, number of the episode of each timestep.
        instructions: of each episode; None for none.
        layout: of the task.
        processor: decodes values.
        options: of the environments they were made in, one or several.

    Attributes:
        layout: as given.
        processor: as given.
        actions: as given.
        options: as given.
    """

    def __init__(
        self,
        observed: np.ndarray,
        actions: np.ndarray,
        *,
        episode: np.ndarray,
        instructions: Sequence[str | None],
        layout: Layout,
        processor: GeneralistProcessor,
        options: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.layout, self.processor, self.actions = layout, processor, actions
        self.options = options
        self._observed, self._episode = observed, episode
        values, self._codes = self._split(observed)
        # Not by the deviation: that of equal numbers is rarely 0, by rounding.
        varies = (values != values[:1]).any(axis=0)
        spread = values.std(axis=0)
        self._factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=varies)
        self._values = values * self._factor
        self._everyone = np.arange(len(observed))
        self._told: dict[str | None, np.ndarray] = {
            told: np.flatnonzero(
                np.isin(episode, [i for i, x in enumerate(instructions) if x == told])
            )
            for told in set(instructions)
        }
        self._instructions = list(instructions)

    @classmethod
    def read(
        cls,
        root: str | Path,
        task: str,
        *,
        processor: GeneralistProcessor,
        layout: Layout | None = None,
        without: Collection[int] = (),
    ) -> DemonstratedSteps:
        """The demonstrations of a task in the dataset folders at or below `root`.

        The expert's own actions count where others were executed. What an agent did while it was
        corrected is left out.

        Args:
            root: the folder.
            task: name of the task.
            processor: the one that is acted with.
            layout: the one that is acted with; None for that of the data.
            without: seeds of episodes that are left out: those that are to be played.

        Raises:
            GeneralistError: there is no dataset, or another processor wrote it.
            UsageError: none is of the task, none is left, or it is laid out otherwise.
        """
        every = [(folder, DatasetHeader.read(folder).task) for folder in dataset_folders(root)]
        folders = [TaskData(folder, processor) for folder, name in every if name == task]
        if not folders:
            names = ", ".join(sorted({name for _, name in every}))
            raise UsageError(
                f"{root} holds no demonstrations of {task}, but of {names}. Collect some "
                "(generalist collect), or name their folder."
            )
        layout = layout or folders[0].layout
        for data in folders:
            if data.layout != layout:
                raise UsageError(
                    f"{data.folder} codes {task} otherwise than what acts in it does. Take a "
                    "checkpoint that was trained on these data, or collect them anew."
                )
        if layout.is_document or layout.is_written:
            raise UsageError(f"{task} is text, which has no demonstrations; leave them out.")
        return cls._of(folders, layout, processor, without)

    @classmethod
    def _of(
        cls,
        folders: Sequence[TaskData],
        layout: Layout,
        processor: GeneralistProcessor,
        without: Collection[int],
    ) -> DemonstratedSteps:
        of_role, k = layout.positions.of_role, len(layout.legal)
        observed, actions, steps, instructions = [], [], [], []
        left_out = 0
        for data in folders:
            for number in data.demonstrations:
                if data.record(number).get("seed") in without:
                    left_out += 1
                    continue
                timesteps = data.tokens(number).reshape(-1, layout.tokens_per_timestep)
                labels = data.labels(number)
                done = timesteps[:, of_role("action")] if labels is None else labels.reshape(-1, k)
                observed.append(timesteps[:, of_role("observation")])
                actions.append(done)
                steps.append(len(timesteps))
                instructions.append(data.record(number).get("instruction"))
        where = ", ".join(str(data.folder) for data in folders)
        if not observed and left_out:
            raise UsageError(
                f"{where} holds demonstrations of the very episodes that are to be played, and no "
                "others. Play other seeds, or collect other episodes."
            )
        if not observed:
            raise UsageError(f"{where} holds corrections of an agent alone, no demonstrations.")
        return cls(
            np.concatenate(observed).astype(np.int64),
            np.concatenate(actions).astype(np.int64),
            episode=np.repeat(np.arange(len(steps)), steps),
            instructions=instructions,
            layout=layout,
            processor=processor,
            options=[data.header.collection.get("options") or {} for data in folders],
        )

    def __len__(self) -> int:
        return len(self._observed)

    def nearest(self, seen: np.ndarray, told: Sequence[str | None], count: int) -> list[Found]:
        """The demonstrated timesteps that are nearest to each observation.

        They are of the observation's own instruction where it was demonstrated, else of any. Of
        those equally near the first counts as nearer.

        Args:
            seen: (N, K) ids of observations.
            told: of each, the instruction of its episode; None for none.
            count: how many are wanted. There are fewer where fewer were demonstrated.
        """
        values, codes = self._split(seen)
        values *= self._factor
        return [
            self._nearest(*row, self._told.get(words, self._everyone), count)
            for row, words in zip(zip(values, codes, strict=True), told, strict=True)
        ]

    def shown(self, numbers: np.ndarray) -> np.ndarray:
        """(n S,) ids of whole timesteps, with the expert's actions."""
        parts = {"observation": self._observed[numbers], "action": self.actions[numbers]}
        return self.layout.weave(parts).ravel()  # type: ignore[arg-type]

    def normal_distance(self, count: int) -> float:
        """The distance by which REGENT divides others (Sridhar et al. 2024, arXiv:2412.04759).

        Each demonstrated timestep in turn is what is observed, and the `count` nearest are taken
        from other episodes. Of the distances of all these from the nearest one it is the 95th
        percentile. It is 1 where that is 0.
        """
        queries = np.unique(np.linspace(0, len(self) - 1, _NORMAL_QUERIES).astype(int))
        distances: list[np.ndarray] = []
        for number in queries.tolist():
            found = self._nearest(
                self._values[number], self._codes[number], self._others(number), count
            )
            if len(found.numbers):
                first = found.numbers[0]
                distances += [
                    self._distances(self._values[first], self._codes[first], found.numbers)
                ]
                distances += [found.distances[:1]]
        normal = (
            float(np.percentile(np.concatenate(distances), _NORMAL_PERCENTILE)) if distances else 0
        )
        return normal or 1.0

    def _others(self, number: int) -> np.ndarray:
        """Timesteps of other episodes; of its own instruction, if others have it."""
        own = self._episode[number]
        for among in (self._told[self._instructions[own]], self._everyone):
            if len(others := among[self._episode[among] != own]):
                return others
        return self._everyone[self._everyone != number]  # there is one episode

    def _nearest(
        self, values: np.ndarray, codes: np.ndarray, among: np.ndarray, count: int
    ) -> Found:
        distances = self._distances(values, codes, among)
        first = np.argsort(distances, kind="stable")[:count]
        return Found(among[first], distances[first])

    def _distances(self, values: np.ndarray, codes: np.ndarray, among: np.ndarray) -> np.ndarray:
        """(n,) distances of (R,) scaled values and (C,) codes from the n timesteps `among`."""
        gaps = self._values[among] - values
        squared = np.einsum("nr,nr->n", gaps, gaps)
        return np.sqrt(squared + (self._codes[among] != codes).sum(axis=1))

    def _split(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, K) ids to (N, R) float64 real numbers and (N, C) ids of all else."""
        values, codes = [np.zeros((len(ids), 0))], [ids[:, :0]]
        first = 0
        for part in self.layout.parts_of("observation"):
            own = ids[:, first : first + part.tokens]
            first += part.tokens
            if part.codec.ordinal:
                real = part.decode(own, self.processor.toolbox)
                values.append(real.reshape(len(ids), -1).astype(np.float64))
            else:
                codes.append(own)
        return np.concatenate(values, axis=1), np.concatenate(codes, axis=1)
