"""The decoder: token ids in, token ids out, for many sequences at once. It knows nothing else.

A *slot* is one running sequence: a header, then timesteps without end. Each slot keeps its
context in one row of a `RowCache`. The last action token of a timestep is not fed on its own: it
goes into the same forward pass as the observation of the next timestep, so that a timestep with k
action tokens costs exactly k forward passes for all slots together.

When a slot's window is full, *staggered caches* keep it exact at bounded cost: from the moment
the older row is half full, a younger row (header copied) receives the same timesteps; at the limit
the older is dropped and the younger acts on. What a slot acts from is therefore always what a
full forward pass over `Decoder.context(slot)` would give. The younger row's logits are not
needed before it takes over, so it is fed a backlog at a time, inside passes that happen anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from generalist.decoding.cache import RowPlan
from generalist.decoding.graphs import GraphedPass, can_be_graphed
from generalist.decoding.lean import LeanPass
from generalist.decoding.packed import is_known
from generalist.decoding.plain import PlainPass
from generalist.decoding.sampling import GREEDY, Sampling, choose
from generalist.errors import GeneralistError
from generalist.streams import Stream, random_stream

Interval = tuple[int, int]  # half-open interval of token ids
Mask = np.ndarray | None  # bool or 0 and 1, one an id of an interval; None: all of them

_UNKNOWN = -1  # stands for a token that the device has chosen and the CPU has not heard of


@dataclass
class _Row:
    """One row of the cache: the tokens of its context, of which the first `fed` are cached."""

    index: int
    tokens: list[int]
    fed: int = 0

    @property
    def backlog(self) -> int:
        return len(self.tokens) - self.fed


@dataclass
class _Slot:
    """One running sequence; `younger` takes over when `older` is full."""

    header: list[int]
    older: _Row
    random: np.random.Generator
    younger: _Row | None = None

    def append(self, tokens: Sequence[int]) -> None:
        self.older.tokens.extend(tokens)
        if self.younger is not None:
            self.younger.tokens.extend(tokens)

    def replace_last(self, tokens: Sequence[int]) -> None:
        """Put these tokens in the place of as many appended last."""
        for row in (self.older, self.younger):
            if row is not None:
                row.tokens[-len(tokens) :] = tokens


class Decoder:
    """Feeds tokens to a causal language model and chooses tokens, slot by slot or all at once.

    model: a Hugging Face causal LM whose attention goes through transformers' attention interface
        (Llama, Qwen3 and most others). It is not changed. Where it is trained on
        meanwhile, a slot acts by the new weights from its next reset, and often sooner.
    slots: how many sequences run side by side.
    window_tokens: the longest context; default the model's `max_position_embeddings`.
    keep: the part of its limit that the younger row has about filled when it takes over; at most
        one half. Contexts are between about `keep` and 1 of the limit long, headers apart.
    backlog_tokens: the younger row is fed once this many tokens wait for it. 1 feeds it at every
        timestep; None only when it takes over (cheapest, but that one pass is long).
    body_tokens: most tokens after the header; default what the window leaves.
    plain: go through the model's own code also where a shorter way is known.
    padded: attend to all rows at once on padded tensors where that is done by the model's own code;
        default on all devices but the CPU.
    """

    def __init__(
        self,
        model: Any,
        slots: int,
        window_tokens: int | None = None,
        keep: float = 0.5,
        backlog_tokens: int | None = 16,
        body_tokens: int | None = None,
        plain: bool = False,
        padded: bool | None = None,
    ) -> None:
        if not 0 < keep <= 0.5:
            raise GeneralistError(f"keep must lie in (0, 0.5], got {keep}.")
        longest = model.config.max_position_embeddings
        self.window_tokens = window_tokens or longest
        if self.window_tokens > longest:
            raise GeneralistError(
                f"A window of {self.window_tokens} tokens was asked for, but the model was made "
                f"for at most {longest} positions."
            )
        self.body_tokens = body_tokens or self.window_tokens
        self.keep = keep
        self.model = model
        self.head = model.get_output_embeddings()
        self.device = next(model.parameters()).device
        self.backlog_tokens = self.window_tokens if backlog_tokens is None else backlog_tokens
        self.forward_passes = 0
        self.padded = self.device.type != "cpu" if padded is None else padded
        self.forward = _forward_of(model, 2 * slots, self.window_tokens, plain)
        self._was_reset = False
        self._free = list(reversed(range(2 * slots)))
        self._slots: list[_Slot | None] = [None] * slots

    def __len__(self) -> int:
        return len(self._slots)

    # Sequences

    def reset(self, slot: int, header: Sequence[int], seed: int = 0) -> None:
        """Forget slot `slot` and start it anew with these header ids; nothing is fed yet."""
        self.release(slot)
        self._was_reset = True
        row = _Row(self._free.pop(), [int(token) for token in header])
        self._slots[slot] = _Slot(list(row.tokens), row, random_stream(seed, Stream.AGENT))

    def release(self, slot: int) -> None:
        """Forget slot `slot` and leave it empty."""
        state = self._slots[slot]
        if state is not None:
            self._free += [row.index for row in (state.older, state.younger) if row is not None]
        self._slots[slot] = None

    def running(self, slot: int) -> bool:
        """True where the slot holds a sequence."""
        return self._slots[slot] is not None

    def context(self, slot: int) -> np.ndarray:
        """Ids (int64) that the slot's next choice is conditioned on, the header included."""
        return np.array(self._state(slot).older.tokens, dtype=np.int64)

    def _state(self, slot: int) -> _Slot:
        state = self._slots[slot]
        if state is None:
            raise GeneralistError(f"Slot {slot} was fed before it was reset.")
        return state

    # One timestep

    def act(
        self,
        slots: Sequence[int],
        chunks: Sequence[Sequence[int]],
        legal: Sequence[Sequence[Interval]],
        ordinal: Sequence[Sequence[bool]] | None = None,
        sampling: Sampling = GREEDY,
        masks: Sequence[Mask] | None = None,
    ) -> list[np.ndarray]:
        """Feed each slot its observation tokens, choose its action tokens.

        chunks: per slot, the ids from the start of the timestep to the first action token.
        legal: per slot, k intervals of legal ids. ordinal: per slot, k flags.
        masks: per slot, which ids of the first interval are legal now; default all.
        Returns per slot (k,) int64 ids. Costs max(k) forward passes.
        """
        ordinal = ordinal or [[False] * len(intervals) for intervals in legal]
        states = [self._state(slot) for slot in slots]
        hidden = self.feed(slots, chunks, [len(intervals) for intervals in legal])
        chosen: list[torch.Tensor] = []  # of each position, and of which slots
        members: list[list[int]] = []
        active = list(range(len(slots)))
        for position in range(max(len(intervals) for intervals in legal)):
            if position:
                going_on = [len(legal[i]) > position for i in active]
                active = [i for i, goes_on in zip(active, going_on, strict=True) if goes_on]
                ids = chosen[-1] if all(going_on) else chosen[-1][going_on]
                hidden = self.advance([slots[i] for i in active], ids)
            ids = self._choose(
                [states[i] for i in active],
                hidden,
                [legal[i][position] for i in active],
                [ordinal[i][position] for i in active],
                sampling,
                None if position else masks,
            )
            for i in active:
                states[i].append([_UNKNOWN])
            chosen.append(ids)
            members.append(active)
        return _told(states, members, chosen)

    def feed(
        self, slots: Sequence[int], chunks: Sequence[Sequence[int]], reserve: Sequence[int]
    ) -> torch.Tensor:
        """Start a timestep in each slot: feed what waits, then the chunk; one forward pass.

        reserve: per slot, how many tokens of the timestep will follow the chunk.
        Returns (n, hidden) states from which the next token is predicted.
        """
        self.forward.refresh(thoroughly=self._was_reset)
        self._was_reset = False
        states = [self._state(slot) for slot in slots]
        for slot, state, chunk, more in zip(slots, states, chunks, reserve, strict=True):
            self._make_room(slot, state, len(chunk) + more)
            state.append([int(token) for token in chunk])
        waiting = [
            state.younger
            for state in states
            if state.younger is not None and state.younger.backlog >= self.backlog_tokens
        ]
        return self._forward([state.older for state in states], waiting)

    def advance(self, slots: Sequence[int], ids: torch.Tensor | None = None) -> torch.Tensor:
        """Feed each slot the token chosen last; one forward pass. Returns (n, hidden).

        ids: (n,) these tokens, where they are still on the model's device alone.
        """
        return self._forward([self._state(slot).older for slot in slots], [], ids)

    def choose(
        self,
        slots: Sequence[int],
        hidden: torch.Tensor,
        legal: Sequence[Interval],
        ordinal: Sequence[bool],
        sampling: Sampling = GREEDY,
        masks: Sequence[Mask] | None = None,
    ) -> list[int]:
        """Choose one legal id a slot from (n, hidden) states; it is fed with what comes next."""
        states = [self._state(slot) for slot in slots]
        chosen = self._choose(states, hidden, legal, ordinal, sampling, masks).tolist()
        for state, token in zip(states, chosen, strict=True):
            state.append([token])
        return chosen

    def _choose(
        self,
        states: Sequence[_Slot],
        hidden: torch.Tensor,
        legal: Sequence[Interval],
        ordinal: Sequence[bool],
        sampling: Sampling,
        masks: Sequence[Mask] | None,
    ) -> torch.Tensor:
        """(n,) int64 ids on the model's device, one a slot."""
        groups: dict[tuple[Interval, bool], list[int]] = {}
        for i, key in enumerate(zip(legal, ordinal, strict=True)):
            groups.setdefault((tuple(key[0]), bool(key[1])), []).append(i)  # type: ignore[arg-type]
        chosen = torch.empty(len(states), dtype=torch.int64, device=hidden.device)
        for (interval, is_ordinal), members in groups.items():
            uniform = None
            if sampling.temperature > 0:
                uniform = torch.tensor([states[i].random.random() for i in members])
            rows = hidden if len(members) == len(states) else hidden[members]
            logits = self.logits(rows, interval)
            if masks is not None:
                logits = _masked(logits, [masks[i] for i in members])
            ids = choose(logits, sampling, is_ordinal, uniform) + interval[0]
            if len(members) == len(states):
                return ids
            chosen[members] = ids
        return chosen

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor, interval: Interval) -> torch.Tensor:
        """(n, hidden) to (n, stop - start) logits of the ids in [start, stop) alone."""
        legal = slice(*interval)
        bias = getattr(self.head, "bias", None)
        return functional.linear(
            hidden, self.head.weight[legal], None if bias is None else bias[legal]
        )

    # The rows

    def _make_room(self, slot: int, state: _Slot, tokens: int) -> None:
        """Called at a timestep boundary: start the younger row, or let it take over."""
        needed = len(state.header) + tokens
        if needed > self.window_tokens:
            raise GeneralistError(
                f"A timestep of {tokens} tokens after a header of {len(state.header)} does not fit "
                f"into a window of {self.window_tokens} tokens."
            )
        self._start_younger(state)
        if len(state.older.tokens) + tokens > self._limit(state):
            younger = state.younger or self._fork(state)
            if len(younger.tokens) + tokens > self._limit(state):  # long header, short window
                self._free.append(younger.index)
                younger = self._fork(state)
            self._free.append(state.older.index)
            state.older, state.younger = younger, None
            self._start_younger(state)

    def _start_younger(self, state: _Slot) -> None:
        body = self._limit(state) - len(state.header)
        filled = len(state.older.tokens) - len(state.header)
        if state.younger is None and filled >= body - int(self.keep * body):
            state.younger = self._fork(state)

    def _limit(self, state: _Slot) -> int:
        """Tokens of a context of this slot, at most."""
        return min(self.window_tokens, len(state.header) + self.body_tokens)

    def _fork(self, state: _Slot) -> _Row:
        """A new row that holds the header alone, its keys copied."""
        row = _Row(self._free.pop(), list(state.header), min(len(state.header), state.older.fed))
        self.forward.copy_prefix(state.older.index, row.index, row.fed)
        return row

    @torch.inference_mode()
    def _forward(
        self, rows: Sequence[_Row], extra: Sequence[_Row], ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Feed all rows what they lack; (n, hidden) last states of `rows` (not of `extra`).

        ids: what they lack, where it is on the model's device and is not known here yet.
        """
        fed = [*rows, *extra]
        for row in fed:  # a row that lacks nothing is asked for its last state again
            row.fed = min(row.fed, len(row.tokens) - 1)
        plan = RowPlan(
            [row.index for row in fed],
            [row.fed for row in fed],
            [row.backlog for row in fed],
            self.device,
            self.padded,
        )
        new = chain.from_iterable(row.tokens[row.fed :] for row in fed)
        hidden = self.forward(list(new) if ids is None else ids, plan, len(rows))
        self.forward_passes += 1
        for row in fed:
            row.fed = len(row.tokens)
        return hidden


def _forward_of(
    model: Any, rows: int, capacity: int, plain: bool
) -> PlainPass | LeanPass | GraphedPass:
    """The shortest way through a model that is known on its device."""
    if plain or not is_known(model):
        return PlainPass(model, rows, capacity)
    body = model.base_model
    if body.device.type == "cpu":
        return LeanPass(model, rows, capacity)
    if can_be_graphed(body):
        return GraphedPass(model, rows, capacity)
    return PlainPass(model, rows, capacity)


def _told(
    states: Sequence[_Slot], members: Sequence[Sequence[int]], chosen: Sequence[torch.Tensor]
) -> list[np.ndarray]:
    """Fetch what was chosen, position by position; per slot (k,) ids, which it holds from now on.

    Only here does the CPU wait for the device.
    """
    ids = iter(torch.cat(list(chosen)).tolist())
    found: list[list[int]] = [[] for _ in states]
    for active in members:
        for i in active:
            found[i].append(next(ids))
    for state, tokens in zip(states, found, strict=True):
        state.replace_last(tokens)
    return [np.array(tokens, dtype=np.int64) for tokens in found]


def _masked(logits: torch.Tensor, masks: Sequence[Mask]) -> torch.Tensor:
    """(n, V) logits, those that a row's mask excludes set to -inf."""
    size = logits.shape[1]
    allowed = np.ones(logits.shape, dtype=bool)
    for row, mask in zip(allowed, masks, strict=True):
        if mask is None:
            continue
        if np.shape(mask) != (size,):
            raise GeneralistError(
                f"A mask of legal actions has shape {np.shape(mask)}; expected ({size},), one flag "
                "for each action."
            )
        row[:] = mask
        if not row.any():
            raise GeneralistError("A mask of legal actions excludes all; none can be taken.")
    return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), float("-inf"))
