"""Retrieval: what was demonstrated near the present observation is put before it, at each step.

After REGENT (Sridhar et al. 2024, arXiv:2412.04759). At each step of acting the demonstrated
timesteps that are nearest to the observation stand in the prompt, the nearest first. Every position
depends on the prompt, so the whole context is computed anew at each step.

A model that was not trained so may gain little from such a prompt. REGENT itself adds the nearest
action to what the model says. With d the distance of the nearest timestep and d95 the normal one
(`DemonstratedSteps.normal_distance`):

    w = exp(-lambda d / d95)
    action = w nearest + (1 - w) own                for real numbers
    P(action) = w [action is nearest] + (1 - w) P(own action)    for all else

There the nearest action has 1 - d / d95 of its share w, and all actions have the rest alike; that
rest is left out here. With lambda 0 the nearest action is played: retrieve and play.

Legend: N = environments decided for by one call, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.acting.actor import Actor, Info
from generalist.acting.nearest import DemonstratedSteps, Found
from generalist.acting.prompts import prompt_steps
from generalist.envs.instructions import DEMONSTRATED
from generalist.envs.options import option_differences
from generalist.episode import Tree, tree_map
from generalist.errors import UsageError
from generalist.policy import Decision, Policy
from generalist.shards.manifest import DatasetHeader, Manifest
from generalist.shards.reader import dataset_folders
from generalist.streams import Stream, random_stream
from generalist.vocabulary import fingerprint_of

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

RETRIEVAL = "retrieval"
"""Name of the policy that plays the nearest demonstrated action."""


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """What is retrieved, and what it is used for.

    Attributes:
        data: folder of the demonstrations.
        steps: how many timesteps stand in the prompt; None for as many as fit.
        weight: lambda of the nearest action's weight; None: the prompt alone.

    Raises:
        UsageError: a number is out of range.
    """

    data: str | Path
    steps: int | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"At least 1 timestep is retrieved, got {self.steps}.")
        if self.weight is not None and not 0 <= self.weight < float("inf"):
            raise UsageError(f"The lambda of retrieval must be 0 or more, got {self.weight:g}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"data": str(self.data), "steps": self.steps, "weight": self.weight}

    def fingerprint(self, task: str) -> str:
        """16 hex digits over the content of a task's demonstrations."""
        folders = dataset_folders(self.data)
        mine = [each for each in folders if DatasetHeader.read(each).task == task]
        return fingerprint_of([Manifest.read(each).fingerprint for each in mine])


class Told:
    """What running episodes are told, by slot."""

    def __init__(self) -> None:
        self._words: dict[int, str | None] = {}
        self._shown: dict[int, str | None] = {}

    def begin(self, slots: Sequence[int], infos: Sequence[Info]) -> None:
        """Take note of the instructions of episodes that begin, in words or demonstrated."""
        for slot, info in zip(slots, infos, strict=True):
            self._words[slot] = info.get("instruction")
            self._shown[slot] = info.get(DEMONSTRATED)

    def renew(self, slots: Sequence[int], infos: Sequence[Info]) -> None:
        """Take note of new instructions."""
        for slot, info in zip(slots, infos, strict=True):
            if (told := info.get("new_instruction")) is not None:
                self._words[slot], self._shown[slot] = told, None

    def words(self, slot: int) -> str | None:
        """What the words say."""
        return self._words.get(slot)

    def wanted(self, slots: Sequence[int]) -> list[str | None]:
        """The instructions whose demonstrations suit."""
        return [self._shown.get(slot) or self._words.get(slot) for slot in slots]

    def end(self, slots: Sequence[int]) -> None:
        """Forget the episodes in these slots."""
        for slot in slots:
            self._words.pop(slot, None)
            self._shown.pop(slot, None)


class RetrieveAndPlay:
    """Plays the action of the nearest demonstrated timestep; no model takes part.

    Args:
        steps: the demonstrations.
        task: name of the task.

    Attributes:
        name: `retrieval`.
        steps: as given.
    """

    name = RETRIEVAL

    def __init__(self, steps: DemonstratedSteps, task: str) -> None:
        self.steps, self._task = steps, task
        self._told = Told()

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """As `Policy.begin`."""
        self._told.begin(slots, infos)

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        """As `Policy.decide`; raises UsageError where an action mask is given."""
        check_no_mask(infos, self._task)
        self._told.renew(slots, infos)
        processor, layout = self.steps.processor, self.steps.layout
        seen = processor.encode_observations(observations, layout, self._task)
        found = self.steps.nearest(seen, self._told.wanted(slots), 1)
        ids = self.steps.actions[[each.numbers[0] for each in found]]
        return Decision(actions=processor.decode_actions(ids, layout), ids=ids)

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        self._told.end(slots)


