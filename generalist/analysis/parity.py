"""Multitask sparse parity: a check of `quanta` whose answer is known (Michaud et al. 2023,
"The quantization model of neural scaling", section 3.1).

Each task is the parity of k of n random bits. No two tasks share a bit, so that none helps another
and all are as hard. A network sees the bits and which task it is. Tasks are drawn with frequencies
that follow a power law, and each is learned all at once after a while without any progress: the
frequent ones first.

The network is the one that plays boards: a header with the vector of the task, one position for all
bits, and two ids to answer with. A run leaves a log like that of any training.

Legend: T = tasks, n = bits, k = bits of a parity, B = batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces
from torch.nn import functional as F

from generalist.errors import UsageError
from generalist.modeling.boards import OUTCOMES, BoardIds, BoardNetwork
from generalist.modeling.build import build_model
from generalist.modeling.embedder_files import start_embedders
from generalist.modeling.recipe import EmbeddersRecipe, ModelRecipe
from generalist.tokenization.compact import CompactForm, signatures_of
from generalist.tokenization.processor import GeneralistProcessor
from generalist.training.log import LOG_FILE

FAMILY = "parity"
_WINDOW_TOKENS = 8
_FLAT_START = 0.1  # of the usual spread: at first both answers are about equally likely


@dataclass(frozen=True)
class Parity:
    """What is learned, and how.

    Attributes:
        tasks: T.
        bits: n.
        chosen: k.
        exponent: the task of rank r has a frequency of r^-exponent.
        batch: B.
        steps: optimizer steps.
        log_every: steps between two rows of the log.
        lr: learning rate of AdamW.
        seed: of the tasks, the bits and the first weights.
    """

    tasks: int = 10
    bits: int = 20
    chosen: int = 2
    exponent: float = 1.0
    batch: int = 512
    steps: int = 4_500
    log_every: int = 10
    lr: float = 2e-3
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
    network = _network(names, parity)
    optimizer = torch.optim.AdamW(
        network.trained().values(), lr=parity.lr, betas=(0.9, 0.98), weight_decay=0.0
    )
    out.mkdir(parents=True, exist_ok=True)
    sums = np.zeros((2, parity.tasks))  # of losses, and how many
    with (out / LOG_FILE).open("w") as file:
        for step in range(1, parity.steps + 1):
            task = random.choice(parity.tasks, parity.batch, p=frequency)
            bits = random.integers(2, size=(parity.batch, parity.bits), dtype=np.uint8)
            answer = np.take_along_axis(bits, subsets[task], axis=1).sum(axis=1) % 2
            losses = _step(network, optimizer, bits=bits, task=task, answer=answer)
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


def _step(
    network: BoardNetwork,
    optimizer: torch.optim.Optimizer,
    *,
    bits: np.ndarray,
    task: np.ndarray,
    answer: np.ndarray,
) -> np.ndarray:
    """An optimizer step; (B,) losses in nats before it."""
    logits, _ = network(torch.from_numpy(bits), torch.from_numpy(task))
    losses = F.cross_entropy(logits, torch.from_numpy(answer.astype(np.int64)), reduction="none")
    optimizer.zero_grad(set_to_none=True)
    losses.mean().backward()
    torch.nn.utils.clip_grad_norm_(network.trained().values(), 1.0)
    optimizer.step()
    network.forget()
    return losses.detach().numpy()


def _network(names: list[str], parity: Parity) -> BoardNetwork:
    processor = GeneralistProcessor.default()
    vocab = processor.vocabulary
    layout = processor.layout(spaces.MultiBinary(parity.bits), spaces.Discrete(2), task=names[0])
    form = CompactForm(positions=1, width=4).extended(dict.fromkeys(names, layout))
    recipe = ModelRecipe(
        form="compact", architecture="llama", hidden_size=64, intermediate_size=256, layers=2,
        heads=2, embedders=EmbeddersRecipe(width=4),
    )  # fmt: skip
    model = build_model(recipe, vocab, _WINDOW_TOKENS, parity.seed)
    model.embedders = start_embedders(form, recipe.hidden_size, seed=parity.seed, coordinates={})
    first, returns = vocab["discrete"].start, vocab["return"].start
    ids = BoardIds(
        signature=signatures_of(layout)[0].name,
        begin=vocab.special("begin"),
        separator=vocab.special("separator"),
        first_cell=first,
        moves=[first, first + 1],
        outcomes=list(range(returns, returns + OUTCOMES)),
        tasks=[form.number_of(name) for name in names],
    )
    network = BoardNetwork(model, ids)
    with torch.no_grad():
        network.head *= _FLAT_START
    return network
