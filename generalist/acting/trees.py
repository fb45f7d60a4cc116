"""A checkpoint searches the simulator it acts in: `--plan tree:simulations=16,horizon=20`.

Legend: N = environments decided for by one call, k = action tokens of a timestep.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gymnasium
import numpy as np

from generalist.acting.actor import Actor, Info
from generalist.acting.choices import choices_of
from generalist.acting.forms import Header
from generalist.acting.guide import ModelGuide, Proposer
from generalist.acting.running import RunningEpisodes
from generalist.acting.taken import TakenActions
from generalist.decoding.decoder import Decoder
from generalist.envs.instructions import DEMONSTRATED
from generalist.episode import Tree
from generalist.errors import UsageError
from generalist.numbers import NUMBER, exactly
from generalist.planning.puct import EXPLORATION
from generalist.planning.simulator_search import search
from generalist.planning.simulators import Simulator, simulator_of
from generalist.policy import Decision
from generalist.streams import Stream, random_stream

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

HORIZON = 20
"""Steps that paths are long where a checkpoint says no values."""

DRAWN = 8
"""Actions that are proposed in a state, where not all can be."""

DISCOUNT = 0.99
"""Of rewards, where a checkpoint says no values."""

_NUMBERS = {
    "simulations": r"[1-9]\d{0,5}",
    "exploration": NUMBER,
    "horizon": r"[1-9]\d{0,3}",
    "actions": r"[1-9]\d{0,3}",
}


@dataclass(frozen=True)
class TreePlan:
    """How a tree search plans.

    Attributes:
        simulations: of each decision.
        exploration: c of PUCT.
        horizon: in simulators, steps that the model's own actions look ahead to say what a state is
            worth; None for its values where it says any, and for `HORIZON` where it does not.
        actions: in simulators, how many are proposed in a state where not all can be; None for
            `DRAWN`.
    """

    simulations: int = 100
    exploration: float = EXPLORATION
    horizon: int | None = None
    actions: int | None = None

    @classmethod
    def parse(cls, text: str) -> TreePlan:
        """From `tree` or `tree:simulations=16,exploration=1.5,horizon=20,actions=8`.

        Raises:
            UsageError: the text is no such plan.
        """
        kind, _, options = text.partition(":")
        wrong = UsageError(
            "A plan is 'tree', or 'tree:simulations=100,exploration=1.5', in simulators also with "
            f"horizon=20 and actions=8; got {text!r}."
        )
        if kind != "tree":
            raise wrong
        found: dict[str, str] = {}
        for option in filter(None, options.split(",")):
            key, _, value = option.partition("=")
            if key in found or not re.fullmatch(_NUMBERS.get(key, r"(?!)"), value):
                raise wrong
            found[key] = value
        exploration = float(found.pop("exploration", EXPLORATION))
        if not 0 <= exploration < math.inf:
            raise wrong
        return cls(exploration=exploration, **{key: int(value) for key, value in found.items()})

    def __str__(self) -> str:
        said = f"tree:simulations={self.simulations},exploration={exactly(self.exploration)}"
        more = {"horizon": self.horizon, "actions": self.actions}
        return said + "".join(f",{key}={value}" for key, value in more.items() if value is not None)


class TreePolicy(Actor):
    """An agent that tries actions in the simulators of its environments before it acts.

    Where things are left to chance it draws them anew: it does not know what will happen.

    Args:
        agent: acts in the task.
        plan: how it searches.
        environments: environment i is slot i.

    Attributes:
        name: the plan.
        steps: that simulators took for all decisions so far.

    Raises:
        UsageError: the simulator of an environment cannot be restored, the agent acts in the flat
            form, or it is asked for something else.
    """

    def __init__(self, agent: Agent, plan: TreePlan, environments: Sequence[gymnasium.Env]) -> None:
        super().__init__()
        self.agent, self.plan, self.name = agent, plan, str(plan)
        self.steps = 0
        self._environments = environments
        for env in environments:
            check_simulator(agent.task, env)
        if agent.guidance is not None or agent.wanted_return is not None:
            raise UsageError(
                "A tree search already chooses what earns most: leave out guidance and the wanted "
                "return."
            )
        self._proposer = Proposer(agent, plan.actions or DRAWN)
        returns = self._proposer.returns
        self._horizon = plan.horizon or (HORIZON if returns is None else None)
        self._discount = DISCOUNT if returns is None else returns.discount
        # A demonstration takes a quarter of the window at most, and an instruction less.
        self._header_tokens = len(agent.header().ids) + agent.window_tokens // 4
        self._running = RunningEpisodes(self._new_decoder)
        self._taken = TakenActions(agent.form, agent.layout, agent.processor.toolbox)
        self._simulators: dict[int, Simulator] = {}
        self._randoms: dict[int, np.random.Generator] = {}

    def _new_decoder(self, slots: int) -> Decoder:
        """Each episode's slot has one behind it for every other node, and one that acts on."""
        return self.agent.new_decoder(slots + self.plan.simulations + 1, self._header_tokens)

    def _slots(self, slots: Sequence[int]) -> list[int]:
        """The decoder's slots of these."""
        return [slot * (self.plan.simulations + 2) for slot in slots]

    def _header(self, instruction: str | None, seed: int = 0, shown: str | None = None) -> Header:
        header = self.agent.header(instruction, seed, shown=shown)
        if len(header.ids) > self._header_tokens:
            raise UsageError(
                f"The instruction makes a header of {len(header.ids)} positions, and a tree search "
                f"has room for {self._header_tokens}; give a shorter one, or leave out the plan."
            )
        return header

    def begin(self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Info]) -> None:
        """As `Policy.begin`; the seed also chooses among the agent's prompts."""
        own = self._slots(slots)
        for slot, row, seed, info in zip(slots, own, seeds, infos, strict=True):
            if info.get("wanted_return") is not None:
                raise UsageError("No return can be asked for while a tree plans; leave it out.")
            header = self._header(info.get("instruction"), seed, info.get(DEMONSTRATED))
            self._running.begin(row, header, seed)
            self._simulators[slot] = simulator_of(self._environments[slot])
            self._randoms[slot] = random_stream(seed, Stream.TREE_SEARCH)

    def decide(self, observations: Tree, infos: Sequence[Info], slots: Sequence[int]) -> Decision:
        """As `Policy.decide`, with the discounted return that each search found."""
        agent, plan = self.agent, self.plan
        seen = agent.processor.encode_observations(observations, agent.layout, agent.task)
        own = self._slots(slots)
        for row, info in zip(own, infos, strict=True):
            if (told := info.get("new_instruction")) is not None:
                self._running.rehead(row, self._header(told))
        decoder = self._running.ready(own)
        self._taken.correct(decoder, own, infos)
        # Copies, so that an interrupted call may be repeated.
        randoms = [copy.deepcopy(self._randoms[slot]) for slot in slots]
        guide = ModelGuide(
            self._proposer,
            decoder,
            own,
            seen=seen,
            choices=[
                choices_of(
                    agent.layout, agent.sampling, task=agent.task, mask=info.get("action_mask")
                )
                for info in infos
            ],
            randoms=randoms,
            nodes=plan.simulations + 1,
        )
        try:
            found = search(
                guide,
                [self._simulators[slot] for slot in slots],
                randoms,
                simulations=plan.simulations,
                horizon=self._horizon,
                discount=self._discount,
                exploration=plan.exploration,
            )
        finally:
            guide.close()
        ids, form = guide.ids(found.best), self._proposer.form
        if form.shows_taken:
            decoder.take(own, form.separator, form.taken(seen, ids))
        else:
            decoder.finish(own)
        self._running.settle(own)
        self._taken.see(own, seen)
        self._randoms |= zip(slots, randoms, strict=True)
        self.steps += int(found.steps.sum())
        return Decision(
            actions=agent.processor.decode_actions(ids, agent.layout),
            ids=ids,
            values=found.values.astype(np.float32),
        )

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        super().end(slots)
        self._running.end(self._slots(slots))
        self._taken.end(self._slots(slots))
        for slot in slots:
            self._simulators.pop(slot, None)
            self._randoms.pop(slot, None)

    def release(self) -> None:
        """Forget all episodes, with the memory they held."""
        super().release()
        self._running.release()


def check_simulator(task: str, env: gymnasium.Env) -> None:
    """Raise UsageError where a tree search cannot restore the simulator of an environment."""
    try:
        simulator_of(env)
    except UsageError:
        raise UsageError(
            f"A tree search plans in board games and in simulators that can be restored "
            f"(dm_control, Gymnasium's classic control and MuJoCo, Atari but for TicTacToe3D), and "
            f"{task} is neither; leave out the plan."
        ) from None
