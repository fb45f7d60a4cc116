"""The source (see generalist.training.sources) that plays: unrolls of the present weights.

One unroll is played, learned from in a few passes of minibatches, and thrown away. Everything
that is drawn follows from the seed, the rank and the unroll's number.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.errors import GeneralistError
from generalist.modeling.values import values_of
from generalist.training.data import TrainingData
from generalist.training.gradients import Losses
from generalist.training.log import TrainingLog
from generalist.training.passes import ForwardPass, Pass
from generalist.training.ranks import Ranks
from generalist.training.recipe import Recipe
from generalist.training.reinforcement.cluster import Cluster
from generalist.training.reinforcement.crew import Outcome
from generalist.training.reinforcement.curriculum import Curriculum
from generalist.training.reinforcement.fleet import Fleet
from generalist.training.reinforcement.objective import (
    COLUMNS,
    ReinforcementObjective,
    UnrollPass,
)
from generalist.training.reinforcement.recipe import ReinforcementRecipe
from generalist.training.reinforcement.recorder import Recorder
from generalist.training.reinforcement.unrolls import (
    Played,
    Unroll,
    minibatches,
    pass_of,
    play_unroll,
)
from generalist.training.sources import Demonstrations, Share

_ACTIONS, _GROUPS = 1, 2  # streams of random numbers
_RECENT = 100  # episodes of the return that the bar shows


class Unrolls:
    """Plays unrolls with the weights of the objective, and makes minibatches of them.

    Args:
        recipe: the recipe of the run; it has `reinforcement`.
        data: tasks, processor and form of the run.
        objective: its model acts.
        fleet: the environments of this rank, or those of a cluster.
        ranks: the processes of the run.
        reference: the model that the run starts with; None where nobody asks for it.
        demonstrations: imitated beside; None for none.
        recorder: keeps the episodes; None where nobody asks for them.
        curriculum: deals the environments; None where each task keeps its own.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        *,
        objective: ReinforcementObjective,
        fleet: Fleet | Cluster,
        ranks: Ranks,
        reference: Any = None,
        demonstrations: Demonstrations | None = None,
        recorder: Recorder | None = None,
        curriculum: Curriculum | None = None,
    ) -> None:
        assert recipe.reinforcement is not None
        self.recipe: ReinforcementRecipe = recipe.reinforcement
        self.data, self._seed = data, recipe.seed
        self._objective, self._fleet, self._ranks = objective, fleet, ranks
        self._reference, self._demonstrations = reference, demonstrations
        self._recorder, self._curriculum = recorder, curriculum
        tasks = len(fleet.shower.tasks)
        self._unroll: Unroll | None = None
        self._first_step = 0  # of the present unroll
        self._number = -1  # of the present unroll
        self._begun = False  # whether the environments run
        self._anew = False  # whether the log has yet to say that restored episodes do not
        self._groups: list[list[int]] = []  # of the present pass
        self._pass = -1
        self._failures = 0
        self._steps = 0  # of all environments, in the whole run
        self._log: TrainingLog | None = None
        # Since the last row
        self._sums = np.zeros((tasks, len(COLUMNS) + 1))
        self._finished: list[Outcome] = []
        self._steps_since, self._playing = 0, 0.0
        self._recent = [deque[float](maxlen=_RECENT) for _ in range(tasks)]

    @property
    def steps_per_unroll(self) -> int:
        """Optimizer steps of an unroll."""
        return self.recipe.passes * self.recipe.minibatches

    def take(self, data: TrainingData) -> None:
        """See Source."""
        if self._demonstrations is not None:
            self._demonstrations.take(data)
        self._steps_since, self._playing = 0, 0.0  # as the log, which begins a new row

    @contextmanager
    def batches(self, step: int, share: Share) -> Iterator[Iterator[Sequence[Pass]]]:
        """See Source. Nothing is prepared ahead: an unroll needs the weights of its step."""
        yield self._from(step, share)

    def _from(self, step: int, share: Share) -> Iterator[Sequence[Pass]]:
        while True:
            yield self._batch(step, share)
            step += 1

    def _batch(self, step: int, share: Share) -> list[Pass]:
        if self._unroll is None or step >= self._first_step + self.steps_per_unroll:
            self._play(step)
        assert self._unroll is not None
        number, minibatch = divmod(step - self._first_step, self.recipe.minibatches)
        if number != self._pass:
            seed = (self._seed, _GROUPS, share.rank, self._number, number)
            self._groups = minibatches(self._unroll, self._fleet, self.recipe.minibatches, seed)
            self._pass = number
        group = self._groups[minibatch]
        parts = [group[core :: share.cores] for core in range(share.cores)]
        passes: list[Pass] = [
            pass_of(self._unroll, self._fleet, part, scale=self._scales(), weight=self._weights())
            for part in parts
            if part
        ]
        return passes + self._imitated(step, share, sum(each.count for each in passes))

    def _imitated(self, step: int, share: Share, count: float) -> list[Pass]:
        """Demonstrations beside `count` steps of unrolls, at the weight that the recipe says."""
        if self._demonstrations is None:
            return []
        passes = self._demonstrations.passes(step, share)
        total = sum(each.count for each in passes)
        factor = self.recipe.imitation * count / max(total, 1e-8)
        return [each.weighted(factor) for each in passes]

    def _weights(self) -> dict[str, float]:
        """Of the objective's columns in the loss; values come first at the beginning."""
        recipe = self.recipe
        weights = {"value": recipe.value, "kl": recipe.kl}
        if self._number >= recipe.value_warmup:
            weights |= {"policy": 1.0, "entropy": -recipe.entropy}
        return weights

    # Playing

    def _play(self, step: int) -> None:
        """Play the next unroll, which serves the steps from `step` on."""
        began = time.monotonic()
        self._number, self._first_step, self._pass = self._number + 1, step, -1
        counts = None if self._curriculum is None else self._curriculum.deal()
        played = self._ranks.together(partial(self._played, step, counts))
        self._objective.train()
        self._unroll = played.unroll
        self._finished += played.finished
        if self._curriculum is not None:
            self._curriculum.add(played.finished)
        if self._recorder is not None:
            names = self._fleet.shower.tasks
            self._recorder.add([(names[e.task], e.episode) for e in played.finished if e.episode])
        for each in played.finished:
            self._recent[each.task].append(each.return_)
        self._steps += played.steps
        self._steps_since += played.steps
        self._adapt(played.unroll)
        self._playing += time.monotonic() - began

    def _played(self, step: int, counts: Sequence[int] | None) -> Played:
        """The unroll of this rank, which hears nothing of other ranks meanwhile.

        Args:
            step: from which on it serves.
            counts: environments of each task; None: as many as before.

        Raises:
            GeneralistError: too much failed.
        """
        if not self._begun:
            self._fleet.begin()
            self._begun = True
        if counts is not None and counts != self._fleet.counts:
            assert isinstance(self._fleet, Fleet)
            self._fleet.deal(counts)
        seed = np.random.SeedSequence((self._seed, _ACTIONS, self._ranks.number, self._number))
        random = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        model = self._objective.model
        how: dict[str, Any] = {"random": random, "version": step, "reference": self._reference}
        if isinstance(self._fleet, Cluster):
            played = self._fleet.play(model, self.recipe, **how)
        else:
            played = play_unroll(model, self._fleet, self.recipe, **how)
        self._bear_failures(played.unroll)
        return played

    def _bear_failures(self, unroll: Unroll) -> None:
        if self._anew:
            self._say("The episodes that were running are not gone on with; others have begun.")
            self._anew = False
        failures, self._fleet.failures = self._fleet.failures, []
        self._failures += len(failures)
        for each in failures:
            self._say(f"An unroll is left out. {each}")
        if self._failures > self.recipe.max_failures:
            raise GeneralistError(
                f"{self._failures} times an environment failed, the last time so: "
                f"{' '.join(failures[-1:])} reinforcement.max_failures says how many are borne."
            )
        if not unroll.usable.any():
            why = " ".join(failures[-3:])
            raise GeneralistError(f"All environments failed in one unroll. {why}")

    def _adapt(self, unroll: Unroll) -> None:
        """Move the statistics of returns, over all ranks."""
        if not self.recipe.popart:
            return
        targets = unroll.targets(self.recipe.trace_decay)
        rows = []
        for part in self._fleet.of_task:
            mine = targets[part][unroll.usable[part]]
            rows += [mine.size, mine.sum(), np.square(mine).sum()]
        counts, *sums = np.array(self._ranks.sum(rows)).reshape(-1, 3).T
        mean, square = (each / np.maximum(counts, 1) for each in sums)
        values = values_of(self._objective.model)
        assert values is not None
        device = values.weight.device
        given = (torch.from_numpy(each).to(device) for each in (mean, square, counts > 0))
        values.adapt(*given, self.recipe.popart_rate)

    def _scales(self) -> np.ndarray:
        """(tasks,) float32, what advantages are divided by: the spread of returns."""
        values = values_of(self._objective.model)
        assert values is not None
        return values.spread.cpu().numpy().astype(np.float32)

    # The log

    def trained(self, outcomes: Losses, log: TrainingLog) -> None:
        """See Source."""
        self._log = log
        for each, losses in outcomes:
            if isinstance(each, ForwardPass):
                log.add(each, losses)
                continue
            assert isinstance(each, UnrollPass)
            means = losses.mean(dim=1).double().cpu().numpy()  # (B, C)
            for task, columns in zip(each.task.tolist(), means, strict=True):
                self._sums[task, :-1] += columns
                self._sums[task, -1] += 1

    def row(self, seconds: float) -> dict[str, float]:
        """See Source: rates, and by task the columns, returns, lengths and success."""
        tasks = self._fleet.shower.tasks
        episodes = np.zeros((len(tasks), 5))
        for each in self._finished:
            told = each.success is not None
            episodes[each.task] += (1, each.return_, each.steps, told, bool(each.success))
        counters = self._steps_since, self._steps, self._failures
        mine = [*self._sums.ravel(), *episodes.ravel(), *counters]
        summed = np.array(self._ranks.sum([float(x) for x in mine]))
        sums, episodes, (since, steps, failures) = np.split(
            summed, [self._sums.size, self._sums.size + episodes.size]
        )
        row = {
            "environment_steps": steps,
            "environment_steps_per_second": since / seconds,
            "playing_share": self._playing / seconds,
            "failures": float(failures),
        }
        for number, task in enumerate(tasks):
            row |= _of_task(task, sums.reshape(len(tasks), -1)[number])
            row |= _of_episodes(task, episodes.reshape(len(tasks), -1)[number])
            if self._recent[number]:
                row[f"recent_return/{task}"] = float(np.mean(self._recent[number]))
            if self._curriculum is not None:
                row[f"environments/{task}"] = self._fleet.counts[number] * self._ranks.count
                row[f"progress/{task}"] = float(self._curriculum.progress[number])
        values = values_of(self._objective.model)
        assert values is not None
        for number, task in enumerate(tasks):
            row[f"value_mean/{task}"] = values.mean[number].item()
            row[f"value_spread/{task}"] = values.spread[number].item()
        self._sums[:], self._finished = 0, []
        self._steps_since, self._playing = 0, 0.0
        return row

    def _say(self, line: str) -> None:
        if self._log is not None:
            self._log.say(line)

    # Resuming

    def state(self) -> dict[str, Tensor]:
        """See Source: the present unroll, and where the environments are.

        Episodes that ended before are on the disk from here on: a resumed run plays none of them.
        """
        if not self._begun:
            return {}
        if self._recorder is not None:
            self._recorder.save()
        assert self._unroll is not None
        fleet = self._ranks.together(self._fleet.state)
        arrays: dict[str, np.ndarray] = {
            "counters": np.array(
                [self._number, self._first_step, self._steps, self._failures], np.int64
            ),
            **{f"unroll/{name}": each for name, each in self._unroll.arrays().items()},
            **{f"fleet/{name}": each for name, each in fleet.items()},
            **{f"curriculum/{name}": each for name, each in self._dealt().items()},
            **{f"header/{i}": each for i, each in enumerate(self._fleet.shower.known())},
        }
        everyone = self._ranks.gather(arrays)
        return {
            f"{rank}/{name}": torch.from_numpy(np.ascontiguousarray(each).copy())
            for rank, state in enumerate(everyone)
            for name, each in state.items()
        }

    def _dealt(self) -> dict[str, np.ndarray]:
        return {} if self._curriculum is None else self._curriculum.state()

    def restore(self, state: Mapping[str, Tensor], log: TrainingLog) -> None:
        """See Source.

        The actions of running episodes are played again. Where another number of processes goes
        on, or an environment is not where it was, episodes begin anew.
        """
        self._log = log
        if not state:
            return
        ranks = 1 + max(int(name.partition("/")[0]) for name in state)
        if ranks != self._ranks.count:
            raise GeneralistError(
                f"The run was played by {ranks} processes and cannot go on with "
                f"{self._ranks.count}: its environments are theirs. Use as many."
            )
        mine = {
            name.partition("/")[2]: each.numpy()
            for name, each in state.items()
            if int(name.partition("/")[0]) == self._ranks.number
        }
        self._number, self._first_step, self._steps, self._failures = (
            int(each) for each in mine["counters"]
        )
        self._fleet.shower.know([mine[f"header/{i}"] for i in range(_count(mine, "header/"))])
        self._unroll = Unroll.of_arrays(_below(mine, "unroll/"), len(self._fleet.of_task))
        self._begun, self._pass = True, -1
        self._ranks.together(partial(self._fleet.restore, _below(mine, "fleet/")))
        self._anew = not self._fleet.exact
        if self._curriculum is not None:
            self._curriculum.restore(_below(mine, "curriculum/"))

    def close(self) -> None:
        """See Source."""
        self._fleet.close()
        if self._recorder is not None:
            self._recorder.close()


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): each for k, each in arrays.items() if k.startswith(prefix)}


def _count(arrays: Mapping[str, np.ndarray], prefix: str) -> int:
    return sum(name.startswith(prefix) for name in arrays)


def _of_task(task: str, sums: np.ndarray) -> dict[str, float]:
    """Means of the objective's columns, of sums with their count behind."""
    if not sums[-1]:
        return {}
    means = sums[:-1] / sums[-1]
    return {f"{name}/{task}": float(mean) for name, mean in zip(COLUMNS, means, strict=True)}


def _of_episodes(task: str, sums: np.ndarray) -> dict[str, float]:
    count, returns, steps, told, succeeded = sums
    if not count:
        return {}
    row = {
        f"episodes/{task}": float(count),
        f"return/{task}": float(returns / count),
        f"length/{task}": float(steps / count),
    }
    return row | ({f"success/{task}": float(succeeded / told)} if told else {})
