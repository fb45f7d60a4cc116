"""Multitask sparse parity: a check of `quanta` whose answer is known (Michaud et al. 2023,
"The quantization model of neural scaling", section 3.1).

Each task is the parity of k of n random bits. No two tasks share a bit, so that none helps another
and all are as hard. A network sees the bits and which task it is. Tasks are drawn with frequencies
that follow a power law, and each is learned all at once after a while without any progress: the
frequent ones first.

The network is the paper's: one hidden layer of ReLUs, by Adam. It sees a bit as -1 or 1: with 0
and 1, as in the paper, it learns the same in two to three times as many steps. A run leaves a log
like that of any training.

Legend: T = tasks, n = bits, k = bits of a parity, B = batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from generalist.errors import UsageError
from generalist.training.log import LOG_FILE

FAMILY = "parity"


@dataclass(frozen=True)
class Parity:
    """What is learned, and how. The paper has 500 tasks, 100 bits and batches of 20,000.

    Attributes:
        tasks: T.
        bits: n.
        chosen: k.
        exponent: the task of rank r has a frequency of r^-exponent.
        width: of the hidden layer.
        batch: B.
        steps: optimizer steps.
        log_every: steps between two rows of the log.
        lr: learning rate of Adam.
        seed: of the tasks, the bits and the first weights.
    """

    tasks: int = 10
    bits: int = 30
    chosen: int = 3
    exponent: float = 1.4
    width: int = 128
    batch: int = 512
    steps: int = 4_000
    log_every: int = 10
    lr: float = 1e-2
    seed: int = 0


def learn_parity(
    parity: Parity, out: Path, on_step: Callable[[int, float], None] | None = None
) -> Path:
    """Train a network on the tasks; return the log, `OUT/log.jsonl`, which is begun anew.

    Args:
        parity: the tasks and the training.
        out: folder of the log.
        on_step: called with the number of each row's step and its mean loss in nats.
    """
    names = [f"{FAMILY}/{rank:02d}" for rank in range(1, parity.tasks + 1)]
    random = np.random.default_rng(parity.seed)
    subsets = _subsets(parity, random)
    frequency = np.arange(1, parity.tasks + 1) ** -parity.exponent
    frequency /= frequency.sum()
    network = _network(parity)
    optimizer = torch.optim.Adam(network.parameters(), lr=parity.lr, betas=(0.9, 0.98))
    out.mkdir(parents=True, exist_ok=True)
    sums = np.zeros((2, parity.tasks))  # of losses, and how many
    with (out / LOG_FILE).open("w") as file:
        for step in range(1, parity.steps + 1):
            task = random.choice(parity.tasks, parity.batch, p=frequency)
            bits = random.integers(2, size=(parity.batch, parity.bits), dtype=np.uint8)
            answer = np.take_along_axis(bits, subsets[task], axis=1).sum(axis=1) % 2
            seen = np.concatenate([np.eye(parity.tasks)[task], 2.0 * bits - 1], axis=1)
            losses = _step(network, optimizer, seen=seen, answer=answer)
            for number, values in enumerate((losses, np.ones_like(losses))):
                sums[number] += np.bincount(task, weights=values, minlength=parity.tasks)
            if step % parity.log_every == 0:
                file.write(json.dumps(_row(step, names, *sums)) + "\n")
                if on_step is not None:
                    on_step(step, float(sums[0].sum() / sums[1].sum()))
                sums[:] = 0
    return out / LOG_FILE


def _subsets(parity: Parity, random: np.random.Generator) -> np.ndarray:
    """(T, k) the bits of each task; UsageError where there are not so many."""
    wanted = parity.tasks * parity.chosen
    if wanted > parity.bits:
        raise UsageError(
            f"{parity.tasks} tasks of {parity.chosen} bits each take {wanted} bits, not "
            f"{parity.bits}."
        )
    return random.permutation(parity.bits)[:wanted].reshape(parity.tasks, parity.chosen)


def _row(step: int, names: list[str], losses: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Mean loss and share of targets of each task that was drawn."""
    row: dict[str, float] = {"step": step, "loss": float(losses.sum() / counts.sum())}
    for name, loss, count in zip(names, losses.tolist(), counts.tolist(), strict=True):
        if count:
            row |= {f"loss/{name}": loss / count, f"share/{name}": count / float(counts.sum())}
    return row


def _network(parity: Parity) -> nn.Module:
    """From (B, T + n), which task and the bits, to (B, 2) logits of an even and of an odd sum."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(parity.seed)
        return nn.Sequential(
            nn.Linear(parity.tasks + parity.bits, parity.width),
            nn.ReLU(),
            nn.Linear(parity.width, 2),
        )


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, *, seen: np.ndarray, answer: np.ndarray
) -> np.ndarray:
    """An optimizer step on inputs (B, T + n) and sums (B,); (B,) losses in nats before it."""
    logits = network(torch.from_numpy(seen.astype(np.float32)))
    losses = F.cross_entropy(logits, torch.from_numpy(answer.astype(np.int64)), reduction="none")
    optimizer.zero_grad(set_to_none=True)
    losses.mean().backward()
    optimizer.step()
    return losses.detach().numpy()
