"""Embedders: what the compact form adds to a plain causal LM (see generalist.tokenization.compact).

An embedder looks every token up in a table of short rows, lays the K rows of an observation end to
end, and one linear layer makes G vectors of them. The cells of a board may first pass through
convolutions. The vectors are added to the embeddings of the
ids that stand at their positions, so the body stays a plain model over `inputs_embeds`. While a
model is trained or acts, they are its submodule `embedders`; in a checkpoint they lie beside the
plain weights.

Legend: N = observations, K = tokens of an observation, W = width of a table's rows, G = positions
of an observation, D = hidden size, P = positions of a forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.errors import UsageError
from generalist.modeling.tensors import Tensors
from generalist.modeling.world import HIGHEST, REACH, WorldHead
from generalist.tokenization.compact import QUERIES, TASKS, CompactForm, Run, Signature

MODULE = "embedders"
"""The attribute of a model that holds its embedders, and so the prefix of their weights' names."""

_ROW_STD = 0.5
_HIGHEST = {"bins": 100.0}  # frequency of Fourier features, radians per unit of [-1, 1]
_HIGHEST_OF_OTHERS = 6.0


@dataclass(frozen=True)
class Embedded(Tensors):
    """What one embedder, or a table of vectors, adds to a forward pass.

    Attributes:
        name: of a signature, or one of `TASKS` and `QUERIES`.
        ids: (N, K) int64 of the vocabulary; of a table (N, 1) numbers of its rows.
        index: (N,) int64, flat position of each first vector; its others follow it.
    """

    name: str
    ids: Tensor
    index: Tensor


class Embedder(nn.Module):
    """(N, K) ids of one signature to (N, G, D) vectors.

    Rows of neighbouring bins start as Fourier features of the bins' values, rows of codes as those
    of what the codes stand for; all others are random.

    Args:
        signature: what is embedded.
        positions: G.
        width: W.
        convolutions: how many the cells of a board pass through; other tokens pass through none.
        hidden_size: D.
        coordinates: by kind of run, (rows, c) float32 in [-1, 1], what the codes stand for.
    """

    offsets: Tensor

    def __init__(
        self,
        signature: Signature,
        *,
        positions: int,
        width: int,
        convolutions: int,
        hidden_size: int,
        coordinates: Mapping[str, np.ndarray],
    ) -> None:
        super().__init__()
        self.positions = positions
        offsets: list[int] = []
        tables: list[Tensor] = []
        for run in signature.runs:
            first = sum(len(table) for table in tables)
            offsets += [first - run.start] * run.count
            tables.append(_initial_rows(run, width, coordinates.get(run.kind)))
        # (K,), from an id to its row. On the model's device: made anew in a pass it would wait.
        self.register_buffer("offsets", torch.tensor(offsets), persistent=False)
        self.table = nn.Parameter(torch.cat(tables))
        self.mix = nn.Linear(signature.tokens * width, positions * hidden_size)
        self.side = signature.side
        count = 0 if self.side is None else convolutions
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(count)
        )

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (N, K) int64 of the vocabulary. Returns (N, G, D)."""
        rows = self.rows(ids)
        if self.convolutions:
            rows = self._with_neighbours(rows)
        return self.mix(rows.flatten(1)).unflatten(1, (self.positions, -1))

    def _with_neighbours(self, cells: Tensor) -> Tensor:
        """(N, K, W) rows of a board's cells, each with what the cells around it say."""
        board = cells.transpose(1, 2).unflatten(2, (self.side, -1))  # (N, W, S, S)
        for convolution in self.convolutions:
            board = board + F.relu(convolution(board))
        return board.flatten(2).transpose(1, 2)

    def rows(self, ids: Tensor) -> Tensor:
        """(N, K) ids to their (N, K, W) rows."""
        return F.embedding(ids + self.offsets, self.table)

    def row(self, ids: Tensor, place: int) -> Tensor:
        """(N,) ids of the token at `place` to their (N, W) rows."""
        return F.embedding(ids + self.offsets[place], self.table)


