"""Many runs of timesteps as one forward pass, each behind the header of its task and instruction.

A run is what is seen together: a timestep in which an action is chosen, and those before it that
are still in view. A header is computed once, however many runs follow it. Timesteps whose views
begin with the same one share a run, because none of them sees what comes after it.

Shapes: N = timesteps in which an action is chosen, M = all timesteps, R = runs, K = tokens of an
observation, k = action tokens of a timestep, G = positions of an observation, T = positions of
headers, then of timesteps. Of one task they are n, m and r.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.errors import UsageError
from generalist.modeling.branches import Group
from generalist.modeling.embedders import Embedded
from generalist.modeling.tensors import Tensors
from generalist.tokenization.compact import QUERIES, TASKS, CompactForm, signatures_of
from generalist.tokenization.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Timesteps(Tensors):
    """M timesteps for `hidden_of_branches`, in N of which an action is chosen.

    Attributes:
        input_ids: (T,) int64.
        position_ids: (T,) int64.
        groups: how headers and timesteps hang together.
        embedded: vectors added to the embeddings of the ids.
        first: (N,) int64, where among the positions of timesteps each chooses its first action
            token; its others follow.
    """

    input_ids: Tensor
    position_ids: Tensor
    groups: tuple[Group, ...]
    embedded: tuple[Embedded, ...]
    first: Tensor


@dataclass(frozen=True)
class States:
    """Observations of one task.

    Attributes:
        task: number of the task.
        headers: (r,) int64 numbers of the headers that the runs stand behind.
        ids: (m, K) int64, run by run.
        masks: of legal actions in each timestep of `chosen`, as `Space.sample` takes them; None
            where all are legal. Empty where no action is to be chosen.
        counts: (r,) int64 timesteps of each run; by default 1.
        chosen: (n,) int64, at which of the m timesteps an action is chosen; by default the last of
            each run.
    """

    task: int
    headers: np.ndarray
    ids: np.ndarray
    masks: Sequence[Any] = ()
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    chosen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if not len(self.counts):
            object.__setattr__(self, "counts", np.ones(len(self.headers), np.int64))
        if not len(self.chosen):
            object.__setattr__(self, "chosen", np.cumsum(self.counts) - 1)

    @property
    def masked(self) -> bool:
        """Whether any action is illegal in any of them."""
        return any(mask is not None for mask in self.masks)


def in_view(step: int, most: int) -> int:
    """How many timesteps an agent sees in step `step` of an episode, counted from 0.

    As a `generalist.decoding.slots.Slot` does: when `most` are full, half of them stay.

    Args:
        step: number of the step.
        most: timesteps of a context, at most.
    """
    if step < most:
        return step + 1
    kept = most // 2
    return kept + 1 + (step - most) % (most - kept)


class Shower:
    """Lays out timesteps of some tasks in the compact form.

    Args:
        processor: makes headers.
        form: of the model.
        layouts: of the tasks, by name; their order numbers them.
        contexts: for each task, how many timesteps are seen together, at most; empty: one.
        window_tokens: of the window in which an agent will act; None for any.
    """

    def __init__(
        self,
        processor: Any,
        form: CompactForm,
        layouts: Mapping[str, Layout],
        *,
        contexts: Sequence[int] = (),
        window_tokens: int | None = None,
    ) -> None:
        self.tasks = tuple(layouts)
        self._contexts, self._window = tuple(contexts) or (1,) * len(layouts), window_tokens
        self.layouts = tuple(layouts.values())
        self._processor, self._form = processor, form
        self._separator = processor.vocabulary.special("separator")
        self._positions = np.array([form.timestep_positions(each) for each in self.layouts])
        self._observations = [signatures_of(each)[0].name for each in self.layouts]
        self._said: dict[tuple[int, str | None], int] = {}
        self._numbers: dict[tuple[int, tuple[int, ...]], int] = {}
        self._headers: list[np.ndarray] = []
        self._task_of: list[int] = []

    def header(self, task: int, instruction: str | None) -> int:
        """The number of the header of a task, with an instruction or none.

        Raises:
            UsageError: behind it there is no room for a context, so that an agent would see fewer
                timesteps than are learned with.
        """
        said = (task, instruction)
        if said not in self._said:
            ids = self._processor.header(self.tasks[task], instruction, spelled=False).tolist()
            self._check_room(task, len(ids))
            self._said[said] = self.number_of(np.array([task, *ids], np.int64))
        return self._said[said]

    def _check_room(self, task: int, header_tokens: int) -> None:
        wanted = header_tokens + self._contexts[task] * int(self._positions[task])
        if self._window is not None and wanted > self._window:
            raise UsageError(
                f"{self.tasks[task]}: a header of {header_tokens} tokens and "
                f"{self._contexts[task]} timesteps of {self._positions[task]} positions do not fit "
                f"into data.window_tokens = {self._window}; make it {wanted} or more, or "
                "data.context_steps smaller."
            )

    def known(self) -> list[np.ndarray]:
        """The headers so far, each with the number of its task before its ids, as `know` takes."""
        return [
            np.array([task, *ids], np.int64)
            for task, ids in zip(self._task_of, self._headers, strict=True)
        ]

    def know(self, headers: Sequence[np.ndarray]) -> None:
        """Number further headers, given as `known` gives them."""
        for task, *ids in (each.tolist() for each in headers):
            self._numbers[task, tuple(ids)] = len(self._headers)
            self._headers.append(np.array(ids, np.int64))
            self._task_of.append(task)

    def number_of(self, header: np.ndarray) -> int:
        """The number here of a header that another's `known` gives."""
        task, *ids = header.tolist()
        if (task, tuple(ids)) not in self._numbers:
            self.know([header])
        return self._numbers[task, tuple(ids)]

    def lay_out(self, states: Sequence[States]) -> Timesteps:
        """The timesteps of all states as one pass; those that choose are numbered as given."""
        header = np.concatenate([each.headers for each in states])
        count = np.concatenate([each.counts for each in states])
        task = np.concatenate([np.full(len(each.headers), each.task) for each in states])
        length = self._positions[task]  # of each timestep of a run
        size = count * length  # of each run
        pairs, first_of, which = np.unique(
            np.stack([header, size]), axis=1, return_index=True, return_inverse=True
        )
        used, branch, which = pairs[0], size[first_of], which.reshape(-1)
        trunk = np.array([len(self._headers[number]) for number in used])
        # 1. Headers of equal length, and runs of equal length, are neighbours.
        by_kind = np.lexsort((used, branch, trunk))
        rank = np.argsort(by_kind)[which]  # of each run's header
        order = np.argsort(rank, kind="stable")
        counts = np.bincount(rank, minlength=len(used))
        kinds = np.stack([trunk[by_kind], branch[by_kind]], axis=1)
        cuts = np.flatnonzero(np.any(np.diff(kinds, axis=0), axis=1)) + 1
        groups = tuple(
            Group(int(kind[0, 0]), int(kind[0, 1]), tuple(count.tolist()))
            for kind, count in zip(np.split(kinds, cuts), np.split(counts, cuts), strict=True)
        )
        # 2. Where each header, each run and each timestep begins.
        trunk_starts = np.cumsum(trunk[by_kind]) - trunk[by_kind]
        trunk_tokens = int(trunk.sum())
        run_starts = np.empty(len(header), np.int64)  # among the positions of timesteps
        run_starts[order] = np.cumsum(size[order]) - size[order]
        tokens = int(size.sum())
        lengths = np.repeat(length, count)  # of each timestep
        starts = np.repeat(run_starts, count) + counted(count) * lengths
        # 3. Ids and positions.
        ids = np.full(trunk_tokens + tokens, self._separator)
        ids[:trunk_tokens] = np.concatenate([self._headers[used[i]] for i in by_kind])
        positions = np.empty(len(ids), np.int64)
        positions[:trunk_tokens] = counted(trunk[by_kind])
        positions[trunk_tokens:] = counted(size[order]) + np.repeat(
            trunk[which][order], size[order]
        )
        # 4. What is added to them.
        numbers = [self._form.number_of(self.tasks[self._task_of[used[i]]]) for i in by_kind]
        embedded = [_embedded(TASKS, np.array(numbers)[:, None], trunk_starts)]
        embedded += self._queries(starts + trunk_tokens, lengths)
        embedded += self._observed(states, starts + trunk_tokens)
        return Timesteps(
            input_ids=torch.from_numpy(ids),
            position_ids=torch.from_numpy(positions),
            groups=groups,
            embedded=tuple(embedded),
            first=torch.from_numpy(starts[_choosing(states)] + self._form.positions - 1),
        )

    def _queries(self, starts: np.ndarray, length: np.ndarray) -> list[Embedded]:
        """The queries of the second to the last action token of each timestep."""
        queries = length - self._form.positions
        if not queries.any():
            return []
        numbers = counted(queries)
        index = np.repeat(starts + self._form.positions, queries) + numbers
        return [_embedded(QUERIES, numbers[:, None], index)]

    def _observed(self, states: Sequence[States], starts: np.ndarray) -> list[Embedded]:
        """The observations, by signature; tasks may share one."""
        parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        stop = 0
        for each in states:
            first, stop = stop, stop + len(each.ids)
            name = self._observations[each.task]
            parts.setdefault(name, []).append((each.ids, starts[first:stop]))
        return [
            _embedded(name, *(np.concatenate(column) for column in zip(*found, strict=True)))
            for name, found in parts.items()
        ]


def _choosing(states: Sequence[States]) -> np.ndarray:
    """(N,) int64, at which of all timesteps an action is chosen."""
    before = np.cumsum([0, *(len(each.ids) for each in states)])
    return np.concatenate([n + each.chosen for n, each in zip(before, states, strict=False)])


def counted(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ... within runs of these lengths, end to end."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _embedded(name: str, ids: np.ndarray, index: np.ndarray) -> Embedded:
    return Embedded(
        name=name,
        ids=torch.from_numpy(np.ascontiguousarray(ids, np.int64)),
        index=torch.from_numpy(np.ascontiguousarray(index, np.int64)),
    )