class RetrievingAgent(Actor):
    """An agent whose prompt is retrieved anew at each step.

    Args:
        agent: acts in the task; prompts of its own are not used.
        steps: the demonstrations.
        count: how many timesteps stand in the prompt; None for as many as fit.
        weight: lambda of the nearest action's weight; None: the prompt alone.

    Attributes:
        count: as given, or as many as fit.
        steps: as given.

    Raises:
        DemonstrationTooLong: not even one timestep fits.
        UsageError: `count` timesteps do not fit.
    """

    def __init__(
        self,
        agent: Agent,
        steps: DemonstratedSteps,
        *,
        count: int | None = None,
        weight: float | None = None,
    ) -> None:
        super().__init__()
        fit = prompt_steps(agent.task, agent.form.demonstration_positions, agent.window_tokens)
        if count is not None and count > fit:
            raise UsageError(
                f"{count} retrieved timesteps of {agent.task} do not fit a quarter of the window "
                f"of {agent.window_tokens} tokens; at most {fit} do."
            )
        self.count = min(count or fit, len(steps))
        self._agent, self.steps, self._weight = agent, steps, weight
        self._told = Told()
        self._normal = 1.0 if weight is None else steps.normal_distance(self.count)
        self._random: dict[int, np.random.Generator] = {}  # of the episode in each slot
        self._executed: dict[int, Any] = {}  # where it was not the agent's own action

    def begin(self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Info]) -> None:
        """As `Policy.begin`."""
        self._agent.begin(slots, seeds, infos)
        self._told.begin(slots, infos)
        for slot, seed in zip(slots, seeds, strict=True):
            self._random[slot] = random_stream(seed, Stream.RETRIEVAL)
            self._executed.pop(slot, None)

    def decide(self, observations: Tree, infos: Sequence[Info], slots: Sequence[int]) -> Decision:
        """As `Policy.decide`; probabilities are given where the prompt alone is retrieved."""
        agent = self._agent
        if self._weight is not None:
            check_no_mask(infos, agent.task)
        self._told.renew(slots, infos)
        seen = agent.processor.encode_observations(observations, agent.layout, agent.task)
        found = self.steps.nearest(seen, self._told.wanted(slots), self.count)
        end = agent.processor.vocabulary.special("demonstration_end")
        for slot, each in zip(slots, found, strict=True):
            shown = [*self.steps.shown(each.numbers).tolist(), end]
            agent.rehead(slot, self._told.words(slot), shown)
        told = [self._without_news(info, slot) for info, slot in zip(infos, slots, strict=True)]
        decision = agent.decide(observations, told, slots)
        return decision if self._weight is None else self._interpolated(decision, found, slots)

    def _without_news(self, info: Info, slot: int) -> Info:
        """What the agent learns. The header says the instruction already."""
        done = {"executed_action": self._executed[slot]} if slot in self._executed else {}
        return {**done, **info, "new_instruction": None}

    def _interpolated(
        self, decision: Decision, found: Sequence[Found], slots: Sequence[int]
    ) -> Decision:
        """The agent's decision and the nearest actions, weighted by how near they are."""
        agent, own = self._agent, decision.ids
        assert own is not None and self._weight is not None
        nearest = self.steps.actions[[each.numbers[0] for each in found]]
        distance = np.array([each.distances[0] for each in found]) / self._normal
        weight = np.exp(-self._weight * distance)[:, None]  # (N, 1)
        drawn = np.array([[self._random[slot].random()] for slot in slots])
        ids = np.where(drawn < weight, nearest, own)
        first = 0
        for part in agent.layout.parts_of("action"):
            place = slice(first, first + part.tokens)
            first = place.stop
            if part.codec.ordinal:  # between the values: not all bins are equally wide
                toolbox = agent.processor.toolbox
                near, mine = (part.decode(each[:, place], toolbox) for each in (nearest, own))
                share = weight.reshape(-1, *[1] * (near.ndim - 1))
                between = share * near + (1 - share) * mine
                ids[:, place] = part.codec.encode(between, toolbox) + part.start
        actions = agent.processor.decode_actions(ids, agent.layout)
        for row, slot in enumerate(slots):
            self._executed[slot] = tree_map(lambda leaf: leaf[row], actions)  # noqa: B023 - used at once
        return Decision(actions=actions, ids=ids, values=decision.values)

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        super().end(slots)
        self._agent.end(slots)
        self._told.end(slots)
        for slot in slots:
            self._random.pop(slot, None)
            self._executed.pop(slot, None)

    def release(self) -> None:
        """Forget all episodes, with the memory they held."""
        super().release()
        self._agent.release()


