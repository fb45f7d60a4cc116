"""An agent whose beliefs are heard: how probable it holds each legal action token.

Legend: N = environments decided for by one call, k = action tokens of a timestep, V = legal ids of
one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from generalist.acting.agent import Agent
from generalist.episode import Tree
from generalist.policy import Decision


class Beliefs:
    """Hears the logits of every choice that agents with `on_logits=beliefs` make."""

    def __init__(self) -> None:
        self._heard: list[np.ndarray] = []

    def __call__(self, logits: torch.Tensor) -> None:
        """Take the (N, V) logits of one position."""
        self._heard.append(logits.detach().float().softmax(-1).cpu().numpy())

    def take(self) -> list[np.ndarray]:
        """What was heard since the last call: k arrays of (N, V) probabilities."""
        heard, self._heard = self._heard, []
        return heard


class Watched:
    """An agent as a policy that also says what it saw and what it believed.

    It keeps what the latest call of `decide` was about, slot by slot.

    Args:
        agent: the agent; it was made with `on_logits=beliefs`.
        beliefs: hears the agent, and perhaps others of the same weights.
        lock: is held while the model decides; for agents of the same weights in several threads.

    Attributes:
        seen: by slot the (K,) ids of the latest observation.
        believed: by slot the probabilities of the k latest action tokens, (V,) each: softmax of the
            model's logits over the legal ids, before temperature and top-p.
    """

    def __init__(self, agent: Agent, beliefs: Beliefs, lock: Lock | None = None) -> None:
        self.agent = agent
        self.seen: dict[int, np.ndarray] = {}
        self.believed: dict[int, list[np.ndarray]] = {}
        self._beliefs = beliefs
        self._lock = lock or Lock()

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """As `Policy.begin`."""
        self.agent.begin(slots, seeds, infos)

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        """As `Policy.decide`."""
        with self._lock:
            self._beliefs.take()  # others may have been heard meanwhile
            decision = self.agent.decide(observations, infos, slots)
            heard = self._beliefs.take()
        agent = self.agent
        seen = agent.processor.encode_observations(observations, agent.layout, agent.task)
        for row, slot in enumerate(slots):
            self.seen[slot] = seen[row]
            self.believed[slot] = [each[row] for each in heard]
        return decision

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        self.agent.end(slots)
        for slot in slots:
            self.seen.pop(slot, None)
            self.believed.pop(slot, None)


def load_watched(
    checkpoint: str | Path, task: str, *, temperature: float | None = None
) -> tuple[Agent, Beliefs]:
    """An agent of a checkpoint and what hears it; `agent.for_task` makes others that it hears.

    Args:
        checkpoint: as `Agent.from_pretrained` takes it.
        task: a task that the checkpoint knows.
        temperature: of the sampling; None as the checkpoint says.
    """
    beliefs = Beliefs()
    agent = Agent.from_pretrained(checkpoint, task, temperature=temperature, on_logits=beliefs)
    return agent, beliefs
