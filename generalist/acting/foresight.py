"""What a checkpoint foresees: the outcome of an action, and the observation that follows it.

Legend: n = actions, N = episodes, W = rows imagined for each, B = rows that go on, K = tokens of an
observation, k = of an action, E = hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from generalist.acting.forms import Compact
from generalist.decoding.decoder import Decoder
from generalist.decoding.sampling import GREEDY, Choice, Sampling, choose, masked
from generalist.errors import UsageError
from generalist.modeling.embedders import embedders_of
from generalist.modeling.world import local_means
from generalist.planning.beam import Imagined
from generalist.tokenization.compact import signatures_of
from generalist.tokenization.outcomes import TaskWorld

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

_GOLDEN = (5**0.5 - 1) / 2


class Foresight:
    """Reads outcomes and observations from a world model's states at actions, in one task.

    Args:
        agent: acts in the task.

    Attributes:
        form: how timesteps of the task are shown.
        world: what the data say of its outcomes.

    Raises:
        UsageError: the agent's checkpoint is no world model, or none of this task.
    """

    form: Compact
    world: TaskWorld

    def __init__(self, agent: Agent) -> None:
        embedders = embedders_of(agent.model)
        name = agent.name or "given"
        if embedders is None or embedders.form.world is None or not agent.worlds:
            raise UsageError(
                f"The checkpoint {name} is no world model, so it cannot plan ahead. Train one by a "
                "recipe with `world`, such as beams."
            )
        if agent.task not in agent.worlds:
            raise UsageError(
                f"The checkpoint {name} foresees nothing in {agent.task}: it was not trained on "
                f"it, or all returns in its data are the same. It plans in "
                f"{', '.join(sorted(agent.worlds))}."
            )
        assert isinstance(agent.form, Compact), "a model with embedders acts in the compact form"
        self.form, self.world = agent.form, TaskWorld.from_dict(agent.worlds[agent.task])
        self._ids = embedders.form.world
        observation = signatures_of(agent.layout)[0].name
        self._embedder, self._head = embedders.by_name[observation], embedders.worlds[observation]
        self._output = agent.model.get_output_embeddings()

    @torch.inference_mode()
    def outcomes(self, hidden: torch.Tensor) -> Imagined:
        """What is expected of n actions, from (n, E) states at them."""
        ids, table = self._ids, self._output.weight
        over, reward, after = self._head.outcome_states(hidden).unbind(1)
        ends = (over @ table[[ids.goes_on, ids.is_over]].T).float().softmax(1)
        rewards, returns = self.world.rewards.centres, self.world.returns.centres
        bins = table[ids.first : ids.first + ids.bins]
        means = [
            ((states @ bins[: len(centres)].T).float().softmax(1).cpu().numpy() @ centres)
            for states, centres in ((reward, rewards), (after, returns))
        ]
        return Imagined(means[0], ends[:, 0].double().cpu().numpy(), means[1])

    @torch.inference_mode()
    def following(self, hidden: torch.Tensor, before: np.ndarray, *, depth: int) -> np.ndarray:
        """(n, K) ids of the observations that follow n actions.

        A token with an order is the mean around the likeliest bin, rounded up as often as it lies
        beyond the lower bin: by a sequence that is evenly spread over neighbouring depths, so that
        slow motion is not rounded away. Others are the likeliest.

        Args:
            hidden: (n, E) states at the actions.
            before: (n, K) ids of the observations in which they were taken.
            depth: number of the step that is imagined, from 0.
        """
        seen = torch.from_numpy(before).to(hidden.device)
        chosen = torch.empty_like(seen)
        dither, number = (depth + 1) * _GOLDEN % 1.0, 0
        for run in self._head.signature.runs:
            table = self._output.weight[run.start : run.start + run.rows]
            for _ in range(run.count):
                states = self._head.token_state(hidden, number)
                offsets = seen[:, number] - run.start
                logits = self._head.logits(states, offsets, table, run)
                if run.kind == "bins":
                    found = (local_means(logits) + dither).floor().long().clamp(0, run.rows - 1)
                else:
                    found = logits.argmax(1)
                chosen[:, number] = found + run.start
                rows = self._embedder.row(chosen[:, number], number)
                hidden = self._head.added(hidden, rows, number)
                number += 1
        return chosen.cpu().numpy()


class Imagination:
    """Rows of a decoder that go on from where episodes are: a `World` to plan in.

    Args:
        foresight: of the task.
        decoder: holds the episodes, each with W empty slots behind its own.
        slots: numbers of the N episodes' slots.
        seen: (N, K) ids of what was observed last.
        hidden: (N, k, E) states from which its actions are chosen.
        choices: per episode, how these k tokens are chosen; of imagined steps those of `later`.
        later: how tokens are chosen where nobody says which are legal.
        width: W.
        sampling: how actions are drawn.
    """

    def __init__(
        self,
        foresight: Foresight,
        decoder: Decoder,
        slots: Sequence[int],
        *,
        seen: np.ndarray,
        hidden: torch.Tensor,
        choices: Sequence[Sequence[Choice]],
        later: Sequence[Choice],
        width: int,
        sampling: Sampling,
    ) -> None:
        self._foresight, self._decoder, self._slots = foresight, decoder, list(slots)
        self._seen, self._states = seen, hidden
        self._choices, self._later = choices, later
        self._width, self._sampling = width, sampling
        self._rows = np.array(slots)[:, None] + 1 + np.arange(width)  # (N, W) slots
        self._at_actions: torch.Tensor | None = None
        self._depth = 0

    def propose(self, kept: np.ndarray | None) -> np.ndarray:
        """As `World.propose`."""
        count, width = self._rows.shape
        if kept is None:
            going_on, choices = 1, self._choices
            self._fork(np.array(self._slots)[:, None], self._rows)
        else:
            going_on, choices = kept.shape[1], [self._later] * count
            self._observe(kept)
        self._seen = self._seen.reshape(count, going_on, -1)[:, np.arange(width) % going_on]
        self._seen = self._seen.reshape(count * width, -1)
        self._actions = self._chosen(going_on, choices)
        return self._actions.reshape(count, width, -1)

    def _observe(self, kept: np.ndarray) -> None:
        """Let rows go on: (N, B) become the first of each episode, then all others' parents."""
        count, going_on = kept.shape
        assert self._at_actions is not None, "actions are imagined before rows go on"
        flat = (np.arange(count)[:, None] * self._width + kept).ravel()
        hidden = self._at_actions[torch.from_numpy(flat).to(self._at_actions.device)]
        self._seen = self._foresight.following(hidden, self._seen[flat], depth=self._depth)
        self._depth += 1
        first = self._rows[:, :going_on]
        self._fork(np.take_along_axis(self._rows, kept, axis=1), first)
        vectors = self._foresight.form.observed(self._seen)
        chunk, asked = [self._foresight.form.separator] * vectors.shape[1], len(self._later)
        self._states = self._decoder.append(first.ravel().tolist(), chunk, vectors, asked=asked)
        rest = self._rows[:, going_on:]
        self._fork(self._rows[:, np.arange(going_on, self._width) % going_on], rest)

    def _fork(self, sources: np.ndarray, into: np.ndarray) -> None:
        sources = np.broadcast_to(sources, into.shape)
        self._decoder.fork(sources.ravel().tolist(), into.ravel().tolist())

    def _chosen(self, going_on: int, choices: Sequence[Sequence[Choice]]) -> np.ndarray:
        """(N W, k) ids, from (N B, k, E) states."""
        count, width = self._rows.shape
        drawn = width - going_on
        k = len(self._later)
        uniform = [self._decoder.uniforms(slot, drawn * k) for slot in self._slots]
        numbers = torch.tensor(uniform).view(count * drawn, k)
        columns = np.arange(width) % going_on
        found = np.empty((count, width, k), np.int64)
        for position in range(k):
            one = choices[0][position]
            logits = self._decoder.logits(self._states[:, position].contiguous(), one.interval)
            every = logits.unflatten(0, (count, going_on))[:, columns]  # (N, W, V)
            if any(own[position].mask is not None for own in choices):
                masks = [
                    own[position].after(found[n, w, :position].tolist()).flags
                    for n, own in enumerate(choices)
                    for w in range(width)
                ]
                every = masked(every.flatten(0, 1), masks).view_as(every)
            best, others = every.split([going_on, drawn], dim=1)
            greedy = Sampling(0.0, ordinal=self._sampling.ordinal) if one.ordinal else GREEDY
            likeliest, _ = choose(best.flatten(0, 1), greedy, ordinal=one.ordinal)
            found[:, :going_on, position] = likeliest.cpu().numpy().reshape(count, going_on)
            if drawn:
                ids, _ = choose(
                    others.flatten(0, 1),
                    self._sampling,
                    ordinal=one.ordinal,
                    uniform=numbers[:, position],
                )
                found[:, going_on:, position] = ids.cpu().numpy().reshape(count, drawn)
            found[:, :, position] += one.interval[0]
        return found.reshape(count * width, k)

    def imagine(self) -> Imagined:
        """As `World.imagine`."""
        form = self._foresight.form
        vectors = form.taken(self._seen, self._actions)
        rows = self._rows.ravel().tolist()
        self._at_actions = self._decoder.append(rows, [form.separator], vectors)[:, 0]
        found = self._foresight.outcomes(self._at_actions)
        shape = self._rows.shape
        return Imagined(*(x.reshape(shape) for x in (found.rewards, found.goes_on, found.values)))

    def close(self) -> None:
        """Empty all rows."""
        for row in self._rows.ravel().tolist():
            self._decoder.release(row)
