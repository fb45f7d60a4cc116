"""The training loop, over an `Accelerator`: one process or many, laptop or cluster.

One step: every rank takes its share of the step's rows, accumulates gradients over forward passes
of a few rows, and the sum is divided by the count of all targets of the step on all ranks. So the
result does not depend on how the rows are split.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from generalist.errors import GeneralistError
from generalist.gpu import has_flash_attention
from generalist.modeling.build import build_model, count_parameters
from generalist.modeling.lora import add_adapters
from generalist.modeling.pretrained import start_model, with_sizes_of_start
from generalist.modeling.segments import can_run_segments
from generalist.training.checkpoint import (
    RunState,
    Snapshot,
    load_checkpoint,
    random_states,
    save_checkpoint,
    set_random_states,
)
from generalist.training.data import TrainingData, open_data, task_weights, to_tensors
from generalist.training.export import export
from generalist.training.log import TrainingLog
from generalist.training.objective import OrdinalTargets, TokenObjective
from generalist.training.optimizer import learning_rate_factor, progress, set_learning_rate
from generalist.training.passes import ForwardPass
from generalist.training.ranks import Ranks
from generalist.training.recipe import Recipe, dump_recipe, load_recipe
from generalist.training.resume import (
    CHECKPOINTS,
    SHARE_THE_FOLDER,
    bring_corrections,
    checkpoint_to_continue,
    only_run_in,
    require_same_checkpoint,
)
from generalist.training.rounds.corrections import corrected_tasks, play_round
from generalist.training.rounds.scores import Cadence, evaluated_tasks, play_evaluation
from generalist.training.strategies.launch import (
    StopSignal,
    build_strategy,
    is_alone_on_cpu,
    launched_with_fsdp,
    resolve_precision,
    should_compile,
    start_accelerator,
    torch_settings_kept,
)
from generalist.training.throughput import FlopCounter

FINAL = "checkpoint"
ACTING = ".acting"  # the model as it stands, while a round is played
ROWS_COMPARED = 8


class TrainingInterrupted(GeneralistError):
    """Training was asked to stop, saved, and can be continued with the same command."""


def train(
    recipe: Recipe | str | Path,
    data: TrainingData | None = None,
    resume_from: Path | None = None,
    allow_changes: bool = False,
) -> Path:
    """Train as the recipe says and return the folder of the final checkpoint.

    Args:
        recipe: what to train, or the name or path of a recipe.
        data: opened already; opened as the recipe says if not given.
        resume_from: folder of a checkpoint to continue from; the newest valid one in
            `output_dir`, if there is one, if not given.
        allow_changes: continue although recipe or data have changed since.

    Raises:
        TrainingInterrupted: after SIGTERM or SIGINT, once everything is saved.
        GeneralistError: another run was trained in this folder; too many non-finite steps.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    with torch_settings_kept():
        # The sizes decide about the precision, and so about the accelerator.
        recipe = recipe.model_copy(update={"model": with_sizes_of_start(recipe.model)})
        accelerator = start_accelerator(recipe)
        data = data or open_data(recipe)
        main = accelerator.is_main_process
        lock = only_run_in(recipe.output_dir) if main else nullcontext()
        with lock, closing(Trainer(recipe, data, accelerator)) as trainer:
            trainer.resume(resume_from, allow_changes)
            with StopSignal() as stop:
                trainer.run(stop)
            return trainer.export()


def _model(recipe: Recipe, data: TrainingData) -> PreTrainedModel:
    """The model to be trained, as it starts; the same on every process."""
    window, processor = recipe.data.window_tokens, data.processor
    if recipe.model.init_from is not None:
        model = start_model(recipe.model, processor, window, recipe.seed)
    else:
        codes = None if processor.frames is None else processor.frames.code_coordinates
        model = build_model(recipe.model, processor.vocabulary, window, recipe.seed, codes)
    if recipe.model.lora is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            add_adapters(model, recipe.model.lora)
    return model


