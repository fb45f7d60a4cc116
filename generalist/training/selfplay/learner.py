"""Learning from positions: visits are what moves should be chosen by, outcomes what is expected.

Legend: B = positions, L = most legal moves.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from generalist.errors import GeneralistError
from generalist.modeling.boards import BoardNetwork
from generalist.training.selfplay.imitation import Imitation
from generalist.training.selfplay.recipe import LearningRecipe, LengthRecipe, OptimizerRecipe
from generalist.training.selfplay.replay import Played


class Learner:
    """Optimizer steps on a network of boards.

    Args:
        network: the network.
        tasks: (games,) its task of each game.
        columns: from a move of the common board to its column of logits.
        learning: the targets.
        optimizer: the optimizer's settings.
        length: the schedule of the learning rate.
        imitation: of demonstrations, in the same steps; None for none.

    Attributes:
        step: optimizer steps so far.
        skipped: steps without an update in this start of the run.

    Raises:
        GeneralistError: too many gradients were not finite; from `learn`.
    """

    def __init__(
        self,
        network: BoardNetwork,
        *,
        tasks: np.ndarray,
        columns: np.ndarray,
        learning: LearningRecipe,
        optimizer: OptimizerRecipe,
        length: LengthRecipe,
        imitation: Imitation | None = None,
    ) -> None:
        self.network, self.step, self.skipped = network, 0, 0
        self._tasks, self._columns = tasks, columns
        self._learning, self._recipe, self._length = learning, optimizer, length
        self._imitation = imitation
        self.parameters = network.trained()
        tables = {id(table) for table in network.tables}
        matrices = [p for p in self.parameters.values() if p.ndim == 2 and id(p) not in tables]
        decayed = {id(matrix) for matrix in matrices}
        others = [p for p in self.parameters.values() if id(p) not in decayed]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": others, "weight_decay": 0.0},
                {"params": matrices, "weight_decay": optimizer.weight_decay},
            ],
            lr=optimizer.lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            fused=True,
        )

    def learn(self, positions: Played, done: float) -> Tensor:
        """Take a step; return the losses of moves, above their entropy, and of values: (2,).

        Args:
            positions: B of them.
            done: progress of the run, in [0, 1].
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self._recipe.lr * self._factor(done)
        moves, entropy, values = self._losses(positions)
        self.optimizer.zero_grad(set_to_none=True)
        (moves + values).backward()
        if self._imitation is not None:
            self._imitation.backward(self.step)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self._recipe.max_grad_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            self._skip(float(norm))
        self.step += 1
        self.network.forget()
        return torch.stack([moves.detach() - entropy, values.detach()])

    def _skip(self, norm: float) -> None:
        """Count a step without an update; raise GeneralistError after too many."""
        self.skipped += 1
        if self.skipped > self._recipe.max_skipped:
            raise GeneralistError(
                f"{self.skipped} steps had a gradient that is not finite (step {self.step}: norm "
                f"{norm}). Try a lower optimizer.lr."
            )

    def _factor(self, done: float) -> float:
        warmup = min(1.0, (self.step + 1) / max(1, self._length.warmup_steps))
        floor = self._length.final_lr_fraction
        return warmup * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))

    def _losses(self, positions: Played) -> tuple[Tensor, Tensor, Tensor]:
        """Mean cross entropy of moves and entropy of their targets, over full searches; and mean
        cross entropy of outcomes over all; in nats.
        """
        moves = positions.moves.astype(np.int64)
        logits, outcomes = self.network(
            torch.from_numpy(positions.cells),
            torch.from_numpy(self._tasks[positions.game]),
        )
        legal = torch.from_numpy(moves >= 0)
        logits = logits.gather(1, torch.from_numpy(self._columns[moves]))
        chances = logits.masked_fill(~legal, -torch.inf).log_softmax(1).masked_fill(~legal, 0)
        visits = positions.visits.astype(np.float32)
        wanted = torch.from_numpy(visits / visits.sum(axis=1, keepdims=True))
        full = torch.from_numpy(positions.full.astype(np.float32))
        weight = full / full.sum().clamp(min=1)
        entropy = -(weight * torch.xlogy(wanted, wanted).sum(1)).sum()
        of_moves = -(weight * (wanted * chances).sum(1)).sum()
        of_values = -(self._outcomes(positions) * outcomes.log_softmax(1)).sum(1).mean()
        return of_moves, entropy, of_values

    def _outcomes(self, positions: Played) -> Tensor:
        """(B, 3) chances of lost, drawn and won: the outcome mixed with the search's value."""
        share = self._learning.value_from_search
        parts = [(1 - share, positions.outcome), (share, np.clip(positions.value, -1, 1))]
        # A value v as the chance |v| of winning or losing, and else a draw.
        mixed = sum(
            weight * np.stack([np.maximum(-v, 0), 1 - abs(v), np.maximum(v, 0)], axis=1)
            for weight, v in parts
        )
        return torch.from_numpy(np.asarray(mixed, np.float32))

    # To be continued

    def moments(self) -> dict[str, Tensor]:
        """State of the optimizer, as kind/name."""
        return {
            f"{kind}/{name}": value
            for name, parameter in self.parameters.items()
            for kind, value in self.optimizer.state.get(parameter, {}).items()
        }

    def restore(self, moments: dict[str, Tensor], step: int) -> None:
        """Take what `moments` gave, and the number of steps."""
        self.step = step
        for key, value in moments.items():
            kind, _, name = key.partition("/")
            self.optimizer.state[self.parameters[name]][kind] = value
