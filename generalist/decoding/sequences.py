"""Sequences: what is fed to a causal language model, slot by slot or all at once.

A *slot* is one running sequence: a header, then timesteps without end. Each slot keeps its
context in one row of a `RowCache`.

When a slot's window is full, *staggered caches* keep it exact at bounded cost: from the moment
the older row is half full, a younger row (header copied) receives the same timesteps; at the limit
the older is dropped and the younger acts on. What a slot acts from is therefore always what a
full forward pass over `Sequences.context(slot)` would give. The younger row's logits are not
needed before it takes over, so it is fed a backlog at a time, inside passes that happen anyway.

A slot can be forked, to see what might follow: the copies go on by themselves, and are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from generalist.decoding.cache import RowPlan
from generalist.decoding.choosing import Chooser
from generalist.decoding.passes import forward_of
from generalist.decoding.sampling import Interval
from generalist.decoding.slots import Added, Row, Slot, Trunk, added_to
from generalist.errors import GeneralistError
from generalist.streams import Stream, random_stream


class Sequences:
    """Running sequences that are fed to a causal language model.

    Args:
        model: a Hugging Face causal LM whose attention goes through transformers' attention
            interface (Llama, Qwen3 and most others). It is not changed. Where it is trained on
            meanwhile, a slot acts by the new weights from its next reset, and often sooner.
        slots: how many sequences run side by side.
        window_tokens: the longest context; None for the model's `max_position_embeddings`.
        keep: the part of its limit that the younger row has about filled when it takes over; at
            most one half. Contexts are between about `keep` and 1 of the limit long, headers apart.
        backlog_tokens: the younger row is fed once this many tokens wait for it. 1 feeds it at
            every timestep; None only when it takes over (cheapest, but that one pass is long).
        body_tokens: most tokens after the header; None for what the window leaves.
        ahead_tokens: room that contexts leave in the window, for forks to go on.
        plain: go through the model's own code also where a shorter way is known.
        on_logits: is called with the (n, V) logits of each position at which a token is chosen,
            after the mask; for whoever watches.
        padded: attend to all rows at once on padded tensors where that is done by the model's own
            code; None on all devices but the CPU.

    Raises:
        GeneralistError: `keep` is out of range, or the window exceeds what the model was made for.
    """

    def __init__(
        self,
        model: Any,
        slots: int,
        window_tokens: int | None = None,
        *,
        keep: float = 0.5,
        backlog_tokens: int | None = 16,
        body_tokens: int | None = None,
        ahead_tokens: int = 0,
        plain: bool = False,
        padded: bool | None = None,
        on_logits: Callable[[torch.Tensor], None] | None = None,
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
        self.context_tokens = self.window_tokens - ahead_tokens
        self.keep = keep
        self.model = model
        self.head = model.get_output_embeddings()
        self.device = next(model.parameters()).device
        self.backlog_tokens = self.window_tokens if backlog_tokens is None else backlog_tokens
        self._choose = Chooser(self.head, on_logits)
        self.forward_passes = 0
        self.padded = self.device.type != "cpu" if padded is None else padded
        self.forward = forward_of(model, 2 * slots, self.window_tokens, plain)
        self._was_reset = False
        self._slots: list[Slot | None] = [None] * slots
        self._complete: Sequence[Slot] = ()  # whose timestep counts, also where it is interrupted

    def __len__(self) -> int:
        return len(self._slots)

    # Sequences

    def reset(
        self, slot: int, header: Sequence[int], seed: int = 0, added: Sequence[Added] = ()
    ) -> None:
        """Forget slot `slot` and start it anew with these header ids; nothing is fed yet.

        `seed` is of its choices; `added` are vectors for the header, in the compact form.
        """
        self._was_reset = True
        random = random_stream(seed, Stream.AGENT)
        self._slots[slot] = Slot(
            slot, header, limit=self._limit(header), keep=self.keep, random=random, added=added
        )

    def rehead(self, slot: int, header: Sequence[int], added: Sequence[Added] = ()) -> None:
        """Give slot `slot` another header, as `reset` has it; its timesteps stay."""
        self._settle()
        self._state(slot).rehead(header, added, self._limit(header))

    def _limit(self, header: Sequence[int]) -> int:
        return min(self.context_tokens, len(header) + self.body_tokens)

    def release(self, slot: int) -> None:
        """Forget slot `slot` and leave it empty."""
        self._slots[slot] = None

    def running(self, slot: int) -> bool:
        """True where the slot holds a sequence."""
        return self._slots[slot] is not None

    def context(self, slot: int) -> np.ndarray:
        """(tokens,) int64 ids that the slot's next choice depends on, the header included."""
        self._settle()
        return np.array(self._state(slot).context, dtype=np.int64)

    def _state(self, slot: int) -> Slot:
        state = self._slots[slot]
        if state is None:
            raise GeneralistError(f"Slot {slot} was fed before it was reset.")
        return state

    # Timesteps

    def observe(
        self,
        slots: Sequence[int],
        chunk: Sequence[int],
        vectors: torch.Tensor,
        *,
        asked: int = 1,
        reserve: int = 0,
    ) -> torch.Tensor:
        """Begin a timestep of the compact form in each slot; `finish` or `take` ends it.

        Args:
            slots: numbers of the N slots.
            chunk: n ids of its positions.
            vectors: (N, n, E) of the model's dtype, added to the embeddings in each slot.
            asked: of how many last positions the states are wanted.
            reserve: how many positions of the timestep will follow.

        Returns:
            (N, asked, E) final states, by one forward pass.
        """
        states, count = self._ready(slots), len(slots)
        chunks, more = [chunk] * count, [reserve] * count
        hidden = self._feed(states, chunks, more, vectors=vectors, asked=asked)
        return hidden.unflatten(0, (count, asked))

    def append(
        self, slots: Sequence[int], chunk: Sequence[int], vectors: torch.Tensor, *, asked: int = 1
    ) -> torch.Tensor:
        """As `observe`, but the timesteps go on, and no room is made for them. `finish` ends them.

        Raises:
            GeneralistError: a slot is longer than the window then.
        """
        states = [self._state(slot) for slot in slots]
        for state, own in zip(states, vectors, strict=True):
            if len(state.older.tokens) + len(chunk) > self.window_tokens:
                raise GeneralistError(
                    f"A sequence of {len(state.older.tokens)} positions and {len(chunk)} more does "
                    f"not fit into a window of {self.window_tokens}."
                )
            state.append(chunk, own)
        hidden = self._forward([state.older for state in states], [], asked=asked)
        return hidden.unflatten(0, (len(slots), asked))

    def take(self, slots: Sequence[int], token: int, vectors: torch.Tensor) -> None:
        """End the timestep of each slot by a position that is fed with the next one.

        Args:
            slots: numbers of the N slots.
            token: id of the position.
            vectors: (N, 1, E), added to its embedding in each slot.
        """
        states = [self._state(slot) for slot in slots]
        for state, own in zip(states, vectors, strict=True):
            state.append([token], own)
        self.finish(slots)

    def finish(self, slots: Sequence[int]) -> None:
        """The timesteps of these slots are whole."""
        self._complete = [self._state(slot) for slot in slots]
        self._settle()

    def retake(self, slot: int, vectors: torch.Tensor) -> None:
        """Put other vectors, (1, E), in the place of those that `take` gave last."""
        self._settle()
        self._state(slot).replace_last_vectors(vectors)

    def fork(self, slots: Sequence[int], into: Sequence[int], *, younger: bool = False) -> None:
        """Copy what slots hold, and what their caches hold, into other slots.

        All are copied at once: a slot may be both a source and a target.

        Args:
            slots: numbers of the slots that are copied.
            into: as many other numbers, all different; what ran there is forgotten.
            younger: whether younger rows are copied too, so that the copies may begin timesteps
                by `observe` and see the contexts that the originals would see.
        """
        pairs = [(a, b) for a, b in zip(slots, into, strict=True) if a != b]
        sources = [self._state(slot) for slot, _ in pairs]
        trunks = {slot: Trunk(self._state(slot).older.fed) for slot, _ in pairs}
        made, known = [], []
        for source, (slot, number) in zip(sources, pairs, strict=True):
            fork, first = source.forked(number, self._slots[number], trunks[slot])
            made.append(fork)
            known.append(first)
        if pairs:  # in one piece, because a row may be both a source and a target
            old = [source.older.index for source in sources]
            new = [fork.older for fork in made]
            if younger:
                for source, fork in zip(sources, made, strict=True):
                    if (pair := fork.take_younger(source)) is not None:
                        old.append(pair[0].index)
                        new.append(pair[1])
                        known.append(0)
            stop = max(row.fed for row in new)
            self.forward.copy_rows(old, [row.index for row in new], min(known), stop)
        for fork, (_, number) in zip(made, pairs, strict=True):
            self._slots[number] = fork

    def uniforms(self, slot: int, count: int) -> list[float]:
        """The next random numbers in [0, 1) of a slot's timestep."""
        state = self._state(slot)
        return [state.uniform() for _ in range(count)]

    def _ready(self, slots: Sequence[int]) -> list[Slot]:
        """The sequences of these slots, without what was not complete."""
        states = [self._state(slot) for slot in slots]
        self._settle()
        for state in states:
            state.restore()
        return states

    def _feed(
        self,
        states: Sequence[Slot],
        chunks: Sequence[Sequence[int]],
        reserve: Sequence[int],
        *,
        vectors: torch.Tensor | None = None,
        asked: int = 1,
    ) -> torch.Tensor:
        """(N asked, E) final states, as `feed`, but the chunks do not count before they are whole.

        `vectors`, (N, n, E), are added to the embeddings of the chunks; `asked` is of how many last
        tokens of each the states are wanted.
        """
        self.forward.refresh(thoroughly=self._was_reset)
        self._was_reset = False
        for i, (state, chunk, more) in enumerate(zip(states, chunks, reserve, strict=True)):
            self._make_room(state, len(chunk) + more)
            own = None if vectors is None else vectors[i]
            state.append([int(token) for token in chunk], own)
        waiting = [
            state.younger
            for state in states
            if state.younger is not None and state.younger.backlog >= self.backlog_tokens
        ]
        return self._forward([state.older for state in states], waiting, asked=asked)

    def _settle(self) -> None:
        """Commit the timesteps that are complete."""
        for state in self._complete:
            state.commit()
        self._complete = ()

    def logits(self, hidden: torch.Tensor, interval: Interval) -> torch.Tensor:
        """(N, E) states to (N, stop - start) logits of the ids in [start, stop) alone."""
        return self._choose.logits(hidden, interval)

    def log_probs(self, hidden: torch.Tensor, interval: Interval) -> torch.Tensor:
        """(N, E) states to (N, stop - start) float32 log-probabilities of these ids alone."""
        return self.logits(hidden, interval).float().log_softmax(-1)

    # The rows

    def _make_room(self, slot: Slot, tokens: int) -> None:
        """Make room for a timestep, at the boundary before it."""
        needed = len(slot.header) + tokens
        if needed > self.context_tokens:
            raise GeneralistError(
                f"A timestep of {tokens} tokens after a header of {len(slot.header)} does not fit "
                f"into a window of {self.context_tokens} tokens."
            )
        slot.make_room(tokens, self.forward.copy_prefix)

    @torch.inference_mode()
    def _forward(
        self,
        rows: Sequence[Row],
        extra: Sequence[Row],
        ids: torch.Tensor | None = None,
        *,
        asked: int = 1,
    ) -> torch.Tensor:
        """Feed all rows what they lack; (rows asked, E) last states of `rows`, not of `extra`.

        `ids` are what they lack, where it is on the model's device alone; `asked` is how many
        states of each row.
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
        new = list(new) if ids is None else ids  # type: ignore[assignment]
        hidden = self.forward(new, plan, [asked] * len(rows), added_to(fed))
        self.forward_passes += 1
        for row in fed:
            row.settle()
        return hidden
