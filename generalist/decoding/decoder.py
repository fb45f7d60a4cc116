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

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from generalist.decoding.asking import Asking
from generalist.decoding.cache import RowPlan
from generalist.decoding.choosing import Chooser
from generalist.decoding.passes import forward_of
from generalist.decoding.sampling import Choice, Interval
from generalist.decoding.slots import Added, Row, Slot, added_to
from generalist.decoding.timestep import Chosen, Position, going_on, resolved, told
from generalist.errors import GeneralistError
from generalist.streams import Stream, random_stream

_UNKNOWN = -1  # stands for a token that the device has chosen and the CPU has not heard of


class Decoder:
    """Feeds tokens to a causal language model and chooses tokens, slot by slot or all at once.

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
        return min(self.window_tokens, len(header) + self.body_tokens)

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

    # One timestep

    def act(
        self,
        slots: Sequence[int],
        chunks: Sequence[Sequence[int]],
        choices: Sequence[Sequence[Choice]],
        *,
        log_probs: bool = False,
        vectors: torch.Tensor | None = None,
    ) -> Chosen:
        """Feed each slot its observation tokens, and choose its action tokens.

        It costs as many forward passes as the most action tokens of a slot, fewer where all slots
        end their timestep before (`Choice.ends`). Where it raises, or
        Ctrl-C interrupts it, the timestep has not begun in any slot and may be repeated.

        Args:
            slots: numbers of the N slots.
            chunks: per slot, the ids from the start of the timestep to the first action token.
            choices: per slot, how its k action tokens are chosen. A mask that depends on the ids
                before it waits for the device.
            log_probs: also say how probable each of them was; what fills a timestep was certain.
            vectors: (N, n, E) of the model's dtype, added to the embeddings of chunks of n ids.

        Returns:
            The ids of each slot, in the order of `slots`.

        Raises:
            GeneralistError: a slot is empty, a timestep does not fit, or a mask excludes all.
        """
        states = self._ready(slots)
        hidden = self._feed(states, chunks, [len(own) for own in choices], vectors=vectors)
        parts: list[Position] = []
        active = list(range(len(slots)))
        for position in range(max(len(own) for own in choices)):
            if position:
                on = going_on(choices, parts[-1], position - 1)
                active = [i for i, goes_on in zip(active, on, strict=True) if goes_on]
                if not active:
                    break
                ids = parts[-1].ids if all(on) else parts[-1].ids[on]
                hidden = self._forward([states[i].older for i in active], [], ids)
            acting = [states[i] for i in active]
            now = resolved([choices[i][position] for i in active], active, parts)
            parts.append(Position(active, *self._choose(acting, hidden, now, log_probs)))
            for state in acting:
                state.append([_UNKNOWN])
        found = told(len(slots), parts)
        for i, (state, tokens) in enumerate(zip(states, found.ids, strict=True)):
            state.replace_last(tokens)
            if ends := choices[i][len(tokens) - 1].ends:
                filling = [ends[0]] * (len(choices[i]) - len(tokens))
                state.append(filling)
                tokens += filling
                if found.log_probs is not None:
                    found.log_probs[i] += [0.0] * len(filling)
        self._complete = states  # by one assignment, in all slots or in none
        self._settle()
        return found

    def act_at_once(
        self,
        slots: Sequence[int],
        chunk: Sequence[int],
        vectors: torch.Tensor,
        choices: Sequence[Sequence[Choice]],
        *,
        log_probs: bool = False,
        asking: Asking | None = None,
        guidance: float | None = None,
    ) -> Chosen:
        """As `act` in the compact form, in one forward pass.

        Args:
            slots: numbers of the N slots; with guidance, N more that these are guided away from.
            chunk: n ids of the positions of a timestep, at the last k of which tokens are chosen.
            vectors: (N, n, E) of the model's dtype, added to the embeddings in each slot.
            choices: per slot, how its k action tokens are chosen; k is the same in all.
            log_probs: also say how probable each of them was.
            asking: also read values; where returns are drawn from them, in two forward passes.
            guidance: lambda, of logits l_other + lambda (l_own - l_other) (Ho and Salimans 2022,
                arXiv:2207.12598).
        """
        fed, k, count = self._ready(slots), len(choices[0]), len(choices)
        states, everyone = fed[:count], list(range(count))
        hidden = self._feed_at_once(fed, chunk, vectors, k, asking)
        values = None
        if asking is not None:
            values, hidden = self.logits(hidden[:, 0], asking.interval), hidden[:, 1:]
        if guidance is not None:  # logits are linear in these states
            hidden = torch.lerp(hidden[count:], hidden[:count], guidance)
        parts: list[Position] = []
        for position in range(k):
            now = resolved([own[position] for own in choices], everyone, parts)
            chosen = self._choose(states, hidden[:, position], now, log_probs)
            parts.append(Position(everyone, *chosen))
        found = told(count, parts)
        self._complete = fed
        self._settle()
        return found._replace(values=values)

    def _feed_at_once(
        self,
        states: Sequence[Slot],
        chunk: Sequence[int],
        vectors: torch.Tensor,
        asked: int,
        asking: Asking | None,
    ) -> torch.Tensor:
        """(N, asked, E) final states, with `asking` one more before them, where values are read."""
        count, many = len(states), asked + (asking is not None)
        if asking is None or not asking.draws:
            chunks, none = [chunk] * count, [0] * count
            hidden = self._feed(states, chunks, none, vectors=vectors, asked=many)
            return hidden.unflatten(0, (count, many))
        size = asking.place + 1
        first = [chunk[:size]] * count, [len(chunk) - size] * count
        before = self._feed(states, *first, vectors=vectors[:, :size])
        values = self.logits(before, asking.interval)
        rest = vectors[:, size:].clone()
        rest[:, 0] += asking.drawn(values, lambda row: states[row].uniform())
        for state, own in zip(states, rest, strict=True):
            state.append(chunk[size:], own)
        hidden = self._forward([state.older for state in states], [], asked=asked)
        return torch.cat([before[:, None], hidden.unflatten(0, (count, asked))], dim=1)

    def feed(
        self, slots: Sequence[int], chunks: Sequence[Sequence[int]], reserve: Sequence[int]
    ) -> torch.Tensor:
        """Start a timestep in each slot: feed what waits, then the chunk; one forward pass.

        Args:
            slots: numbers of the N slots.
            chunks: per slot, the ids of its chunk.
            reserve: per slot, how many tokens of the timestep will follow the chunk.

        Returns:
            (N, E) final states, from which the next tokens are predicted.
        """
        states = self._ready(slots)
        hidden = self._feed(states, chunks, reserve)
        self._complete = states
        self._settle()
        return hidden

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

    def advance(self, slots: Sequence[int]) -> torch.Tensor:
        """Feed each slot the token chosen last, in one forward pass; (N, E) final states."""
        return self._forward([self._state(slot).older for slot in slots], [])

    def choose(
        self, slots: Sequence[int], hidden: torch.Tensor, choices: Sequence[Choice]
    ) -> list[int]:
        """Choose one legal id for each of N slots from (N, E) states; it is fed with the next."""
        states = [self._state(slot) for slot in slots]
        chosen = self._choose(states, hidden, choices)[0].tolist()
        for state, token in zip(states, chosen, strict=True):
            state.append([token])
        self._complete = states
        self._settle()
        return chosen

    def logits(self, hidden: torch.Tensor, interval: Interval) -> torch.Tensor:
        """(N, E) states to (N, stop - start) logits of the ids in [start, stop) alone."""
        return self._choose.logits(hidden, interval)

    # The rows

    def _make_room(self, slot: Slot, tokens: int) -> None:
        """Make room for a timestep, at the boundary before it."""
        needed = len(slot.header) + tokens
        if needed > self.window_tokens:
            raise GeneralistError(
                f"A timestep of {tokens} tokens after a header of {len(slot.header)} does not fit "
                f"into a window of {self.window_tokens} tokens."
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
