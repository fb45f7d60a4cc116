"""How an agent shows its decoder what is observed: token by token, or in the compact form.

Legend: N = environments, S = tokens of a timestep, K = tokens of an observation, k = of an action,
G = positions of an observation in the compact form, E = hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch

from generalist.decoding.asking import Asking
from generalist.decoding.decoder import Decoder
from generalist.decoding.sampling import Choice
from generalist.decoding.slots import Added
from generalist.decoding.timestep import Chosen
from generalist.errors import UsageError
from generalist.modeling.embedders import Embedders
from generalist.tokenization.compact import QUERIES, TASKS, Signature, signatures_of
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor


@dataclass(frozen=True)
class Header:
    """What stands at the head of a window.

    Attributes:
        ids: one for each position.
        added: to their embeddings.
    """

    ids: list[int]
    added: tuple[Added, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What returns are asked for in the slots of a call.

    Attributes:
        ids: per slot, the id of the return-to-go that is shown; None for none.
        tilts: per slot, (R,) float32 on the log-probabilities of returns, of which one is drawn and
            shown; None for none.
    """

    ids: Sequence[int | None]
    tilts: Sequence[torch.Tensor | None]


class Form(Protocol):
    """How timesteps of a task become positions of a window.

    Attributes:
        positions: of a timestep.
        demonstration_positions: of a timestep of a demonstration.
    """

    positions: int
    demonstration_positions: int

    def header(self, instruction: str | None, demonstration: Sequence[int]) -> Header:
        """The head of a window.

        Args:
            instruction: what to do, in words.
            demonstration: ids of whole timesteps as they are stored, then the id that closes them;
                nothing for none.
        """

    def act(
        self,
        decoder: Decoder,
        slots: Sequence[int],
        seen: np.ndarray,
        choices: Sequence[Sequence[Choice]],
        *,
        log_probs: bool,
        asked: Asked | None = None,
        guidance: float | None = None,
    ) -> Chosen:
        """Feed each slot its observation, (N, K) ids in all, and choose its action tokens.

        In a form that shows later timesteps what was done, it shows these tokens.

        With `asked`, which takes a form with returns, values are read too. With guidance there are
        2 N slots: N, then the N that they are guided away from.
        """


class Flat:
    """One position for each token, chosen one after the other.

    Args:
        processor: makes headers.
        task: to act in.
        layout: of the task.
    """

    def __init__(self, processor: GeneralistProcessor, task: str, layout: Layout) -> None:
        self.positions = self.demonstration_positions = layout.tokens_per_timestep
        self._processor, self._task, self._layout = processor, task, layout

    def header(self, instruction: str | None, demonstration: Sequence[int]) -> Header:
        """As `Form.header`."""
        ids = self._processor.header(self._task, instruction).tolist()
        return Header([*ids, *demonstration])

    def act(
        self,
        decoder: Decoder,
        slots: Sequence[int],
        seen: np.ndarray,
        choices: Sequence[Sequence[Choice]],
        *,
        log_probs: bool,
        asked: Asked | None = None,
        guidance: float | None = None,
    ) -> Chosen:
        """As `Form.act`, in k forward passes; nothing can be asked.

        Raises UsageError for guidance.
        """
        if guidance is not None:
            raise UsageError(
                "Guidance needs a checkpoint in the compact form (model.form=compact); this one is "
                "flat."
            )
        chunks = self._layout.weave({"observation": seen}).tolist()
        return decoder.act(slots, chunks, choices, log_probs=log_probs)


