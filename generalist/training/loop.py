"""The training loop, over an `Accelerator`: one process or many, laptop or cluster.

A run alternates between two phases until its schedule ends or it is stopped:
1. Steps, until a round is due. In a step every rank takes its share of the step's rows, and
   accumulates gradients over forward passes of a few rows. It divides the sum by the count of the
   step's targets on all ranks. So the result does not depend on how the rows are split.
2. The rounds that are due (see generalist.training.rounds.round).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator

from generalist.errors import GeneralistError
from generalist.modeling.build import count_parameters
from generalist.modeling.pretrained import with_sizes_of_start
from generalist.training.checkpoint import (
    RunState,
    Snapshot,
    load_checkpoint,
    random_states,
    save_checkpoint,
    set_random_states,
)
from generalist.training.data import TrainingData
from generalist.training.export import export
from generalist.training.log import TrainingLog
from generalist.training.optimizer import learning_rate_factor, progress, set_learning_rate
from generalist.training.passes import Pass
from generalist.training.ranks import Ranks
from generalist.training.recipe import Recipe, dump_recipe, load_recipe
from generalist.training.resume import (
    CHECKPOINTS,
    SHARE_THE_FOLDER,
    checkpoint_to_continue,
    only_run_in,
    require_same_checkpoint,
    require_same_rows,
)
from generalist.training.rounds.corrections import Corrections
from generalist.training.rounds.improvement import Improvement
from generalist.training.rounds.round import Round
from generalist.training.rounds.scores import Scores
from generalist.training.setup import Objective, build_learning, opened
from generalist.training.sources import Share, Source
from generalist.training.strategies.launch import (
    StopSignal,
    build_strategy,
    start_accelerator,
    torch_settings_kept,
)
from generalist.training.strategies.strategy import Strategy
from generalist.training.throughput import FlopCounter

FINAL = "checkpoint"
ACTING = ".acting"  # folder of the present model during a round


class TrainingInterrupted(GeneralistError):
    """Training was asked to stop. It has saved everything; the same command continues it."""


def train(
    recipe: Recipe | str | Path,
    data: TrainingData | None = None,
    *,
    resume_from: Path | None = None,
    allow_changes: bool = False,
) -> Path:
    """Train by a recipe, and return the folder of the final checkpoint.

    Args:
        recipe: the recipe, its name or its path.
        data: opened data; None: open the data of the recipe.
        resume_from: folder of a checkpoint to continue from; None: the newest valid one in
            `output_dir`, if any.
        allow_changes: continue although recipe or data have changed.

    Raises:
        TrainingInterrupted: SIGTERM or SIGINT came; everything is saved.
        GeneralistError: `output_dir` holds another run, or too many steps were not finite.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    with torch_settings_kept():
        # The sizes of the model decide the precision, and so the accelerator.
        recipe = recipe.model_copy(update={"model": with_sizes_of_start(recipe.model)})
        accelerator = start_accelerator(recipe)
        data = data or opened(recipe)
        main = accelerator.is_main_process
        lock = only_run_in(recipe.output_dir) if main else nullcontext()
        with lock, closing(build_trainer(recipe, data, accelerator)) as trainer:
            trainer.resume(resume_from, allow_changes=allow_changes)
            with StopSignal() as stop:
                trainer.run(stop)
            return trainer.export()


def build_trainer(recipe: Recipe, data: TrainingData, accelerator: Accelerator) -> Trainer:
    """A trainer with the objective and the rounds that a recipe asks for."""
    objective, source = build_learning(recipe, data, accelerator)
    return Trainer(
        recipe,
        accelerator,
        objective=objective,
        source=source,
        rounds=[Scores(recipe, data), Corrections(recipe, data), Improvement(recipe, data)],
    )


@dataclass(frozen=True)
class StepTotals:
    """What all ranks agree on before a step.

    Attributes:
        count: count of the targets on all ranks.
        elapsed_seconds: the main process's clock.
        stopping: whether any rank was asked to stop.
    """

    count: float
    elapsed_seconds: float
    stopping: bool


