"""Many environments of several tasks, played in step, whose episodes can be found again.

The seed of an episode follows from its environment's number and the count of its episodes. So the
state of an environment is its episode's number and the actions so far: to resume, they are played
again. Nothing of an environment itself is saved.

Shapes: n = environments of a task, K = tokens of an observation, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from generalist.episode import Tree, tree_map, tree_stack
from generalist.errors import GeneralistError, UsageError
from generalist.session.trace import EpisodeError, Trace
from generalist.training.reinforcement.timesteps import Shower, States


@dataclass(frozen=True)
class Outcome:
    """A finished episode.

    Attributes:
        task: number of the task.
        return_: sum of its raw rewards.
        steps: number of its steps.
        success: whether it succeeded; None where the environment does not say.
    """

    task: int
    return_: float
    steps: int
    success: bool | None


@dataclass(frozen=True)
class Cut:
    """An episode that a limit cut: the state after its last step counts too.

    Attributes:
        environment: number of the environment, among all.
        states: that state.
    """

    environment: int
    states: States


@dataclass
class Stepped:
    """What a step brought in all environments.

    Attributes:
        rewards: (environments,) float32, raw.
        going_on: (environments,) bool, False where the episode ended or was cut.
        failed: (environments,) bool, True where the environment did something wrong.
        finished: the episodes that ended.
        cut: those of them that a limit cut.
    """

    rewards: np.ndarray
    going_on: np.ndarray
    failed: np.ndarray
    finished: list[Outcome] = field(default_factory=list)
    cut: list[Cut] = field(default_factory=list)


class _Place:
    """One environment with its running episode."""

    def __init__(self, make: Callable[[], gymnasium.Env], task: int, name: str) -> None:
        self.make, self.task, self.name = make, task, name
        self.env = make()
        self.episode = -1  # none yet
        self.taken: list[np.ndarray] = []  # ids of the actions so far, (k,) each
        self.trace: Trace | None = None
        self.header = -1

    @property
    def running(self) -> Trace:
        assert self.trace is not None
        return self.trace


class Fleet:
    """Environments of several tasks that one policy plays.

    Args:
        shower: knows the tasks and makes headers.
        processor: encodes observations and decodes actions.
        makers: for each task a function that makes one of its environments.
        counts: for each task, how many.
        seed_of: the seed of episode `episode` of environment `number`.

    Raises:
        UsageError: an environment masks its actions.
    """

    def __init__(
        self,
        shower: Shower,
        processor: Any,
        *,
        makers: Sequence[Callable[[], gymnasium.Env]],
        counts: Sequence[int],
        seed_of: Callable[[int, int], int],
    ) -> None:
        self.shower, self.processor, self._seed_of = shower, processor, seed_of
        self._places = [
            _Place(make, number, shower.tasks[number])
            for number, (make, count) in enumerate(zip(makers, counts, strict=True))
            for _ in range(count)
        ]
        bounds = np.cumsum([0, *counts])
        self.of_task = [slice(int(a), int(b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        self.failures: list[str] = []  # what went wrong, in words, since last asked

    def __len__(self) -> int:
        return len(self._places)

    def begin(self) -> None:
        """Begin the first episode of every environment."""
        for number in range(len(self)):
            self._next(number)

    def observe(self) -> list[States]:
        """The present states, task by task."""
        return [self._states(self._places[part]) for part in self.of_task]

    def step(self, ids: np.ndarray) -> Stepped:
        """Execute an action in every environment; begin the next episode where one ends.

        Args:
            ids: (environments, at least k) int64 ids of the actions.
        """
        count = len(self)
        result = Stepped(np.zeros(count, np.float32), np.ones(count, bool), np.zeros(count, bool))
        for part in self.of_task:
            task = self._places[part.start].task
            layout = self.shower.layouts[task]
            taken = ids[part, : len(layout.legal)]
            actions = self.processor.decode_actions(taken, layout)
            for row, number in enumerate(range(part.start, part.stop)):
                self._step(number, _row(actions, row), taken[row], result)
        return result

    def _step(self, number: int, action: Any, taken: np.ndarray, result: Stepped) -> None:
        place = self._places[number]
        trace = place.running
        try:
            trace.step(action)
            self._refuse_masks(place)
        except EpisodeError as error:
            self.failures.append(str(error))
            result.failed[number], result.going_on[number] = True, False
            self._anew(number)
            return
        place.taken.append(taken.astype(np.int64))
        result.rewards[number] = trace.rewards[-1]
        if not trace.done:
            return
        result.going_on[number] = False
        result.finished.append(Outcome(place.task, trace.return_, trace.steps, trace.success))
        if trace.truncated and not trace.terminated:
            result.cut.append(Cut(number, self._states([place])))
        self._next(number)

    def _states(self, places: Sequence[_Place]) -> States:
        task = places[0].task
        observations = tree_stack([place.running.observation for place in places])
        layout = self.shower.layouts[task]
        ids = self.processor.encode_observations(observations, layout, self.shower.tasks[task])
        headers = np.array([place.header for place in places])
        return States(task, headers, ids.astype(np.int64))

    def _next(self, number: int) -> None:
        """Begin the next episode of an environment; one that fails at once is tried once more."""
        place = self._places[number]
        try:
            self._reset(number, place.episode + 1)
        except EpisodeError as error:
            self.failures.append(str(error))
            self._anew(number)

    def _anew(self, number: int) -> None:
        """Make an environment again after it failed, and begin the next episode."""
        place = self._places[number]
        place.env.close()
        place.env = place.make()
        self._reset(number, place.episode + 1)

    def _reset(self, number: int, episode: int) -> None:
        place = self._places[number]
        place.episode, place.taken = episode, []
        place.trace = Trace(place.env, place.name, self._seed_of(number, episode))
        place.header = self.shower.header(place.task, place.trace.instruction)
        self._refuse_masks(place)

    def _refuse_masks(self, place: _Place) -> None:
        if place.running.info.get("action_mask") is not None:
            raise UsageError(
                f"{place.name} says which actions are legal, and reinforcement heeds no such "
                "masks yet. For boards there is `generalist selfplay`."
            )

    # Resuming

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` needs: numbers of episodes, and the actions in them so far."""
        taken = [
            np.stack(place.taken) if place.taken else np.zeros((0, 1), np.int64)
            for place in self._places
        ]
        return {
            "episodes": np.array([place.episode for place in self._places], np.int64),
            **{f"taken/{number}": each for number, each in enumerate(taken)},
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Play the actions of `state` again, so that every environment is where it was.

        Raises:
            GeneralistError: the state is of other environments.
        """
        if len(state["episodes"]) != len(self):
            raise GeneralistError(
                f"The checkpoint was saved with {len(state['episodes'])} environments, and there "
                f"are {len(self)}."
            )
        for number, place in enumerate(self._places):
            self._reset(number, int(state["episodes"][number]))
            taken = state[f"taken/{number}"]
            if not len(taken):
                continue
            actions = self.processor.decode_actions(taken, self.shower.layouts[place.task])
            for row in range(len(taken)):
                place.running.step(_row(actions, row))
                if place.running.done:
                    raise GeneralistError(
                        f"{place.running.place}: the episode ended when it was played again. The "
                        "environment does not depend on its seed and actions alone."
                    )
            place.taken = list(taken)

    def close(self) -> None:
        """Close all environments."""
        for place in self._places:
            place.env.close()


def _row(batch: Tree, number: int) -> Any:
    return tree_map(lambda leaf: leaf[number], batch)
