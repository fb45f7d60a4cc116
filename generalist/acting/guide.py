"""A checkpoint guides a search in simulators: it proposes actions, says values and acts on.

It sees each state with the history that led there, as when it acts: rows of a decoder are forked
from the episode's own, and go on.

Legend: N = searches, L = most actions proposed in a state, B = rows of a call, K = tokens of an
observation, k = of an action, E = hidden size, C = rows of a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from generalist.acting.choices import choices_of
from generalist.acting.forms import Compact
from generalist.decoding.decoder import Decoder
from generalist.decoding.sampling import Choice, Sampling, choose, masked
from generalist.episode import tree_map, tree_stack
from generalist.errors import UsageError
from generalist.planning.simulator_search import Proposed
from generalist.tokenization.returns import TaskReturns

if TYPE_CHECKING:
    from generalist.acting.agent import Agent


class Proposer:
    """How an agent proposes actions in its task, and says values.

    A single token without an order is proposed with all its ids, as probable as the model has them
    at the agent's temperature, at 1 where that is 0. Of other actions a few are drawn, and all of
    them are as probable: the first is the likeliest. Real numbers are drawn without
    `Sampling.ordinal_factor`: what would be noise if it were acted out is choice for a search.

    Args:
        agent: acts in the task.
        drawn: how many actions are proposed where they are drawn.

    Attributes:
        form: how timesteps of the task are shown.
        most_actions: L.
        returns: what the data say of returns; None where the agent says no values.
        later: how tokens are chosen where nobody says which are legal.

    Raises:
        UsageError: the agent acts in the flat form.
    """

    def __init__(self, agent: Agent, drawn: int) -> None:
        if not isinstance(agent.form, Compact):
            raise UsageError(
                f"The checkpoint {agent.name or 'given'} is flat, and a tree search in a simulator "
                "needs the compact form (model.form=compact); leave out the plan."
            )
        self.agent, self.form = agent, agent.form
        self.later = choices_of(agent.layout, agent.sampling, task=agent.task)
        self._all = len(self.later) == 1 and not self.later[0].ordinal
        start, stop = self.later[0].interval
        self.most_actions = stop - start if self._all else drawn
        temperature = agent.sampling.temperature or 1.0
        self._greedy = replace(agent.sampling, temperature=0.0)
        self._drawn = replace(agent.sampling, temperature=temperature, ordinal_factor=1.0)
        self.returns: TaskReturns | None = None
        if agent.form.returns is not None and agent.task in agent.returns:
            self.returns = TaskReturns.from_dict(agent.returns[agent.task])

    @property
    def asked(self) -> int:
        """Of how many last positions of a timestep the states are needed."""
        return len(self.later) + (self.form.returns is not None)

    def values(self, decoder: Decoder, states: torch.Tensor) -> np.ndarray | None:
        """(B,) float32 returns that are expected, from (B, asked, E) states; None for none."""
        if self.returns is None or self.form.returns is None:
            return None
        run = self.form.returns.runs[0]
        logits = decoder.logits(states[:, 0].contiguous(), (run.start, run.start + run.rows))
        shares = logits.float().softmax(-1).cpu().numpy()
        return (shares @ self.returns.centres).astype(np.float32)

    def proposed(
        self,
        decoder: Decoder,
        states: torch.Tensor,
        choices: Sequence[Sequence[Choice]],
        randoms: Sequence[np.random.Generator],
    ) -> tuple[np.ndarray, np.ndarray]:
        """(B, L, k) ids of actions and their (B, L) float32 priors.

        Args:
            decoder: whose states they are.
            states: (B, asked, E).
            choices: per row, how its k tokens are chosen.
            randoms: per row, what actions are drawn from.
        """
        rows = len(states)
        if self._all:
            logits = self._logits(decoder, states, [own[0] for own in choices], 0)
            priors = (logits.float() / self._drawn.temperature).softmax(-1).cpu().numpy()
            ids = np.arange(*self.later[0].interval)
            return np.broadcast_to(ids[:, None], (rows, len(ids), 1)), priors
        count = self.most_actions
        likeliest = self.chosen(decoder, states, choices, sampling=self._greedy)
        others = self.chosen(
            decoder,
            states.repeat_interleave(count - 1, dim=0),
            [own for own in choices for _ in range(count - 1)],
            sampling=self._drawn,
            randoms=[own for own in randoms for _ in range(count - 1)],
        )
        drawn = others.reshape(rows, count - 1, len(self.later))
        priors = np.full((rows, count), 1 / count, np.float32)
        return np.concatenate([likeliest[:, None], drawn], axis=1), priors

    def acted(
        self,
        decoder: Decoder,
        states: torch.Tensor,
        randoms: Sequence[np.random.Generator],
    ) -> np.ndarray:
        """(B, k) ids of actions as the agent takes them by itself."""
        choices = [self.later] * len(states)
        return self.chosen(decoder, states, choices, sampling=self.agent.sampling, randoms=randoms)

    def chosen(
        self,
        decoder: Decoder,
        states: torch.Tensor,
        choices: Sequence[Sequence[Choice]],
        *,
        sampling: Sampling,
        randoms: Sequence[np.random.Generator] = (),
    ) -> np.ndarray:
        """(B, k) ids, chosen one token after the other from (B, asked, E) states."""
        found = np.empty((len(states), len(self.later)), np.int64)
        if not len(states):
            return found
        uniform = None
        if sampling.temperature > 0:
            drawn = [random.random(len(self.later)) for random in randoms]
            uniform = torch.from_numpy(np.array(drawn))
        for position, one in enumerate(self.later):
            now = [
                own[position].after(ids[:position].tolist())
                for own, ids in zip(choices, found, strict=True)
            ]
            ids, _ = choose(
                self._logits(decoder, states, now, position),
                sampling,
                ordinal=one.ordinal,
                uniform=None if uniform is None else uniform[:, position],
            )
            found[:, position] = ids.cpu().numpy() + one.interval[0]
        return found

    def _logits(
        self, decoder: Decoder, states: torch.Tensor, choices: Sequence[Choice], position: int
    ) -> torch.Tensor:
        """(B, V) logits of the ids of a position, -inf where a mask excludes them."""
        first = states.shape[1] - len(self.later)
        own = states[:, first + position].contiguous()
        logits = decoder.logits(own, self.later[position].interval)
        masks = [choice.flags for choice in choices]
        return logits if all(mask is None for mask in masks) else masked(logits, masks)


class ModelGuide:
    """Rows of a decoder that see what simulators go through: a `Guide`.

    Column 0 of a search is its episode's own row, the root; the next are those of the other nodes;
    the last acts on.

    Args:
        proposer: of the task.
        decoder: holds the episodes, each with C - 1 empty slots behind its own.
        slots: numbers of the N episodes' slots.
        seen: (N, K) ids of what was observed last; the decoder is shown them.
        choices: per episode, how the tokens of the next action are chosen.
        randoms: per episode, what actions are drawn from.
        nodes: of a search, its root included; C - 1.
    """

    def __init__(
        self,
        proposer: Proposer,
        decoder: Decoder,
        slots: Sequence[int],
        *,
        seen: np.ndarray,
        choices: Sequence[Sequence[Choice]],
        randoms: Sequence[np.random.Generator],
        nodes: int,
    ) -> None:
        self.most_actions = proposer.most_actions
        self._proposer, self._decoder = proposer, decoder
        self._choices, self._randoms = choices, randoms
        self._rows = np.array(slots)[:, None] + np.arange(nodes + 1)  # (N, C)
        self._seen = np.zeros((*self._rows.shape, seen.shape[1]), seen.dtype)
        self._states: dict[tuple[int, int], torch.Tensor] = {}  # by search and column
        shape = (*self._rows.shape, self.most_actions, len(proposer.later))
        self._ids = np.zeros(shape, np.int64)
        self._acting = nodes  # the column
        everyone = np.arange(len(slots))
        self._show(everyone, np.zeros_like(everyone), seen)

    def ids(self, numbers: np.ndarray) -> np.ndarray:
        """(N, k) ids of actions proposed at the roots, by their (N,) numbers."""
        return self._ids[np.arange(len(numbers)), 0, numbers]

    def propose(self, searches: Sequence[int], nodes: Sequence[int]) -> Proposed:
        """As `Guide.propose`."""
        states = self._states_of(searches, nodes)
        proposer, later = self._proposer, self._proposer.later
        pairs = list(zip(searches, nodes, strict=True))
        ids, priors = proposer.proposed(
            self._decoder,
            states,
            [later if node else self._choices[own] for own, node in pairs],
            [self._randoms[own] for own in searches],
        )
        self._ids[searches, nodes] = ids
        return Proposed(priors, proposer.values(self._decoder, states))

    def action(self, search: int, node: int, number: int) -> Any:
        """As `Guide.action`."""
        return self._actions(self._ids[search, node, number][None])[0]

    def follow(
        self,
        searches: Sequence[int],
        parents: Sequence[int],
        numbers: Sequence[int],
        nodes: Sequence[int],
        observations: Sequence[Any],
    ) -> None:
        """As `Guide.follow`."""
        self._fork(searches, parents, nodes)
        self._go_on(searches, nodes, self._ids[searches, parents, numbers], observations)

    def set_out(self, searches: Sequence[int], nodes: Sequence[int]) -> None:
        """As `Guide.set_out`."""
        self._fork(searches, nodes, [self._acting] * len(nodes))

    def choose(self, searches: Sequence[int]) -> list[Any]:
        """As `Guide.choose`."""
        columns = [self._acting] * len(searches)
        randoms = [self._randoms[own] for own in searches]
        states = self._states_of(searches, columns)
        ids = self._proposer.acted(self._decoder, states, randoms)
        self._ids[searches, columns, 0] = ids
        return self._actions(ids)

    def observe(self, searches: Sequence[int], observations: Sequence[Any]) -> None:
        """As `Guide.observe`."""
        columns = [self._acting] * len(searches)
        self._go_on(searches, columns, self._ids[searches, columns, 0], observations)

    def _fork(self, searches: Sequence[int], sources: Sequence[int], into: Sequence[int]) -> None:
        """Let columns be as others of the same searches."""
        old, new = self._rows[searches, sources], self._rows[searches, into]
        self._decoder.fork(old.tolist(), new.tolist(), younger=True)
        self._seen[searches, into] = self._seen[searches, sources]
        for search, a, b in zip(searches, sources, into, strict=True):
            self._states[search, b] = self._states[search, a]

    def _go_on(
        self,
        searches: Sequence[int],
        columns: Sequence[int],
        ids: np.ndarray,
        observations: Sequence[Any],
    ) -> None:
        """Let rows take actions, (B, k) ids, and see what follows."""
        rows, form = self._rows[searches, columns].tolist(), self._proposer.form
        if form.shows_taken:
            vectors = form.taken(self._seen[searches, columns], ids)
            self._decoder.take(rows, form.separator, vectors)
        else:
            self._decoder.finish(rows)
        agent = self._proposer.agent
        batch = tree_stack(list(observations))
        seen = agent.processor.encode_observations(batch, agent.layout, agent.task)
        self._show(searches, columns, seen)

    def _show(
        self, searches: Sequence[int] | np.ndarray, columns: Sequence[int] | np.ndarray,
        seen: np.ndarray,
    ) -> None:  # fmt: skip
        """Show rows their observations, (B, K) ids."""
        form = self._proposer.form
        vectors = form.observed(seen)
        hidden = self._decoder.observe(
            self._rows[searches, columns].tolist(),
            [form.separator] * vectors.shape[1],
            vectors,
            asked=self._proposer.asked,
            reserve=int(form.shows_taken),
        )
        self._seen[searches, columns] = seen
        hidden = hidden.clone()  # on a GPU the next pass writes into the same memory
        for search, column, own in zip(searches, columns, hidden, strict=True):
            self._states[int(search), int(column)] = own

    def _states_of(self, searches: Sequence[int], columns: Sequence[int]) -> torch.Tensor:
        return torch.stack([self._states[pair] for pair in zip(searches, columns, strict=True)])

    def _actions(self, ids: np.ndarray) -> list[Any]:
        """Actions for environments, from (B, k) ids."""
        agent = self._proposer.agent
        actions = agent.processor.decode_actions(ids, agent.layout)
        return [tree_map(lambda leaf: leaf[row], actions) for row in range(len(ids))]  # noqa: B023

    def close(self) -> None:
        """Empty all rows but the episodes' own."""
        for row in self._rows[:, 1:].ravel().tolist():
            self._decoder.release(row)
