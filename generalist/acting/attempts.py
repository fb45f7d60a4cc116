"""Attempts at tasks that an agent is set: which were successes, and what is kept.

1. Each seed is a proposal: it draws a room, and an instruction about what is in it.
2. The agent attempts it once or several times, each time with other samples.
3. The environment says which attempts were successes, or the agent's own value does.
4. Of the successes at a proposal the shortest is kept, or all; of each the last steps, or all. An
   attempt that did something else first is kept with the instruction for that, if hindsight is
   wanted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from generalist.acting.stage import Stage
from generalist.envs import get_task
from generalist.episode import Episode, Tree, tree_map
from generalist.policy import Decision, Policy
from generalist.session import Trace, play

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

SUCCESS, HINDSIGHT = "improvement", "hindsight"
"""Sources of what is kept."""

_SAMPLES = 2**32  # between the seeds by which two attempts at one proposal sample
_ENVIRONMENTS = 20  # in parallel; more add little speed and take memory


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How attempts are made and judged.

    Attributes:
        attempts: at each proposal.
        least_return: from which the environment calls an attempt a success, in a task that is
            scored by its return.
        least_value: return that the agent has to expect at the last step, where its judgement
            counts; None where the environment's does.
        keep: which of several successes at a proposal.
        last_steps: how many steps before their end are kept; None for all.
        named_first: keep only successes that reached the named thing first, where that is known.
        hindsight: whether to keep attempts that did something else.
        temperature: of sampling.
        max_steps: cut (truncate) attempts there.
    """

    attempts: int
    least_return: float | None
    least_value: float | None
    keep: Literal["shortest", "all"]
    last_steps: int | None
    named_first: bool
    hindsight: bool
    temperature: float
    max_steps: int | None

    def succeeds(self, trace: Trace) -> bool:
        """Whether the environment calls an attempt a success."""
        if self.least_return is not None:
            return trace.return_ >= self.least_return
        return get_task(trace.task).score_of(trace.return_, trace.success) > 0


@dataclass
class Attempts:
    """The outcome of the attempts at a task.

    Attributes:
        proposals: how many there were.
        attempts: at all of them.
        successes: how many are called so by whose judgement counts.
        solved: proposals with a success at least.
        agreed: attempts of which the environment says the same.
        steps: of all attempts.
        kept: successes that become data.
        hindsight: attempts that become data with another instruction.
        episodes: those that become data, in the order of proposal and attempt.
    """

    proposals: int = 0
    attempts: int = 0
    successes: int = 0
    solved: int = 0
    agreed: int = 0
    steps: int = 0
    kept: int = 0
    hindsight: int = 0
    episodes: list[Episode] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """All but the episodes, as JSON."""
        return {name: value for name, value in vars(self).items() if name != "episodes"}


def attempt(
    agent: Agent,
    task: str,
    seeds: Sequence[int],
    terms: Terms,
    *,
    options: Mapping[str, Any],
) -> Attempts:
    """Let an agent attempt the tasks that seeds propose.

    Args:
        agent: acts in the task.
        task: name of the task.
        seeds: of the proposals.
        terms: of attempts and judgement.
        options: of the environment.
    """
    agent.set_temperature(terms.temperature)
    stage = Stage(task, dict(options), min(len(seeds), _ENVIRONMENTS))
    found = Attempts(proposals=len(seeds))
    ended: dict[int, list[_Ended]] = {seed: [] for seed in seeds}
    try:
        for number in range(terms.attempts):
            policy = _Sampling(agent, number)
            for trace in play(
                policy,
                stage.environments,
                seeds,
                task=task,
                keep_steps=True,
                max_steps=terms.max_steps,
            ):
                success = truth = terms.succeeds(trace)
                if terms.least_value is not None:
                    success = policy.expected.get(trace.seed, -math.inf) >= terms.least_value
                found.attempts += 1
                found.steps += trace.steps
                found.successes += success
                found.agreed += success == truth
                ended[trace.seed].append(_ended(trace, number, success=success, terms=terms))
    finally:
        stage.close()
    for mine in ended.values():
        _keep(found, mine, terms)
    return found


@dataclass(frozen=True)
class _Ended:
    """An attempt, without what is not kept of it."""

    success: bool
    episode: Episode | None  # with its own instruction
    other: Episode | None  # with that of what was done instead


def _ended(trace: Trace, number: int, *, success: bool, terms: Terms) -> _Ended:
    info = {"attempt": number}
    direct = trace.named_first is not False or not terms.named_first
    instead = terms.hindsight and trace.hindsight is not None and not (success and direct)
    return _Ended(
        success,
        trace.to_episode({**info, "source": SUCCESS}) if success and direct else None,
        trace.in_hindsight({**info, "source": HINDSIGHT}) if instead else None,
    )


def _keep(found: Attempts, ended: Sequence[_Ended], terms: Terms) -> None:
    """Add what is kept of the attempts at one proposal."""
    own = [each.episode for each in ended if each.episode is not None]
    if terms.keep == "shortest" and own:
        own = [min(own, key=lambda episode: episode.steps)]  # the first of equals
    others = [each.other for each in ended if each.other is not None]
    found.solved += any(each.success for each in ended)
    found.kept += len(own)
    found.hindsight += len(others)
    found.episodes += [_end_of(each, terms.last_steps) for each in (*own, *others)]


def _end_of(episode: Episode, steps: int | None) -> Episode:
    """The last steps of an episode, at most `steps`; None: all."""
    if steps is None or episode.steps <= steps:
        return episode
    return replace(
        episode,
        observations=tree_map(lambda leaf: leaf[-steps:], episode.observations),
        actions=tree_map(lambda leaf: leaf[-steps:], episode.actions),
        rewards=episode.rewards[-steps:],
    )


class _Sampling(Policy):
    """An agent that samples otherwise in each attempt, and says what it expected last.

    Args:
        agent: decides.
        number: of the attempt; the first samples as any rollout of these seeds.

    Attributes:
        expected: seed -> the return that was expected at the last step, where the agent has values.
    """

    def __init__(self, agent: Agent, number: int) -> None:
        self.expected: dict[int, float] = {}
        self._agent, self._number = agent, number
        self._seeds: dict[int, int] = {}  # of the episode in each slot

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """As `Policy.begin`."""
        self._seeds |= zip(slots, seeds, strict=True)
        self._agent.begin(slots, [seed + self._number * _SAMPLES for seed in seeds], infos)

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        """As `Policy.decide`."""
        decision = self._agent.decide(observations, infos, slots)
        if decision.values is not None:
            for slot, value in zip(slots, decision.values.tolist(), strict=True):
                self.expected[self._seeds[slot]] = value
        return decision

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        self._agent.end(slots)