def play_nearest(
    retrieval: Retrieval | None, task: str, *, without: Collection[int] = ()
) -> RetrieveAndPlay:
    """The policy that plays the nearest action, with the shipped processor.

    Args:
        retrieval: names the demonstrations.
        task: name of the task.
        without: seeds of episodes that are to be played; their demonstrations are left out.

    Raises:
        UsageError: no folder is given, it holds nothing of the task, or a setting does not apply.
    """
    from generalist.tokenization.processor import GeneralistProcessor

    if retrieval is None:
        raise UsageError("The policy retrieval needs demonstrations; name their folder (retrieve).")
    if retrieval.steps is not None or retrieval.weight is not None:
        raise UsageError(
            "The policy retrieval plays the nearest action alone; leave out how many timesteps are "
            "retrieved, and lambda."
        )
    processor = GeneralistProcessor.default()
    steps = DemonstratedSteps.read(retrieval.data, task, processor=processor, without=without)
    return RetrieveAndPlay(steps, task)


def retrieving(
    agent: Agent, retrieval: Retrieval, *, without: Collection[int] = ()
) -> RetrievingAgent | RetrieveAndPlay:
    """An agent that retrieves, in its task; with lambda 0 its model has nothing to say.

    Args:
        agent: acts in the task.
        retrieval: what is retrieved.
        without: seeds of episodes that are to be played; their demonstrations are left out.

    Raises:
        DemonstrationTooLong: not even one timestep fits.
        UsageError: the folder holds nothing of the task, or too many timesteps are asked for.
    """
    steps = DemonstratedSteps.read(
        retrieval.data, agent.task, processor=agent.processor, layout=agent.layout, without=without
    )
    if retrieval.weight == 0:
        return RetrieveAndPlay(steps, agent.task)
    agent = agent.for_task(agent.task)  # the caller's own keeps its settings
    # What follows a new prompt is computed anew anyway, so a younger row is not fed ahead of time.
    agent.decoder_options["backlog_tokens"] = None
    return RetrievingAgent(agent, steps, count=retrieval.steps, weight=retrieval.weight)


def demonstrated_elsewhere(policy: Policy, task: str, options: Mapping[str, Any]) -> str | None:
    """How an environment differs from those that a policy's demonstrations were made in.

    None where it does not, or where nothing is retrieved. Where they were cut does not count.
    """
    if not isinstance(policy, (RetrieveAndPlay, RetrievingAgent)):
        return None
    said: dict[str, None] = {}
    for made in policy.steps.options:
        found = option_differences(task, options, made)
        found.pop("max_steps", None)
        said |= {
            f"{name} {own!r} instead of {other!r}": None for name, (own, other) in found.items()
        }
    if not said:
        return None
    return f"{task} differs from what the demonstrations were made in: {', '.join(said)}."


def check_alone(**given: Any) -> None:
    """Raise UsageError where a rollout that retrieves is given what does not go with it."""
    for what, value in given.items():
        if value:
            raise UsageError(f"Retrieval makes the prompt of each step; leave {what} out.")


def check_no_mask(infos: Sequence[Info], task: str) -> None:
    """Raise UsageError where actions are masked: the nearest action may not be legal."""
    if any(info.get("action_mask") is not None for info in infos):
        raise UsageError(
            f"{task} says which actions are legal, and a retrieved action may not be. Retrieve the "
            "prompt alone, without lambda."
        )
