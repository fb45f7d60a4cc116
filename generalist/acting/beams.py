"""A checkpoint that is a world model plans by beams: `--plan beam:width=32,horizon=10`.

Legend: N = environments decided for by one call, k = action tokens of a timestep.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from generalist.acting.actor import Actor, Info
from generalist.acting.choices import choices_of
from generalist.acting.foresight import Foresight, Imagination
from generalist.acting.running import RunningEpisodes
from generalist.acting.taken import TakenActions
from generalist.decoding.decoder import Decoder
from generalist.decoding.sampling import Choice
from generalist.envs.instructions import DEMONSTRATED
from generalist.episode import Tree
from generalist.errors import UsageError
from generalist.planning.beam import search
from generalist.policy import Decision
from generalist.settings import setting_of

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

_FORM = r"beam(?::(?:width=([1-9]\d{0,3}))?,?(?:horizon=([1-9]\d{0,3}))?)?"


@dataclass(frozen=True)
class BeamPlan:
    """How beams plan.

    Attributes:
        width: rows that are imagined for each decision.
        horizon: steps that each is imagined ahead.
    """

    width: int = 32
    horizon: int = 10

    @classmethod
    def parse(cls, text: str) -> BeamPlan:
        """From `beam` or `beam:width=32,horizon=10`.

        Raises:
            UsageError: the text is no such plan.
        """
        match = re.fullmatch(_FORM, text)
        if match is None:
            raise UsageError(
                "A plan by beams is 'beam', or 'beam:width=32,horizon=10' with numbers from 1 to "
                f"9999; got {text!r}."
            )
        given = {"width": match[1], "horizon": match[2]}
        return cls(**{key: int(value) for key, value in given.items() if value})

    def __str__(self) -> str:
        return f"beam:width={self.width},horizon={self.horizon}"


class BeamPolicy(Actor):
    """An agent that imagines before it acts.

    Proposals are drawn as the model believes actions to be, at the agent's temperature, 1 where it
    is 0. Of real numbers too: what would be noise if it were acted out is choice for a search.

    Args:
        agent: acts in the task.
        plan: how far and how widely it imagines.

    Attributes:
        name: the plan.

    Raises:
        UsageError: the agent's checkpoint is no world model of the task, the horizon exceeds the
            timesteps it was trained on together, or the agent is asked for something else.
    """

    def __init__(self, agent: Agent, plan: BeamPlan) -> None:
        super().__init__()
        self.agent, self.plan, self.name = agent, plan, str(plan)
        self._foresight = Foresight(agent)
        if agent.guidance is not None or agent.wanted_return is not None:
            raise UsageError(
                "Beams already choose what earns most: leave out guidance and the wanted return."
            )
        self._steps = _trained_steps(agent)
        if plan.horizon > self._steps:
            raise UsageError(
                f"A horizon of {plan.horizon} steps does not fit into the window: the checkpoint "
                f"was trained on {self._steps} timesteps of {agent.task} together. Plan with "
                f"horizon={self._steps} or less."
            )
        temperature = agent.sampling.temperature or 1.0
        self._sampling = replace(agent.sampling, temperature=temperature, ordinal_factor=1.0)
        self._later = choices_of(agent.layout, agent.sampling, task=agent.task)
        self._running = RunningEpisodes(self._new_decoder)
        self._taken = TakenActions(agent.form, agent.layout, agent.processor.toolbox)

    def _new_decoder(self, slots: int) -> Decoder:
        """Slots 0, 1 + W, 2 + 2 W, ... hold episodes, those behind each its rows."""
        size, ahead = self.agent.form.positions, self.plan.horizon - 1
        return Decoder(
            self.agent.model,
            slots + self.plan.width,
            self.agent.window_tokens,
            body_tokens=(self._steps - ahead) * size,
            ahead_tokens=ahead * size,
            **self.agent.decoder_options,
        )

    def _slots(self, slots: Sequence[int]) -> list[int]:
        """The decoder's slots of these."""
        return [slot * (1 + self.plan.width) for slot in slots]

    def begin(self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Info]) -> None:
        """As `Policy.begin`; the seed also chooses among the agent's prompts."""
        for slot, seed, info in zip(self._slots(slots), seeds, infos, strict=True):
            if info.get("wanted_return") is not None:
                raise UsageError("No return can be asked for while beams plan; leave it out.")
            shown = info.get(DEMONSTRATED)
            header = self.agent.header(info.get("instruction"), seed, shown=shown)
            self._running.begin(slot, header, seed)

    def decide(self, observations: Tree, infos: Sequence[Info], slots: Sequence[int]) -> Decision:
        """As `Policy.decide`, with the discounted return that each plan is expected to earn."""
        agent, plan = self.agent, self.plan
        seen = agent.processor.encode_observations(observations, agent.layout, agent.task)
        own = self._slots(slots)
        for slot, info in zip(own, infos, strict=True):
            if (told := info.get("new_instruction")) is not None:
                self._running.rehead(slot, agent.header(told))
        decoder = self._running.ready(own)
        self._taken.correct(decoder, own, infos)
        form, k = self._foresight.form, len(self._later)
        vectors = form.observed(seen)
        chunk = [form.separator] * vectors.shape[1]
        hidden = decoder.observe(own, chunk, vectors, asked=k, reserve=1)
        imagination = Imagination(
            self._foresight,
            decoder,
            own,
            seen=seen,
            hidden=hidden,
            choices=[self._choices(info) for info in infos],
            later=self._later,
            width=plan.width,
            sampling=self._sampling,
        )
        discount = self._foresight.world.returns.discount
        try:
            found = search(imagination, width=plan.width, horizon=plan.horizon, discount=discount)
        finally:
            imagination.close()
        decoder.take(own, form.separator, form.taken(seen, found.actions))
        self._running.settle(own)
        self._taken.see(own, seen)
        return Decision(
            actions=agent.processor.decode_actions(found.actions, agent.layout),
            ids=found.actions,
            values=found.values.astype(np.float32),
        )

    def _choices(self, info: Info) -> list[Choice]:
        """How the actions of this timestep are chosen."""
        mask = info.get("action_mask")
        if mask is None:
            return self._later
        agent = self.agent
        return choices_of(agent.layout, agent.sampling, task=agent.task, mask=mask)

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        super().end(slots)
        self._running.end(self._slots(slots))
        self._taken.end(self._slots(slots))

    def release(self) -> None:
        """Forget all episodes, with the memory they held."""
        super().release()
        self._running.release()


def _trained_steps(agent: Agent) -> int:
    """How many timesteps of its task an agent's checkpoint was trained on together."""
    fit = (agent.window_tokens - len(agent.header().ids)) // agent.form.positions
    steps = setting_of(agent.context_steps, agent.task)
    return fit if steps is None else min(fit, steps)
