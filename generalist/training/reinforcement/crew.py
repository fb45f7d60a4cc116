"""A crew: environments of several tasks, stepped in one process, whose episodes are found again.

The seed of an episode follows from its environment's number and the count of its episodes. So the
state of an environment is its episode's number and the actions so far: to resume, they are played
again. Nothing of an environment itself is saved.

Shapes: n = environments of a task, m = timesteps in their views, E = environments of the crew,
K = tokens of an observation, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
import numpy as np

from generalist.episode import Tree, tree_map, tree_stack
from generalist.errors import GeneralistError
from generalist.session.trace import EpisodeError, Trace
from generalist.shards.shards import EncodedEpisode
from generalist.tokenization.layout import Layout
from generalist.training.reinforcement.timesteps import in_view

SOURCE = "reinforcement"
"""Of the episodes that reinforcement records."""


@dataclass(frozen=True)
class Outcome:
    """A finished episode.

    Attributes:
        task: number of the task.
        return_: sum of its raw rewards.
        steps: number of its steps.
        success: whether it succeeded; None where the environment does not say.
        episode: the whole of it, where episodes are recorded.
    """

    task: int
    return_: float
    steps: int
    success: bool | None
    episode: EncodedEpisode | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Seen:
    """The present states of some environments of one task.

    Attributes:
        task: number of the task.
        ids: (m, K) int64 of the observations in view: of each environment those of its episode that
            are seen, the present one last.
        counts: (n,) int64, how many these are.
        instructions: what to do in each of them, in words; None where nobody says so.
        episodes: (n,) int64 numbers of their episodes.
        masks: of legal actions in each of them, as the action space's `sample` takes them; None
            where all are legal.
    """

    task: int
    ids: np.ndarray
    counts: np.ndarray
    instructions: list[str | None]
    episodes: np.ndarray
    masks: list[Any]


@dataclass
class Stepped:
    """What a step brought.

    Attributes:
        rewards: (E,) float32, raw.
        going_on: (E,) bool, False where the episode ended or was cut.
        succeeded: (E,) bool, True where the episode ended or was cut, and had succeeded.
        failed: (E,) bool, True where the environment did something wrong.
        finished: the episodes that ended.
        cut: for environments whose episode a limit cut, the state behind its last step.
        failures: what went wrong, in words.
    """

    rewards: np.ndarray
    going_on: np.ndarray
    succeeded: np.ndarray
    failed: np.ndarray
    finished: list[Outcome] = field(default_factory=list)
    cut: dict[int, Seen] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @classmethod
    def nothing(cls, count: int) -> Stepped:
        """What is filled in step by step, for `count` environments."""
        no, also_no = np.zeros((2, count), bool)
        return cls(np.zeros(count, np.float32), np.ones(count, bool), no, also_no)


@dataclass(frozen=True)
class Crewed:
    """What a crew plays; picklable, for crews in other processes.

    Attributes:
        tasks: names of the tasks, by number.
        layouts: of the tasks.
        makers: for each task a function that makes one of its environments.
        environments: for each task the numbers of the crew's environments, ascending.
        processor: encodes observations and decodes actions.
        seed_of: the seed of episode `episode` of environment `number`.
        contexts: for each task, how many timesteps are seen together, at most.
        record: whether whole episodes are wanted.
    """

    tasks: Sequence[str]
    layouts: Sequence[Layout]
    makers: Sequence[Callable[[], gymnasium.Env]]
    environments: Sequence[Sequence[int]]
    processor: Any
    seed_of: Callable[[int, int], int]
    contexts: Sequence[int]
    record: bool = False

    @property
    def numbers(self) -> list[int]:
        """Numbers of all its environments, task by task."""
        return [number for part in self.environments for number in part]


class _Place:
    """One environment with its running episode."""

    def __init__(self, make: Callable[[], gymnasium.Env], task: int, number: int) -> None:
        self.make, self.task, self.number = make, task, number
        self.env = make()
        self.episode = -1  # none yet
        self.taken: list[np.ndarray] = []  # ids of the actions so far, (k,) each
        self.version = 0  # of the weights that chose the first of them
        self.shown = np.zeros(0, np.int64)  # (K,) ids of the present observation
        self.mask: Any = None  # of the legal actions now
        self.seen: list[np.ndarray] = []  # of the observations before, as far as they are needed
        self.trace: Trace | None = None

    @property
    def running(self) -> Trace:
        assert self.trace is not None
        return self.trace


class Crew:
    """The environments of one process.

    Args:
        crewed: what it plays.
        start: (E,) int64 numbers of the first episodes.
    """

    def __init__(self, crewed: Crewed, start: np.ndarray) -> None:
        self._crewed = crewed
        self._parts: list[list[_Place]] = []
        self._places: list[_Place] = []
        self._version = 0  # of the weights that act
        self._failures: list[str] = []
        self.deal(crewed.environments, start - 1)

    def deal(self, environments: Sequence[Sequence[int]], episodes: np.ndarray) -> list[Seen]:
        """Have these environments from now on; what there was goes on.

        Args:
            environments: as in `Crewed`.
            episodes: (E,) int64 numbers of their latest episodes.

        Returns:
            As `observe`.
        """
        self._crewed = replace(self._crewed, environments=environments)
        before = {place.number: place for place in self._places}
        latest = dict(zip(self._crewed.numbers, episodes.tolist(), strict=True))
        self._parts = [
            [
                before.pop(number) if number in before else self._new(task, number, latest[number])
                for number in part
            ]
            for task, part in enumerate(environments)
        ]
        self._places = [place for part in self._parts for place in part]
        for place in before.values():
            place.env.close()
        return self.observe()

    def _new(self, task: int, number: int, latest: int) -> _Place:
        """A further environment, in the episode behind `latest`."""
        place = _Place(self._crewed.makers[task], task, number)
        place.episode = latest
        self._next(place)
        return place

    def observe(self) -> list[Seen]:
        """The present states, task by task."""
        found = []
        for part in filter(None, self._parts):
            seen = self._seen(part)
            found.append(seen)
            for place, last in zip(part, np.cumsum(seen.counts) - 1, strict=True):
                place.shown = seen.ids[last]
        return found

    def step(self, ids: np.ndarray, version: int = 0) -> tuple[Stepped, list[Seen]]:
        """Execute an action in every environment; begin the next episode where one ends.

        Args:
            ids: (E, at least k) int64 ids of the actions.
            version: of the weights that chose them.
        """
        result = Stepped.nothing(len(self._places))
        self._version = version
        row = 0
        for part in filter(None, self._parts):
            layout = self._crewed.layouts[part[0].task]
            taken = ids[row : row + len(part), : len(layout.legal)]
            actions = self._crewed.processor.decode_actions(taken, layout)
            for within, place in enumerate(part):
                self._step(place, row, _row(actions, within), taken[within], result)
                row += 1
        result.failures, self._failures = self._failures, []
        return result, self.observe()

    def _step(
        self, place: _Place, row: int, action: Any, taken: np.ndarray, result: Stepped
    ) -> None:
        trace = place.running
        try:
            trace.step(action)
            place.mask = None if trace.done else trace.mask
        except EpisodeError as error:
            self._failures.append(str(error))
            result.failed[row], result.going_on[row] = True, False
            self._anew(place)
            return
        if not place.taken:
            place.version = self._version
        place.taken.append(taken.astype(np.int64))
        self._remember(place, place.shown)
        result.rewards[row] = trace.rewards[-1]
        if not trace.done:
            return
        result.going_on[row], result.succeeded[row] = False, _succeeded(trace)
        result.finished.append(
            Outcome(
                place.task, trace.return_, trace.steps, trace.success,
                self._recorded(place) if self._crewed.record else None,
            )
        )  # fmt: skip
        if trace.truncated and not trace.terminated:
            result.cut[row] = self._seen([place])
        self._next(place)

    def _remember(self, place: _Place, ids: np.ndarray) -> None:
        """Keep an observation as long as it may be seen or is to be recorded."""
        place.seen.append(ids)
        if not self._crewed.record:
            more = len(place.seen) + 1 - self._crewed.contexts[place.task]
            del place.seen[: max(more, 0)]

    def _seen(self, places: Sequence[_Place]) -> Seen:
        task = places[0].task
        observations = tree_stack([place.running.observation for place in places])
        layout, name = self._crewed.layouts[task], self._crewed.tasks[task]
        ids = self._crewed.processor.encode_observations(observations, layout, name)
        ids, counts = self._in_view(places, ids.astype(np.int64))
        return Seen(
            task,
            ids,
            counts,
            [place.running.instruction for place in places],
            np.array([place.episode for place in places], np.int64),
            [place.mask for place in places],
        )

    def _in_view(
        self, places: Sequence[_Place], present: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`Seen.ids` and `Seen.counts`, of the (n, K) present observations."""
        most = self._crewed.contexts[places[0].task]
        counts = np.array([in_view(len(place.taken), most) for place in places], np.int64)
        if most == 1:
            return present, counts
        shown: list[np.ndarray] = []
        for place, ids, count in zip(places, present, counts.tolist(), strict=True):
            shown += [*place.seen[len(place.seen) + 1 - count :], ids]
        return np.stack(shown), counts

    def _recorded(self, place: _Place) -> EncodedEpisode:
        """The finished episode of a place, as shards hold it."""
        trace, layout = place.running, self._crewed.layouts[place.task]
        ids = layout.weave({"observation": np.stack(place.seen), "action": np.stack(place.taken)})
        record = {
            "seed": trace.seed,
            "source": SOURCE,
            "policy_steps": [place.version, self._version],
            "terminated": trace.terminated,
            "truncated": trace.truncated,
            "instruction": trace.instruction,
            **({} if trace.success is None else {"success": trace.success}),
        }
        dtype = self._crewed.processor.vocabulary.dtype
        rewards = np.asarray(trace.rewards, np.float32)
        return EncodedEpisode(ids.ravel().astype(dtype), rewards, None, record)

    def _next(self, place: _Place) -> None:
        """Begin the next episode of an environment; one that fails at once is tried once more."""
        try:
            self._reset(place, place.episode + 1)
        except EpisodeError as error:
            self._failures.append(str(error))
            self._anew(place)

    def _anew(self, place: _Place) -> None:
        """Make an environment again after it failed, and begin the next episode."""
        place.env.close()
        place.env = place.make()
        self._reset(place, place.episode + 1)

    def _reset(self, place: _Place, episode: int) -> None:
        place.episode, place.taken, place.seen = episode, [], []
        seed = self._crewed.seed_of(place.number, episode)
        place.trace = Trace(place.env, self._crewed.tasks[place.task], seed)
        place.mask = place.trace.mask

    # Resuming

    def state(self) -> tuple[list[np.ndarray], list[int]]:
        """For each environment (steps, k) int64, the actions in its episode so far.

        And the version of the weights that chose the first of them.
        """
        taken = [
            np.stack(place.taken) if place.taken else np.zeros((0, 1), np.int64)
            for place in self._places
        ]
        return taken, [place.version for place in self._places]

    def replay(self, taken: Sequence[np.ndarray], versions: Sequence[int]) -> list[Seen]:
        """Play the actions of `state` in the episodes that have just begun.

        Raises:
            GeneralistError: an episode does not follow from its seed and actions alone.
        """
        for place, ids, version in zip(self._places, taken, versions, strict=True):
            place.version = version
            if not len(ids):
                continue
            layout = self._crewed.layouts[place.task]
            actions = self._crewed.processor.decode_actions(ids, layout)
            for row in range(len(ids)):
                if self._crewed.record or self._crewed.contexts[place.task] > 1:
                    self._remember(place, self._seen([place]).ids[-1])
                place.taken.append(ids[row])
                place.running.step(_row(actions, row))
                if place.running.done:
                    raise GeneralistError(
                        f"{place.running.place}: the episode ended when it was played again. The "
                        "environment does not depend on its seed and actions alone."
                    )
            place.mask = place.running.mask
        return self.observe()

    def close(self) -> None:
        """Close all environments."""
        for place in self._places:
            place.env.close()


def _succeeded(trace: Trace) -> bool:
    """Whether an episode succeeded, as `Task.score_of` has it."""
    return trace.return_ > 0 if trace.success is None else trace.success


def _row(batch: Tree, number: int) -> Any:
    return tree_map(lambda leaf: leaf[number], batch)
