"""The decoder: token ids in, token ids out, for many sequences at once. It knows nothing else.

The last action token of a timestep is not fed on its own: it goes into the same forward pass as the
observation of the next timestep, so that a timestep with k action tokens costs exactly k forward
passes for all slots together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from generalist.decoding.asking import Asking
from generalist.decoding.sampling import Choice
from generalist.decoding.sequences import Sequences
from generalist.decoding.slots import Slot
from generalist.decoding.timestep import Chosen, Position, going_on, resolved, told

_UNKNOWN = -1  # stands for a token that the device has chosen and the CPU has not heard of


class Decoder(Sequences):
    """Feeds sequences, as `Sequences` has it, and chooses their tokens."""

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
        taken: Callable[[torch.Tensor], torch.Tensor] | None = None,
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
            taken: (N, k) ids to the (N, 1, E) vectors of one more position that shows them.
        """
        fed, k, count = self._ready(slots), len(choices[0]), len(choices)
        states, everyone = fed[:count], list(range(count))
        shown = int(taken is not None)
        hidden = self._feed_at_once(fed, chunk, vectors, k, asking=asking, shown=shown)
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
        if taken is not None:
            done = taken(torch.stack([part.ids for part in parts], dim=1))
            for state, own in zip(fed, done.repeat(len(fed) // count, 1, 1), strict=True):
                state.append(chunk[:1], own)
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
        *,
        asking: Asking | None,
        shown: int,
    ) -> torch.Tensor:
        """(N, asked, E) final states, with `asking` one more before them, where values are read.

        `shown` positions of the timestep will follow.
        """
        count, many = len(states), asked + (asking is not None)
        if asking is None or not asking.draws:
            chunks, more = [chunk] * count, [shown] * count
            hidden = self._feed(states, chunks, more, vectors=vectors, asked=many)
            return hidden.unflatten(0, (count, many))
        size = asking.place + 1
        first = [chunk[:size]] * count, [len(chunk) - size + shown] * count
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
