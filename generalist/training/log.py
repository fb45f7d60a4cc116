"""The log of a run: a progress bar, rows in log.jsonl and in trackers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from generalist.training.checkpoint import RunState
from generalist.training.data import TrainingData
from generalist.training.passes import ForwardPass
from generalist.training.recipe import Recipe, dump_recipe
from generalist.training.repetition import OFTEN, summary, times_seen, warning
from generalist.training.throughput import FlopCounter, SpikeDetector, peak_flops

LOG_FILE = "log.jsonl"


class TrainingLog:
    """Averages over `log_every` steps; only the main process shows and writes them.

    Losses stay on the device until a row is due.

    Args:
        recipe: the recipe of the run.
        accelerator: its accelerator.
        data: the data at the beginning.
        flops: counts the FLOPs of forward passes.
        more: gives what a row says besides, of so many seconds; all ranks call it.

    Attributes:
        spikes: number of losses that stood out, in this start of the run.
    """

    recipe: Recipe
    accelerator: Accelerator
    device: torch.device
    tasks: list[str]  # of each dataset folder; several may hold one task
    labels: dict[str, int]  # task -> number of labels in its data
    flops: FlopCounter
    spikes: int

    # Since the last row
    _sums: Tensor  # (tasks, 2) float64: sum of losses, number of targets
    _counted: Tensor  # (tasks,) float64: targets that are in the run's state already
    _losses: list[Tensor]  # of this rank's steps, () each
    _number: int  # of the last step
    _norm: float
    _lr: float
    _flops: float
    _waited: float  # seconds
    _began: float  # seconds of the monotonic clock
    # Of the whole run
    _state: RunState
    _warned: set[str]  # tasks whose labels were seen often
    _spikes: SpikeDetector
    _bar: tqdm | None
    _file: IO[str] | None
    _trackers: bool

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Accelerator,
        *,
        data: TrainingData,
        flops: FlopCounter,
        more: Callable[[float], dict[str, float]],
    ) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        self.tasks, self.labels = list(data.task_names), data.labels
        self.device = accelerator.device
        self.flops, self.spikes = flops, 0
        self._more = more
        self._state, self._warned = RunState(), set()
        self._spikes = SpikeDetector()
        self._bar, self._file = None, None
        self._trackers = bool(recipe.trackers)
        self._reset()

    def _reset(self) -> None:
        # Of each task the losses of targets and their number, then the same of outcomes.
        self._sums = torch.zeros(len(self.tasks), 4, dtype=torch.float64, device=self.device)
        self._counted = torch.zeros_like(self._sums[:, 1])
        self._losses, self._number = [], 0
        self._norm = self._lr = self._flops = self._waited = 0.0
        self._began = time.monotonic()

    def describe(
        self, model: nn.Module, parameters: dict[str, int], *, running: str, state: RunState
    ) -> None:
        """Print one line about the run, and count its labels in `state` from now on.

        Args:
            model: the model.
            parameters: its numbers of parameters, by `total` and `body`.
            running: strategy and precision, in words.
            state: its progress where it begins.
        """
        self._state = state
        self.accelerator.print(
            f"{type(model).__name__}, {parameters['total']:,} parameters "
            f"({parameters['body']:,} in the body), "
            f"{_work_of(self.recipe)} a step, "
            f"{running}, from step {state.step}."
        )

    def __enter__(self) -> TrainingLog:
        if self._trackers:
            self.accelerator.init_trackers("log", config={"recipe": dump_recipe(self.recipe)})
        if self.accelerator.is_main_process:
            self.recipe.output_dir.mkdir(parents=True, exist_ok=True)
            self._file = (self.recipe.output_dir / LOG_FILE).open("a")
            # A file or a pipe gets a line every 30 s instead of a screen full of bars.
            interval = 0.5 if sys.stderr.isatty() else 30.0
            self._bar = tqdm(
                total=100.0,
                desc="train",
                mininterval=interval,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            )
        self._reset()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
            if times := self._times_seen():
                print(summary(times), file=sys.stderr)
        if self._file is not None:
            self._file.close()
        # Not accelerator.end_training(), which also takes down the process group.
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def restart(self, data: TrainingData) -> None:
        """Begin a new row for other data; the steps since the last row are left out.

        Args:
            data: the data from now on.
        """
        self._means()
        self.count()
        self.tasks, self.labels = list(data.task_names), data.labels
        self._reset()

    def count(self) -> None:
        """Add the targets that were seen since the last time to the run's state, on all ranks."""
        counts = self.accelerator.reduce(self._sums[:, 1], "sum")
        seen = self._state.labels
        for task, count in zip(self.tasks, (counts - self._counted).tolist(), strict=True):
            seen[task] = seen.get(task, 0) + round(count)
        self._counted = counts

    def _times_seen(self) -> dict[str, float]:
        return times_seen(self._state.labels, self.labels)

    def _warn_of_repetition(self, times: dict[str, float]) -> None:
        """Say once of a task that its labels were seen often."""
        for task in [each for each, x in times.items() if x >= OFTEN and each not in self._warned]:
            self._warned.add(task)
            self.say(warning(task, times[task], self.labels[task]))

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave the time inside out of the rates."""
        start = time.monotonic()
        yield
        self._began += time.monotonic() - start

    def scores(self, state: RunState, row: dict[str, float]) -> None:
        """Write and print a row of scores, on the main process."""
        if not row:
            return
        self.row(state, row)
        shown = (f"{name[6:]} {value:.4g}" for name, value in row.items() if name[:6] == "score/")
        self.say(f"Step {state.step}, scores: {', '.join(shown)}.")

    def row(self, state: RunState, row: dict[str, float]) -> None:
        """Write a row of what a round found, on the main process."""
        if self._trackers:
            self.accelerator.log(row, step=state.step)
        if self._file is not None:
            self._file.write(json.dumps({"step": state.step, **row}) + "\n")
            self._file.flush()

    def say(self, line: str) -> None:
        """Print a line above the bar, on the main process."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)

    def _losses_of_tasks(self, sums: list[list[float]]) -> dict[str, float]:
        """Mean loss per target by task and by family, and each task's share of the targets.

        A task may have several folders. What comes of actions has a mean of its own, by task.
        """
        found: dict[str, tuple[float, float]] = {}
        for task, (total, count, of_world, outcomes) in zip(self.tasks, sums, strict=True):
            pairs = {
                f"loss/{task}": (total, count),
                f"family_loss/{task.partition('/')[0]}": (total, count),
                f"world_loss/{task}": (of_world, outcomes),
            }
            for name, pair in pairs.items():
                before = found.get(name, (0.0, 0.0))
                found[name] = before[0] + pair[0], before[1] + pair[1]
        every = sum(count for _, count, *_ in sums)
        shares = {
            f"share/{name[5:]}": count / every
            for name, (_, count) in sorted(found.items())
            if count and name.startswith("loss/")
        }
        losses = {name: total / count for name, (total, count) in sorted(found.items()) if count}
        return losses | shares

    def _rates(self, steps: int, seconds: float) -> dict[str, float]:
        """Rates of imitation; a run that plays has others."""
        if self.recipe.reinforcement is not None:
            return {}
        data = self.recipe.data
        tokens = steps * data.rows_per_step * data.window_tokens
        return {"tokens_per_second": tokens / seconds, **self._arithmetic(seconds)}

    def _arithmetic(self, seconds: float) -> dict[str, float]:
        """Model FLOP/s of all processes, and their share of the peak (MFU) where that is known."""
        accelerator = self.accelerator
        mine = torch.tensor(self._flops / seconds, device=self.device)
        rate = accelerator.reduce(mine, "sum").item()
        peak = peak_flops(self.device, accelerator.mixed_precision)
        share = {} if peak is None else {"mfu": rate / (peak * accelerator.num_processes)}
        return {"model_flops_per_second": rate} | share

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def add(self, batch: ForwardPass, losses: Tensor) -> None:
        """Count one forward pass: (M,) losses of its targets."""
        plain = len(batch.plain_targets.task)
        counted = torch.ones_like(losses, dtype=torch.float64)
        counted[plain:] = (batch.weight[plain:] > 0).double()  # the last observation has no next
        pairs = torch.stack([losses.double() * counted, counted], dim=1)
        task = batch.targets.task
        self._sums[:, :2].index_add_(0, task[:plain], pairs[:plain])
        self._sums[:, 2:].index_add_(0, task[plain:], pairs[plain:])
        self._flops += self.flops.of(batch)

    def step(self, number: int, loss: Tensor, *, norm: float, lr: float) -> None:
        """Count one optimizer step, with this rank's loss, ()."""
        self._losses.append(loss)
        self._number, self._norm, self._lr = number, norm, lr

    def _means(self) -> list[float]:
        """Losses of the steps since the last row, averaged over ranks; reports spikes."""
        if not self._losses:
            return []
        losses = self.accelerator.reduce(torch.stack(self._losses), "mean").tolist()
        for step, loss in enumerate(losses, self._number - len(losses) + 1):
            if (spike := self._spikes.see(loss)) is not None:
                self.spikes += 1
                self.say(f"Step {step}: {spike}.")
        return losses

    def flush_if_due(self, state: RunState, done: float) -> None:
        """Write a row of averages and move the bar, every `log_every` steps.

        Args:
            state: the progress of the run.
            done: progress of the schedule, in [0, 1].
        """
        if state.step % self.recipe.log_every:
            return
        self.count()
        times = self._times_seen()
        self._warn_of_repetition(times)
        sums, losses = self.accelerator.reduce(self._sums, "sum").tolist(), self._means()
        seconds = time.monotonic() - self._began
        row = {
            "loss": sum(losses) / max(1, len(losses)),
            "gradient_norm": self._norm,
            "lr": self._lr,
            **self._rates(len(losses), seconds),
            "data_wait_share": self._waited / seconds,
            "skipped_steps": state.skipped,
            "loss_spikes": self.spikes,
            "minutes": state.elapsed_seconds / 60,
        }
        row |= self._losses_of_tasks(sums) | self._more(seconds)
        row |= {f"labels_seen/{task}": x for task, x in times.items()}
        if self._trackers:
            self.accelerator.log(row, step=state.step)
        if self._bar is not None and self._file is not None:
            self._file.write(json.dumps({"step": state.step, **row}) + "\n")
            self._file.flush()
            self._bar.set_postfix_str(f", step {state.step}, {_in_short(row)}", refresh=False)
            self._bar.update(max(0.0, 100 * done - self._bar.n))
        self._reset()


def _in_short(row: dict[str, float]) -> str:
    """What the bar says of a row."""
    if "tokens_per_second" in row:
        return f"loss {row['loss']:.3f}, {row['tokens_per_second']:,.0f} tokens/s"
    returns = [
        f"{name.rpartition('/')[2]} {value:.3g}"
        for name, value in row.items()
        if name.startswith("recent_return/")
    ]
    return ", ".join([f"{row['environment_steps_per_second']:,.0f} steps/s", *returns])


def _work_of(recipe: Recipe) -> str:
    """What an optimizer step learns from, in words."""
    if (wanted := recipe.reinforcement) is not None:
        environments = sum(task.environments for task in wanted.tasks.values())
        steps = environments * wanted.unroll // wanted.minibatches
        return f"{environments} environments, {steps:,} of their steps"
    return f"{recipe.data.rows_per_step} x {recipe.data.window_tokens} tokens"