class Embedders(nn.Module):
    """The embedders of a model, with its tables of tasks and queries.

    Args:
        form: says which there are.
        hidden_size: D.
        coordinates: by kind of run, as `Embedder` takes them.
    """

    def __init__(
        self,
        form: CompactForm,
        hidden_size: int,
        coordinates: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.form = form
        std = hidden_size**-0.5
        self.tasks = nn.Parameter(torch.randn(len(form.tasks) + 1, hidden_size) * std)
        # At least one row: ZeRO finds no piece of a parameter without elements.
        self.queries = nn.Parameter(torch.randn(max(1, form.queries), hidden_size) * std)
        self.by_name = nn.ModuleDict(
            {
                each.name: Embedder(
                    each,
                    positions=form.positions if each.role == "observation" else 1,
                    width=form.width,
                    convolutions=form.convolutions,
                    hidden_size=hidden_size,
                    coordinates=coordinates or {},
                )
                for each in form.signatures
            }
        )
        self.worlds = nn.ModuleDict()
        if form.world is not None:
            places = np.linspace(-1, 1, 2 * REACH + 1, dtype=np.float32)[:, None]
            for each in form.signatures:
                if each.role == "observation":
                    near = fourier_features(places, hidden_size, lowest=1.0, highest=HIGHEST)
                    sizes = {"width": form.width, "hidden_size": hidden_size}
                    self.worlds[each.name] = WorldHead(each, near=near, **sizes)

    @property
    def tables(self) -> list[nn.Parameter]:
        """What is looked up, not multiplied by."""
        own = [each.table for each in self.by_name.values()]
        of_worlds = [table for each in self.worlds.values() for table in each.tables]
        return [self.tasks, self.queries, *own, *of_worlds]

    def vectors(self, name: str, ids: Tensor) -> Tensor:
        """(N, K) ids of a signature, or (N, 1) numbers of a table's rows, to (N, G, D) vectors.

        Raises UsageError where there is no embedder of this name.
        """
        if name == TASKS:
            return F.embedding(ids, self.tasks)
        if name == QUERIES:
            return F.embedding(ids, self.queries)
        if name not in self.by_name:
            raise UsageError(
                f"The model has no embedder for {name}; it has {', '.join(self.by_name)}. "
                "Fine-tune it on demonstrations of such a task first (model.init_from)."
            )
        return self.by_name[name](ids)

    def forward(self, hidden: Tensor, embedded: Sequence[Embedded]) -> Tensor:
        """Add all vectors to hidden (P, D), the embeddings of the ids at their positions.

        While it is trained every embedder is called, in one order. One that the pass does not use
        embeds an observation that counts nothing: ranks wait for each other's gradients and shards.
        """
        given = {part.name: part for part in embedded}
        for name in (TASKS, QUERIES, *self.by_name):
            if (part := given.pop(name, None)) is not None:
                vectors = self.vectors(name, part.ids).to(hidden.dtype)
                count = vectors.shape[1]
                places = part.index
                if count > 1:
                    places = (places[:, None] + torch.arange(count, device=places.device)).flatten()
                hidden = hidden.index_add(0, places, vectors.flatten(0, 1))
            elif torch.is_grad_enabled():
                hidden = hidden + (self._idle(name) * 0).sum().to(hidden.dtype)
        if given:
            self.vectors(next(iter(given)), torch.empty(0))  # says that there is none
        return hidden

    def _idle(self, name: str) -> Tensor:
        """Vectors that take part in a pass and add nothing to it."""
        if name in (TASKS, QUERIES):
            return self.tasks if name == TASKS else self.queries
        embedder = self.by_name[name]
        return embedder(-embedder.offsets[None])

    def idle_worlds(self, used: Iterable[str]) -> Tensor:
        """(), 0: all world heads but those used take part in a pass and add nothing to it."""
        left = [each for name, each in self.worlds.items() if name not in set(used)]
        # Times 0 before the sum: else a gradient is one number that is shown at every place.
        parts = [(p * 0).sum() for each in left for p in each.parameters()]
        return torch.stack(parts).sum() if parts else self.tasks.new_zeros(())


def embedders_of(model: Any) -> Embedders | None:
    """The embedders of a model in the compact form; None in the flat form."""
    return getattr(model, MODULE, None)


def _initial_rows(run: Run, width: int, coordinates: np.ndarray | None) -> Tensor:
    """(rows, W) float32, of standard deviation one half."""
    if run.kind == "bins":
        coordinates = ((np.arange(run.rows, dtype=np.float32) + 0.5) / run.rows * 2 - 1)[:, None]
    rows = torch.randn(run.rows, width) * _ROW_STD
    if coordinates is not None:
        highest = _HIGHEST.get(run.kind, _HIGHEST_OF_OTHERS)
        known = fourier_features(coordinates[: run.rows], width, lowest=1.0, highest=highest)
        rows[: len(known)] = known * _ROW_STD
    return rows


def fourier_features(
    coordinates: np.ndarray, width: int, *, lowest: float, highest: float
) -> Tensor:
    """(n, c) coordinates in [-1, 1] to (n, width) random features; near ones are alike.

    sqrt(2) cos(w . x + b), of unit variance, with b uniform on [0, 2 pi) and w a random direction
    whose length is log-uniform between the lowest and the highest frequency (random Fourier
    features, Rahimi and Recht 2007, section 3, at many resolutions in place of one).
    """
    values = torch.from_numpy(coordinates)
    low, high = math.log(lowest), math.log(highest)
    length = torch.exp(low + (high - low) * torch.rand(width))
    direction = F.normalize(torch.randn(values.shape[1], width), dim=0)
    phase = torch.rand(width) * 2 * math.pi
    return math.sqrt(2) * torch.cos(values @ (direction * length) + phase)
