"""Training rows: windows of exactly L tokens, packed with segments of several episodes.

A segment is a header, perhaps a demonstration, then whole timesteps of one episode:

    begin, task, instruction, [demonstration timesteps, demonstration end], timesteps ...

A document ends with the id `end`, a target like its text, so that the model learns to stop.
Position ids restart at each segment, which is how packed segments are kept apart. A row is a pure
function of (seed, row number), so a run resumes exactly from one integer, on any number of ranks.

Legend: L = window tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from generalist.errors import GeneralistError
from generalist.settings import setting_of
from generalist.shards.reader import TaskData
from generalist.tokenization.compact import CompactForm
from generalist.tokenization.layout import Layout
from generalist.windows.batch import IGNORE, Batch, BatchBuilder
from generalist.windows.folders import Folder, HeaderOf
from generalist.windows.mixture import check_layouts
from generalist.windows.outcomes import Worlds
from generalist.windows.packing import Packer
from generalist.windows.palette import Palette
from generalist.windows.random import key_of, keys_of
from generalist.windows.returns import Returns
from generalist.windows.views import View

_DROPOUT_STREAM = 0x64726F70  # keeps its random numbers apart from the packer's


@dataclass(frozen=True)
class Usage:
    """What rows consist of.

    Attributes:
        padding: share of all positions.
        tokens: share of all positions, by task.
        targets: share of all targets, by task.
        targets_per_row: mean number of targets of a row.
        weights: share of the weight of all losses, those of outcomes too, by task.
        weight_per_row: mean weight of the losses of a row; of plain targets each weighs 1.
        segments: how many there are, by task.
        prompted: how many of them begin with a demonstration, by task.
        unmatched: how many more would, had another episode their instruction, by task.
    """

    padding: float
    tokens: dict[str, float]
    targets: dict[str, float]
    targets_per_row: float
    weights: dict[str, float]
    weight_per_row: float
    segments: dict[str, int]
    prompted: dict[str, int]
    unmatched: dict[str, int]


class WindowSampler:
    """Rows drawn from tasks by weight.

    Args:
        tasks: datasets written with one vocabulary.
        weights: share of all tokens that each should get, about; need not sum to one.
        header_of: header ids for (task data, instruction or None).
        window_tokens: L.
        seed: of the draws.
        prompt_fraction: share of segments that begin with a demonstration from another episode of
            the task with the same instruction (Gato, section 2.2: 25%, half of them from an
            episode's end). Those of an episode whose instruction no other has begin without.
        action_dropout: share of segments whose timesteps show random legal ids in place of the
            actions that were taken. Targets stay. Without it a model soon learns to repeat the
            last action, which in an expert's episode is nearly always right, long before it learns
            what the expert looks at; acting on its own, it then repeats its mistakes (de Haan et
            al. 2019, "Causal Confusion in Imitation Learning").
        instruction_dropout: share of segments that begin without their instruction, so that the
            model learns to act without one too, and what the words add.
        context_steps: most timesteps of a segment, texts apart; None for as many as fit. By task
            where it is a mapping, as `generalist.settings.setting_of` reads it.
        view_of: what is shown of the timesteps of a layout; by default as they are stored.
        form: the compact form, in which L counts positions; None for the flat form.
        labels: whether targets are the labels of whoever knows better, where there are some.
        returns: how returns appear, in the compact form; None where they do not.
        worlds: how outcomes of actions are predicted, in the compact form; None where they are not.

    Raises:
        GeneralistError: vocabularies or layouts differ, a header leaves no room for a timestep, or
            the weights are no weights.
    """

    def __init__(
        self,
        tasks: Sequence[TaskData],
        weights: Sequence[float],
        header_of: HeaderOf,
        *,
        window_tokens: int = 1024,
        seed: int = 0,
        prompt_fraction: float = 0.25,
        action_dropout: float = 0.0,
        instruction_dropout: float = 0.0,
        context_steps: int | Mapping[str, int] | None = None,
        view_of: Callable[[Layout], View] = View,
        form: CompactForm | None = None,
        labels: bool = True,
        returns: Returns | None = None,
        worlds: Worlds | None = None,
    ) -> None:
        _check(tasks, weights)
        self.window_tokens, self.seed, self.prompt_fraction = window_tokens, seed, prompt_fraction
        self.action_dropout, self._labels = action_dropout, labels
        self._shown_share = 0.0 if returns is None else returns.show
        self.tasks = list(tasks)
        folders = [
            Folder(
                data,
                view_of(data.layout),
                header_of,
                window_tokens=window_tokens,
                context_steps=setting_of(context_steps, data.task),
                form=form,
                returns=returns,
                worlds=worlds,
            )
            for data in tasks
        ]
        self._folders = folders
        self._palette = Palette(folders, window_tokens)
        self._dropout_key = key_of(seed, _DROPOUT_STREAM)
        self._packer = Packer(
            folders,
            weights,
            window_tokens=window_tokens,
            seed=seed,
            prompt_fraction=prompt_fraction,
            instruction_dropout=instruction_dropout,
        )

    def batch(self, start: int, rows: int) -> Batch:
        """Rows `start`, ..., `start + rows - 1`, with B = `rows`."""
        built = BatchBuilder(self.tasks, self._palette, labels=self._labels)
        for row in self._packer.rows(start, rows):
            for segment in row:
                folder = self._folders[segment.folder]
                built.add(
                    segment,
                    hidden=segment.dropped < self.action_dropout,
                    to_go=folder.to_go,
                    # Without returns nothing is shown, so the targets stay the labels.
                    shown=folder.to_go is not None and segment.shown < self._shown_share,
                    outcomes=folder.outcomes,
                )
            built.end_row()
        keys = keys_of(self._dropout_key, np.arange(start, start + rows, dtype=np.uint64))
        return built.batch(keys)

    def usage(self, rows: int = 256, start: int = 0) -> Usage:
        """Measure over rows `start`, ..., `start + rows - 1` what they consist of."""
        batch = self.batch(start, rows)
        has_target, weight = batch.targets != IGNORE, _weights_of_losses(batch)
        count, total = max(1, int(has_target.sum())), float(weight.sum()) or 1.0
        # Keyed by name: the same task may come from several folders.
        names = [data.task for data in self.tasks]
        tokens, targets, weights = (dict.fromkeys(names, 0.0) for _ in range(3))
        for index, name in enumerate(names):
            mine = batch.task_index == index
            tokens[name] += float(mine.mean())
            targets[name] += float((mine & has_target).sum() / count)
            weights[name] += float(weight[mine].sum() / total)
        segments, prompted, unmatched = (dict.fromkeys(names, 0) for _ in range(3))
        for segment in itertools.chain.from_iterable(self._packer.rows(start, rows)):
            name = names[segment.folder]
            segments[name] += 1
            prompted[name] += segment.demonstration is not None
            unmatched[name] += segment.unmatched
        return Usage(
            padding=float((batch.task_index < 0).mean()),
            tokens=tokens,
            targets=targets,
            targets_per_row=count / rows,
            weights=weights,
            weight_per_row=total / rows,
            segments=segments,
            prompted=prompted,
            unmatched=unmatched,
        )


def _weights_of_losses(batch: Batch) -> np.ndarray:
    """(B, L) float64, the weight of all losses at each place: of a target, of an outcome."""
    weight = batch.weight.astype(np.float64)
    for each in batch.foreseen:
        weight.reshape(-1)[each.index] += each.weight.sum(axis=1, dtype=np.float64)
    return weight


def _check(tasks: Sequence[TaskData], weights: Sequence[float]) -> None:
    if not tasks or len(tasks) != len(weights):
        raise GeneralistError(f"Got {len(tasks)} tasks and {len(weights)} weights.")
    if min(weights) < 0 or not sum(weights) > 0:
        raise GeneralistError(f"Weights must not be negative, and one must be positive: {weights}.")
    widest = max(tasks, key=lambda data: data.vocabulary.size)
    for data in tasks:
        if not widest.vocabulary.begins_with(data.vocabulary):
            raise GeneralistError(
                f"{widest.folder} and {data.folder} were written with different vocabularies, "
                f"{widest.vocabulary.fingerprint} and {data.vocabulary.fingerprint}."
            )
    check_layouts(tasks)