class Trainer:
    """A run: an objective with its optimizers, its source, its rounds and its progress.

    Args:
        recipe: the recipe of the run.
        accelerator: an accelerator started for this recipe.
        objective: the model with its loss, on the accelerator's device.
        source: gives the forward passes of each step.
        rounds: the rounds; those that are due together run in this order.
    """

    # What is trained, and how
    recipe: Recipe
    objective: Objective
    strategy: Strategy
    rounds: Sequence[Round]
    # On what
    source: Source
    facts: dict[str, Any]  # of the initial data; a resumed run must find the same
    # Where
    accelerator: Accelerator
    ranks: Ranks
    # The run
    state: RunState
    stop: StopSignal
    log: TrainingLog

    _share: Share
    _parameters: dict[str, int]
    _saved: RunState  # progress in the newest checkpoint

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Accelerator,
        *,
        objective: Objective,
        source: Source,
        rounds: Sequence[Round],
    ) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        self.objective, self.rounds = objective, rounds
        self.ranks, self.stop = Ranks(accelerator), StopSignal()
        self.source, self.facts = source, source.data.facts()
        self.state, self._saved = RunState(), RunState()
        flops = FlopCounter(recipe, source.data.processor.vocabulary.size)
        self.log = TrainingLog(recipe, accelerator, data=source.data, flops=flops, more=source.row)
        self._parameters = count_parameters(objective.model)  # before sharding
        self.strategy = build_strategy(objective, recipe, accelerator)
        self._share = Share(self.ranks.number, self.ranks.count, self.strategy.cores)

    @property
    def data(self) -> TrainingData:
        """The present data of the run."""
        return self.source.data

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Precision that the forward pass really has."""
        autocast = self.accelerator.mixed_precision == "bf16"
        return "bf16" if autocast or self.objective.half else "fp32"

    # Starting and ending

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints to resume from."""
        return self.recipe.output_dir / CHECKPOINTS

    def resume(self, source: Path | None = None, *, allow_changes: bool = False) -> None:
        """Continue from a checkpoint, if there is one; see `checkpoint_to_continue`."""
        require_same_rows(self.data, self.ranks)
        # 1. The main process decides; all ranks see the same checkpoint.
        folder = self.ranks.on_main(
            lambda: checkpoint_to_continue(
                self.recipe, self.data, source=source, allow_changes=allow_changes
            )
        )
        if folder is None:
            return
        require_same_checkpoint(folder, self.ranks)
        # 2. Weights, moments, random numbers, and the progress of the run.
        snapshot = load_checkpoint(folder)
        self.strategy.load(snapshot.weights, snapshot.moments)
        set_random_states(snapshot.random)
        self.state, self._saved = snapshot.state, replace(snapshot.state)
        self.source.restore(snapshot.source, self.log)
        # 3. The results of its rounds.
        for each in self.rounds:
            each.restore(self, folder)
        for each in self.rounds:  # whose data hold the results of all
            self._take(each.rows(self.state))
        self.accelerator.print(f"Continuing from {folder}.")

    def save(self) -> None:
        """Save a checkpoint to resume from; the main process writes, all ranks wait."""
        self.log.count()
        snapshot = Snapshot(
            state=self.state,
            weights=self.strategy.weights(),
            moments=self.strategy.moments(),
            random=random_states(),
            source=self.source.state(),
        )
        if self.ranks.main:
            keep, yaml = self.recipe.checkpoint.keep, dump_recipe(self.recipe)
            save_checkpoint(
                self.checkpoints, snapshot, recipe_yaml=yaml, data=self.facts, keep=keep
            )
        self._saved = replace(self.state)
        self.ranks.meet()

    def export(self) -> Path:
        """Write the final checkpoint, which `Agent` and `AutoModelForCausalLM` load; its folder."""
        folder = self.recipe.output_dir / FINAL
        self._export_to(folder)
        return folder

    @contextmanager
    def exported(self) -> Iterator[Path]:
        """See generalist.training.rounds.round.Run."""
        folder = self.recipe.output_dir / ACTING
        self._export_to(folder)
        seen = (folder / "config.json").is_file()
        self.ranks.require(None if seen else f"does not see {folder}", SHARE_THE_FOLDER)
        try:
            yield folder
        finally:
            if self.ranks.main:
                shutil.rmtree(folder, ignore_errors=True)

    def _export_to(self, folder: Path) -> None:
        weights = self.strategy.weights()
        if self.ranks.main:
            export(
                folder, self.objective.model, weights,
                data=self.data, recipe=self.recipe, state=self.state,
            )  # fmt: skip
        self.ranks.meet()

    def close(self) -> None:
        """End the processes that this one started; sharded weights are lost."""
        self.strategy.close()
        self.source.close()

    # Training

    def run(self, stop: StopSignal) -> None:
        """Train until the schedule ends or `stop` is raised; save at the end in both cases."""
        self.stop = stop
        self.log.describe(
            self.objective.model,
            self._parameters,
            running=f"{self.strategy.describe()}, {self.precision}",
            state=self.state,
        )
        with self.log:
            while (due := self._train_until_due()) and all(self._play(each) for each in due):
                pass
        # A schedule by the clock may end without another step; the checkpoint must record the end.
        if self._saved.step != self.state.step or self.recipe.schedule.minutes is not None:
            self.save()
        if self._done() < 1:
            raise TrainingInterrupted(
                f"Stopped at step {self.state.step}; everything is saved in {self.checkpoints}. "
                "The same command continues from there."
            )

    def _done(self) -> float:
        """Progress of the schedule, in [0, 1]."""
        return progress(self.recipe.schedule, self.state.step, self.state.elapsed_seconds)

    def _train_until_due(self) -> list[Round]:
        """Take steps until rounds are due; return these, or [] at the end or at a stop."""
        began = time.monotonic() - self.state.elapsed_seconds  # pauses do not count as training
        self.objective.train()
        with self.source.batches(self.state.step, self._share) as batches:
            while True:
                with self.log.waiting():
                    batch = next(batches)
                totals = self._totals(batch, time.monotonic() - began)
                self.state.elapsed_seconds = totals.elapsed_seconds
                if totals.stopping:
                    return []
                due = [each for each in self.rounds if each.due(self.state)]
                if due or self._done() >= 1:
                    return due
                self._step(batch, totals.count)
                self.log.flush_if_due(self.state, self._done())
                if self._save_is_due():
                    self.save()

    def _play(self, due: Round) -> bool:
        """Play a round and take its data; return False where it was stopped."""
        with self.log.pause():
            complete = due.play(self)
        if complete:
            self._take(due.rows(self.state))
        return complete

    def _save_is_due(self) -> bool:
        cadence, state = self.recipe.checkpoint, self.state
        steps = state.step - self._saved.step
        minutes = (state.elapsed_seconds - self._saved.elapsed_seconds) / 60
        return bool(
            (cadence.every_steps and steps >= cadence.every_steps)
            or (cadence.every_minutes and minutes >= cadence.every_minutes)
        )

    def _take(self, data: TrainingData | None) -> None:
        """Train on these data from now on; None changes nothing."""
        if data is None:
            return
        self.source.take(data)
        self.log.restart(data)
        require_same_rows(data, self.ranks)

    def _step(self, batch: Sequence[Pass], count: float) -> None:
        """Take an optimizer step on this rank's passes; `count` is that of `StepTotals`."""
        # 1. The learning rate of this point of the schedule.
        factor = learning_rate_factor(self.recipe.schedule, self.state.step, self._done())
        lr = self.recipe.optimizer.lr * factor
        set_learning_rate(self.strategy.optimizers, lr)
        # 2. Gradients. Ranks average theirs, hence the factor that turns the mean into a sum.
        scale = self.ranks.count / max(count, 1e-8)
        loss, outcomes = self.strategy.accumulate(batch, scale)
        self.source.trained(outcomes, self.log)
        # 3. The step, unless a gradient is not finite.
        norm = self.strategy.step()
        if not math.isfinite(norm):
            self._skip(self.accelerator.reduce(loss, "mean").item(), norm)
        self.state.step += 1
        self.log.step(self.state.step, loss, norm=norm, lr=lr)

    def _skip(self, loss: float, norm: float) -> None:
        """Count a step without an update; raise GeneralistError after too many."""
        self.state.skipped += 1
        if self.state.skipped > self.recipe.optimizer.max_skipped:
            raise GeneralistError(
                f"{self.state.skipped} steps had a loss or gradient that is not finite (step "
                f"{self.state.step}: loss {loss}, gradient norm {norm}). The weights are those of "
                "the last good step; try a lower optimizer.lr."
            )

    # Agreement between ranks

    def _totals(self, batch: Sequence[Pass], elapsed_seconds: float) -> StepTotals:
        """The totals of all ranks before a step on these passes."""
        count = sum(each.count for each in batch)
        clock = elapsed_seconds if self.ranks.main else 0.0
        count, clock, stopping = self.ranks.sum([count, clock, float(self.stop.raised)])
        return StepTotals(count, clock, stopping > 0)
