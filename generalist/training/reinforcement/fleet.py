"""The fleet: all environments of a run in this process, or with actors, as one batch.

Shapes: E = environments, n = environments of a task, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from generalist.errors import GeneralistError
from generalist.training.reinforcement.actors import Actor, ActorLost, LocalCrew
from generalist.training.reinforcement.crew import Crewed, Seen, Stepped
from generalist.training.reinforcement.timesteps import Shower, States

PATIENCE_SECONDS = 60.0
"""What an actor has to answer, before another takes its place; at first ten times as much."""


class Fleet:
    """Environments of several tasks that one policy plays in step.

    Args:
        shower: knows the tasks, and makes headers.
        processor: encodes observations and decodes actions.
        makers: for each task a function that makes one of its environments.
        counts: for each task, how many.
        seed_of: the seed of episode `episode` of environment `number`.
        actors: number of processes that step them; 0: this process does.
        patience: seconds that an actor has to answer.
        record: whether finished episodes come whole.

    Attributes:
        shower: as given.
        of_task: for each task which of the environments are its own.
        failures: what went wrong, in words, since somebody took it.
    """

    def __init__(
        self,
        shower: Shower,
        processor: Any,
        *,
        makers: Sequence[Callable[[], gymnasium.Env]],
        counts: Sequence[int],
        seed_of: Callable[[int, int], int],
        actors: int = 0,
        patience: float = PATIENCE_SECONDS,
        record: bool = False,
    ) -> None:
        self.shower, self._patience, self._actors = shower, patience, actors
        bounds = np.cumsum([0, *counts]).tolist()
        self.of_task = [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        self.failures: list[str] = []
        shares = max(actors, 1)
        self._crewed = [
            Crewed(
                tasks=shower.tasks,
                layouts=shower.layouts,
                makers=makers,
                environments=[
                    range(part.start + share, part.stop, shares) for part in self.of_task
                ],
                processor=processor,
                seed_of=seed_of,
                record=record,
            )
            for share in range(shares)
        ]
        self._crews: list[Actor | LocalCrew] = []
        self._episodes = np.zeros(bounds[-1], np.int64)
        self._states: list[States] = []
        self._answered: list[list[Seen]] = [[] for _ in self._crewed]

    def __len__(self) -> int:
        return len(self._episodes)

    def begin(self, episodes: np.ndarray | None = None) -> None:
        """Begin an episode in every environment.

        Args:
            episodes: (E,) int64, which; None: the first of each.
        """
        self._episodes = np.zeros(len(self), np.int64) if episodes is None else episodes.copy()
        self._crews = [
            self._manned(crewed, self._episodes[crewed.numbers]) for crewed in self._crewed
        ]
        self._answered = [self._first(crew) for crew in self._crews]
        self._look()

    def _manned(self, crewed: Crewed, start: np.ndarray) -> Actor | LocalCrew:
        if not self._actors:
            return LocalCrew(crewed, start)
        return Actor(crewed, start, self._patience)

    def _first(self, crew: Actor | LocalCrew) -> list[Seen]:
        """The first states of a crew, which an actor needs time for: it imports packages."""
        for _ in range(9):
            try:
                return crew.answer()
            except ActorLost as lost:
                if "gave no answer" not in str(lost):
                    raise GeneralistError(f"An actor {lost} before it began.") from lost
        return crew.answer()

    def observe(self) -> list[States]:
        """The present states, task by task."""
        return self._states

    def step(self, ids: np.ndarray, version: int = 0) -> Stepped:
        """Execute an action in every environment; begin the next episode where one ends.

        `cut` of what it returns has the numbers of environments as keys.

        Args:
            ids: (E, at least k) int64 ids of the actions.
            version: of the weights that chose them.
        """
        lost: dict[int, str] = {}
        for number, (crew, crewed) in enumerate(zip(self._crews, self._crewed, strict=True)):
            try:
                crew.ask("step", ids[crewed.numbers], version)
            except ActorLost as loss:
                lost[number] = str(loss)
        result = Stepped.nothing(len(self))
        for number, (crew, crewed) in enumerate(zip(self._crews, self._crewed, strict=True)):
            try:
                if number not in lost:
                    stepped, self._answered[number] = crew.answer()
                    _merge(result, stepped, crewed.numbers)
            except ActorLost as loss:
                lost[number] = str(loss)
            if number in lost:
                self._replace(number, lost[number], result)
        self.failures += result.failures
        self._look()
        return result

    def _replace(self, number: int, why: str, result: Stepped) -> None:
        """Put another actor in the place of one that is lost."""
        crewed = self._crewed[number]
        result.failures.append(f"Actor {number} {why}; another begins the next episodes.")
        result.failed[crewed.numbers], result.going_on[crewed.numbers] = True, False
        self._crews[number].close()
        crew = self._manned(crewed, self._episodes[crewed.numbers] + 1)
        self._crews[number], self._answered[number] = crew, self._first(crew)

    def _look(self) -> None:
        """Put together what all crews see now."""
        found: list[list[tuple[np.ndarray, Seen]]] = [[] for _ in self.of_task]
        for crewed, answered in zip(self._crewed, self._answered, strict=True):
            for seen in answered:
                numbers = np.asarray(crewed.environments[seen.task])
                found[seen.task].append((numbers, seen))
                self._episodes[numbers] = seen.episodes
        self._states = [self._joined(task, parts) for task, parts in enumerate(found)]

    def _joined(self, task: int, parts: Sequence[tuple[np.ndarray, Seen]]) -> States:
        numbers = np.concatenate([each for each, _ in parts])
        order = np.argsort(numbers)
        states = [self.states_of(seen) for _, seen in parts]
        masks = [mask for each in states for mask in each.masks]
        return States(
            task,
            np.concatenate([each.headers for each in states])[order],
            np.concatenate([each.ids for each in states])[order],
            [masks[place] for place in order],
        )

    def states_of(self, seen: Seen) -> States:
        """What was seen, behind its headers."""
        headers = [self.shower.header(seen.task, said) for said in seen.instructions]
        return States(seen.task, np.array(headers), seen.ids, seen.masks)

    # Resuming

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` needs: numbers of episodes, and the actions in them so far."""
        for crew in self._crews:
            crew.ask("state")
        taken: dict[int, np.ndarray] = {}
        versions = np.zeros(len(self), np.int64)
        for crew, crewed in zip(self._crews, self._crewed, strict=True):
            theirs, versions[crewed.numbers] = crew.answer()
            taken |= zip(crewed.numbers, theirs, strict=True)
        return {
            "episodes": self._episodes.copy(),
            "versions": versions,
            **{f"taken/{number}": each for number, each in sorted(taken.items())},
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Play the actions of `state` again, so that every environment is where it was.

        Raises:
            GeneralistError: the state is of other environments, or an environment does not depend
                on its seed and actions alone.
        """
        if len(state["episodes"]) != len(self):
            raise GeneralistError(
                f"The checkpoint was saved with {len(state['episodes'])} environments, and there "
                f"are {len(self)}."
            )
        self.begin(state["episodes"])
        for crew, crewed in zip(self._crews, self._crewed, strict=True):
            taken = [state[f"taken/{number}"] for number in crewed.numbers]
            crew.ask("replay", taken, state["versions"][crewed.numbers].tolist())
        self._answered = [self._first(crew) for crew in self._crews]
        self._look()

    def close(self) -> None:
        """End all actors, and close all environments."""
        for crew in self._crews:
            crew.close()
        self._crews = []


def _merge(result: Stepped, stepped: Stepped, numbers: Sequence[int]) -> None:
    """Add what a crew's step brought to that of all."""
    result.rewards[numbers] = stepped.rewards
    result.going_on[numbers] = stepped.going_on
    result.failed[numbers] = stepped.failed
    result.finished += stepped.finished
    result.cut |= {numbers[row]: seen for row, seen in stepped.cut.items()}
    result.failures += stepped.failures