class Trainer:
    """A model, its optimizers and its data, and where the run stands."""

    def __init__(self, recipe: Recipe, data: TrainingData, accelerator: Accelerator) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        self.ranks = Ranks(accelerator)
        vocabulary = data.processor.vocabulary
        self.model = _model(recipe, data)
        bins = vocabulary["continuous"]
        ordinal = OrdinalTargets(bins.start, bins.stop, recipe.loss.sigma_bins)
        self.objective = TokenObjective(
            self.model.to(accelerator.device),
            ordinal,
            ranges=[(r.start, r.stop) for r in vocabulary],
            full_every=recipe.loss.full_every,
        )
        self.parameters = count_parameters(self.model)
        self._choose_pass()
        self.strategy = build_strategy(self.objective, recipe, accelerator)
        self._take(data)
        self.facts = data.facts()  # of the demonstrations; what is added later is the run's own
        self.state = RunState()
        self.scored = evaluated_tasks(recipe, data)
        self.rounds = recipe.corrections.rounds if corrected_tasks(recipe, data) else 0
        self.rows_per_rank = recipe.data.rows_per_step // accelerator.num_processes
        if self.rows_per_rank * accelerator.num_processes != recipe.data.rows_per_step:
            raise GeneralistError(
                f"data.rows_per_step {recipe.data.rows_per_step} does not divide evenly over "
                f"{accelerator.num_processes} processes; make it a multiple."
            )

    def _choose_pass(self) -> None:
        """How hidden states are computed: the fastest way that is known on the device."""
        recipe, device = self.recipe, self.accelerator.device
        decoder = self.model.get_decoder()
        known = can_run_segments(decoder)
        # FSDP gathers the weights of a block when it is called, and adapters are no plain matrices.
        plain = not launched_with_fsdp() and recipe.model.lora is None
        self.segments = known and plain and device.type == "cpu" and not recipe.compile
        autocast = self.accelerator.mixed_precision == "bf16"
        lean = is_alone_on_cpu(recipe) and self.segments
        self.objective.half = lean and resolve_precision(recipe) == "bf16"
        self.precision = "bf16" if autocast or self.objective.half else "fp32"
        self.objective.flash = known and autocast and has_flash_attention(device)
        if should_compile(recipe, self.accelerator):
            for block in decoder.layers:
                block.compile()

    # Starting and ending

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints to resume from."""
        return self.recipe.output_dir / CHECKPOINTS

    def resume(self, source: Path | None = None, allow_changes: bool = False) -> None:
        """Continue from a checkpoint, if there is one; see `checkpoint_to_continue`."""
        self._require_same_rows()
        folder = self.ranks.on_main(
            lambda: checkpoint_to_continue(self.recipe, self.data, source, allow_changes)
        )
        if folder is None:
            return
        require_same_checkpoint(folder, self.ranks)
        snapshot = load_checkpoint(folder)
        self.strategy.load(snapshot.weights, snapshot.moments)
        set_random_states(snapshot.random)
        self.state = snapshot.state
        if self.state.rounds:
            self.ranks.on_main(lambda: bring_corrections(folder, self.recipe, self.state.rounds))
            self._take(open_data(self.recipe, self.state.rounds))
            self._require_same_rows()
        self.accelerator.print(f"Continuing from {folder}.")

    def save(self) -> None:
        """Save what resuming needs; the main process writes, all wait."""
        snapshot = Snapshot(
            self.state, self.strategy.weights(), self.strategy.moments(), random_states()
        )
        if self.accelerator.is_main_process:
            keep = self.recipe.checkpoint.keep
            yaml = dump_recipe(self.recipe)
            save_checkpoint(self.checkpoints, snapshot, yaml, self.facts, keep)
        self._note_saved()
        self.ranks.meet()

    def _note_saved(self) -> None:
        """From here on it is counted when the next checkpoint is due."""
        self._saved_step, self._saved_at = self.state.step, time.monotonic()

    def export(self) -> Path:
        """Write the final checkpoint that acting and `AutoModelForCausalLM` load."""
        folder = self.recipe.output_dir / FINAL
        self._export_to(folder)
        self.ranks.meet()
        return folder

    def _export_to(self, folder: Path) -> None:
        weights = self.strategy.weights()
        if self.accelerator.is_main_process:
            export(folder, self.model, weights, self.data, self.recipe, self.state)

    def close(self) -> None:
        """End what runs besides this process; the weights of shards are gone then."""
        self.strategy.close()

    # Training

    def run(self, stop: StopSignal) -> None:
        """Train until the schedule ends or `stop` is raised; saves at the end either way.

        In between the model is corrected in rounds, where the recipe says so.
        """
        flops = FlopCounter(self.recipe, self.data.processor.vocabulary.size)
        log = TrainingLog(self.recipe, self.data.task_names, self.accelerator, flops)
        running = f"{self.strategy.describe()}, {self.precision}"
        log.describe(self.model, self.parameters, running, self.state)
        self._note_saved()
        with log:
            while True:
                until = self._next_round()
                stopped = self._train_until(until, stop, log)
                if stopped or until >= 1:
                    break
                self.save()  # a round that is cut short begins again with these very weights
                if not self._correct(stop, log):
                    stopped = True
                    break
        # By the clock a run may end without another step; what is saved must say that it has.
        if self._saved_step != self.state.step or self.recipe.schedule.minutes is not None:
            self.save()
        if stopped:
            raise TrainingInterrupted(
                f"Stopped at step {self.state.step}; everything is saved in {self.checkpoints}. "
                "The same command continues from there."
            )

    def _next_round(self) -> float:
        """Progress at which the next round of corrections is played; 1 where there is none."""
        played, begin = self.state.rounds, self.recipe.corrections.begin
        return begin + (1 - begin) * played / self.rounds if played < self.rounds else 1.0

    def _train_until(self, until: float, stop: StopSignal, log: TrainingLog) -> bool:
        """Take steps up to this progress; True where `stop` ended it before that."""
        start = time.monotonic() - self.state.elapsed_seconds
        cadence = Cadence(self.recipe.evaluation, self.state) if self.scored else None
        self.objective.train()
        with self._batches() as batches:
            while True:
                with log.waiting():
                    batch = next(batches)
                count, elapsed, stopping = self._agree(batch, time.monotonic() - start, stop)
                self.state.elapsed_seconds = elapsed
                done = progress(self.recipe.schedule, self.state.step, elapsed)
                if done >= until or stopping:
                    return done < until
                self._step(batch, count, done, log)
                log.flush_if_due(self.state, done)
                if self._any(self._save_is_due()):
                    self.save()
                if cadence is not None and self._any(cadence.is_due(self.state)):
                    start += self._evaluate(stop, log)  # what it took is no training

    def _save_is_due(self) -> bool:
        cadence = self.recipe.checkpoint
        steps = self.state.step - self._saved_step
        minutes = (time.monotonic() - self._saved_at) / 60
        return bool(
            (cadence.every_steps and steps >= cadence.every_steps)
            or (cadence.every_minutes and minutes >= cadence.every_minutes)
        )

    def _evaluate(self, stop: StopSignal, log: TrainingLog) -> float:
        """Score the model as it stands and log that; returns the seconds it took."""
        began = time.monotonic()
        with self._exported() as agent:
            row = play_evaluation(
                self.recipe, self.data, self.scored, agent,
                ranks=self.ranks, stop=stop, say=log.say,
            )  # fmt: skip
        log.scores(self.state, row)
        seconds = time.monotonic() - began
        log.paused(seconds)
        return seconds

    def _correct(self, stop: StopSignal, log: TrainingLog) -> bool:
        """Play a round of corrections and go on with what it gave; False where it was stopped."""
        number = self.state.rounds
        with self._exported() as agent:
            complete = play_round(
                self.recipe, self.data, agent, number, ranks=self.ranks, stop=stop, say=log.say
            )
        if not all(self.ranks.gather(complete)):
            return False
        self._take(open_data(self.recipe, number + 1))
        self._require_same_rows()
        self.state.rounds = number + 1
        log.restart(self.data.task_names)
        return True

    @contextmanager
    def _exported(self) -> Iterator[Path]:
        """The model as it stands, as a checkpoint that acts, for a while; all ranks see it."""
        folder = self.recipe.output_dir / ACTING
        self._export_to(folder)
        self.ranks.meet()
        seen = (folder / "config.json").is_file()
        self.ranks.require(None if seen else f"does not see {folder}", SHARE_THE_FOLDER)
        try:
            yield folder
        finally:
            if self.ranks.main:
                shutil.rmtree(folder, ignore_errors=True)

    def _require_same_rows(self) -> None:
        """Raise GeneralistError where a rank would draw other rows than the main process."""
        if self.ranks.count == 1:
            return
        rows = self.data.windows.batch(0, ROWS_COMPARED)
        mine = sha256(rows.input_ids.tobytes() + rows.targets.tobytes()).hexdigest()
        same = self.ranks.gather(mine)[0] == mine
        self.ranks.require(
            None if same else "has other data than rank 0",
            "All ranks draw from the same data; give them the same data.root.",
        )

    def _take(self, data: TrainingData) -> None:
        """Go on with these data."""
        self.data = data
        self.task_weights = task_weights(data, self.recipe.loss.balance_tasks)

    def _step(self, batch: list[ForwardPass], count: float, done: float, log: TrainingLog) -> None:
        """Take an optimizer step on this rank's passes; `count` is that of all ranks' targets."""
        optimizer = self.recipe.optimizer
        factor = learning_rate_factor(self.recipe.schedule, self.state.step, done)
        set_learning_rate(self.strategy.optimizers, optimizer.lr * factor)
        # Ranks average their gradients, hence the factor that turns the mean into a sum.
        scale = self.accelerator.num_processes / max(count, 1e-8)
        loss, outcomes = self.strategy.accumulate(batch, scale)
        for each, losses in outcomes:
            log.add(each, losses)
        loss_mean = self.accelerator.reduce(loss, "mean").item()
        norm = self.strategy.step()
        if not math.isfinite(norm):
            self._skip(loss_mean, norm)
        self.state.step += 1
        log.step(self.state.step, loss_mean, norm, optimizer.lr * factor)

    def _skip(self, loss: float, norm: float) -> None:
        """Leave out a step whose loss or gradient is not finite; too many end the run."""
        self.state.skipped += 1
        if self.state.skipped > self.recipe.optimizer.max_skipped:
            raise GeneralistError(
                f"{self.state.skipped} steps had a loss or gradient that is not finite (step "
                f"{self.state.step}: loss {loss}, gradient norm {norm}). The weights are those of "
                "the last good step; try a lower optimizer.lr."
            )

    # Data and agreement between ranks

    @contextmanager
    def _batches(self) -> Iterator[Iterator[list[ForwardPass]]]:
        """This rank's forward passes of every step from here on, one step ahead in a thread."""
        with ThreadPoolExecutor(max_workers=1) as thread:

            def generate() -> Iterator[list[ForwardPass]]:
                step = self.state.step
                ahead: Future = thread.submit(self._rows, step)
                while True:
                    batch = ahead.result()
                    step += 1
                    ahead = thread.submit(self._rows, step)
                    yield batch

            yield generate()

    def _rows(self, step: int) -> list[ForwardPass]:
        """Row numbers depend on the step alone, so another number of ranks sees the same step."""
        first = step * self.recipe.data.rows_per_step
        first += self.accelerator.process_index * self.rows_per_rank
        # No more than a core's share, so that a machine of many cores has work for all of them.
        share = -(-self.rows_per_rank // self.strategy.cores)
        stride = min(self.recipe.data.rows_per_forward, share)
        batch = self.data.windows.batch(first, self.rows_per_rank)
        return [
            to_tensors(rows, self.task_weights, segments=self.segments)
            for rows in batch.split(stride)
        ]

    def _agree(
        self, batch: list[ForwardPass], elapsed: float, stop: StopSignal
    ) -> tuple[float, float, bool]:
        """Count of all ranks' targets, the main process's clock, and whether any has to stop."""
        count = sum(each.targets.count.sum().item() for each in batch)
        main = self.accelerator.is_main_process
        count, elapsed, stopping = self.ranks.sum(
            [count, elapsed if main else 0.0, float(stop.raised)]
        )
        return count, elapsed, stopping > 0

    def _any(self, flag: bool) -> bool:
        """True on all ranks if it is on the main one."""
        return self.ranks.sum([float(flag and self.ranks.main)]) != [0.0]