class Compact:
    """Few positions of an observation, all action tokens chosen at once.

    Args:
        processor: makes headers.
        task: to act in.
        layout: of the task.
        embedders: of the model.

    Attributes:
        returns: the signature of returns; None where the form has none.
        shows_taken: whether a timestep ends with a position that shows what was done.
        separator: id that stands at all positions of a timestep.

    Raises UsageError where the model has no embedder for such observations, or too few queries.
    """

    def __init__(
        self, processor: GeneralistProcessor, task: str, layout: Layout, embedders: Embedders
    ) -> None:
        form = embedders.form
        form.check(task, layout)
        self.positions = form.timestep_positions(layout)
        self.demonstration_positions = form.positions
        self._processor, self._task, self._layout = processor, task, layout
        self._embedders = embedders
        self._number = form.number_of(task)
        self._observation, self._action = (each.name for each in signatures_of(layout))
        self.returns, self.shows_taken = form.returns, form.world is not None
        self.separator = processor.vocabulary.special("separator")

    def header(self, instruction: str | None, demonstration: Sequence[int]) -> Header:
        """As `Form.header`."""
        ids = self._processor.header(self._task, instruction, spelled=False).tolist()
        added = [Added(0, self._vectors(TASKS, [[self._number]])[0])]
        if len(demonstration) and self._layout.is_written:
            raise UsageError(f"{self._task} is text, which has no demonstrations; leave them out.")
        if len(demonstration):
            *stored, end = demonstration
            timesteps = np.reshape(stored, (-1, self._layout.tokens_per_timestep))
            added.append(Added(len(ids), self._shown(timesteps)))
            ids += [self.separator] * (len(timesteps) * self.demonstration_positions) + [end]
        return Header(ids, tuple(added))

    def _shown(self, timesteps: np.ndarray) -> torch.Tensor:
        """(n G, E) vectors of (n, S) stored ids, whose actions were taken."""
        of_role = self._layout.positions.of_role
        vectors = self._vectors(self._observation, timesteps[:, of_role("observation")])
        taken = self._vectors(self._action, timesteps[:, of_role("action")])  # (n, 1, E)
        last = vectors[:, -1:] + taken
        return torch.cat([vectors[:, :-1], last], dim=1).flatten(0, 1)

    def act(
        self,
        decoder: Decoder,
        slots: Sequence[int],
        seen: np.ndarray,
        choices: Sequence[Sequence[Choice]],
        *,
        log_probs: bool,
        asked: Asked | None = None,
        guidance: float | None = None,
    ) -> Chosen:
        """As `Form.act`, in one forward pass, in two where a return is drawn.

        Text is written in one a token. Raises UsageError for guidance of a model that can be asked
        for returns, and for guidance of text.
        """
        if guidance is not None and not math.isfinite(guidance):
            raise UsageError(f"Guidance must be a finite number, got {guidance}.")
        if guidance is not None and self._layout.is_written:
            raise UsageError(f"{self._task} is text, which is written without guidance.")
        if guidance is not None and self.returns is not None:
            raise UsageError(
                "Guidance does not go with a checkpoint that was trained with returns; leave "
                "guidance out."
            )
        asking, shown = None, None
        if self.returns is not None and asked is not None:
            shown = asked.ids
            asking = self._asking(self.returns, asked)
        vectors = self.observed(seen, shown)
        if self._layout.is_written:
            chunks = [[self.separator] * vectors.shape[1]] * len(vectors)
            return decoder.act(slots, chunks, choices, log_probs=log_probs, vectors=vectors)
        if guidance is not None:
            vectors = vectors.repeat(2, 1, 1)
        chunk = [self.separator] * vectors.shape[1]
        return decoder.act_at_once(
            slots, chunk, vectors, choices,
            log_probs=log_probs, asking=asking, guidance=guidance,
            taken=partial(self.taken, seen) if self.shows_taken else None,
        )  # fmt: skip

    def observed(self, seen: np.ndarray, shown: Sequence[int | None] | None = None) -> torch.Tensor:
        """(N, n, E) vectors of a timestep's positions up to the last at which a token is chosen.

        Args:
            seen: (N, K) ids of observations.
            shown: of each, the id of the return-to-go that is shown; None for none.
        """
        vectors = self._vectors(self._observation, seen)  # (N, G, E)
        if self.returns is not None:
            asked = vectors.new_zeros(len(vectors), 1, vectors.shape[2])
            rows = [row for row, own in enumerate(shown or ()) if own is not None]
            if rows:
                ids = [[own] for own in shown or () if own is not None]
                asked[rows] = self._vectors(self.returns.name, ids)
            vectors = torch.cat([vectors, asked], dim=1)
        if (queries := len(self._layout.legal) - 1) > 0 and not self._layout.is_written:
            queried = self._vectors(QUERIES, np.arange(queries)[:, None])[:, 0]  # (k - 1, E)
            vectors = torch.cat([vectors, queried.expand(len(vectors), -1, -1)], dim=1)
        return vectors

    def taken(self, seen: np.ndarray, actions: np.ndarray | torch.Tensor) -> torch.Tensor:
        """(N, 1, E) vectors of the position that shows what was done.

        Args:
            seen: (N, K) ids of the observations.
            actions: (N, k) ids of the actions.
        """
        observed = self._vectors(self._observation, seen)
        return observed + self._vectors(self._action, actions)

    def _asking(self, returns: Signature, asked: Asked) -> Asking:
        run, name = returns.runs[0], returns.name
        return Asking(
            place=self.demonstration_positions - 1,
            interval=(run.start, run.start + run.rows),
            tilts=asked.tilts,
            embed=lambda ids: self._vectors(name, ids)[:, 0],
        )

    @torch.inference_mode()
    def _vectors(self, name: str, ids: np.ndarray | torch.Tensor | list[list[int]]) -> torch.Tensor:
        device = self._embedders.tasks.device
        if not isinstance(ids, torch.Tensor):
            ids = torch.from_numpy(np.asarray(ids))
        return self._embedders.vectors(name, ids.to(device))


def form_of(
    embedders: Embedders | None, processor: GeneralistProcessor, task: str, layout: Layout
) -> Form:
    """The form in which a model with these embedders acts in a task; documents are always flat."""
    if embedders is None or layout.is_document:
        return Flat(processor, task, layout)
    return Compact(processor, task, layout, embedders)
