"""The fleet: all environments of a run in this process, or with actors, as one batch.

Shapes: E = environments, n = environments of a task, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np

from generalist.errors import GeneralistError
from generalist.training.reinforcement.actors import Actor, ActorLost, LocalCrew
from generalist.training.reinforcement.crew import Crewed, Seen, Stepped
from generalist.training.reinforcement.timesteps import Shower, States, counted

PATIENCE_SECONDS = 60.0
"""What an actor has to answer, before another takes its place; at first ten times as much."""


class Fleet:
    """Environments of several tasks that one policy plays in step.

    Args:
        shower: knows the tasks, and makes headers.
        processor: encodes observations and decodes actions.
        makers: for each task a function that makes one of its environments.
        counts: for each task, how many.
        most: how many a task may have after `deal`; None: as many as at first.
        seed_of: the seed of episode `episode` of environment `number`.
        actors: number of processes that step them; 0: this process does.
        patience: seconds that an actor has to answer.
        record: whether finished episodes come whole.
        contexts: for each task, how many timesteps are seen together, at most; empty: one.

    Attributes:
        shower: as given.
        contexts: for each task, how many timesteps are seen together, at most.
        of_task: for each task which of the environments are its own.
        failures: what went wrong, in words, since somebody took it.
    """

    exact = True
    """A restored fleet is where it was."""

    def __init__(
        self,
        shower: Shower,
        processor: Any,
        *,
        makers: Sequence[Callable[[], gymnasium.Env]],
        counts: Sequence[int],
        most: int | None = None,
        seed_of: Callable[[int, int], int],
        actors: int = 0,
        patience: float = PATIENCE_SECONDS,
        record: bool = False,
        contexts: Sequence[int] = (),
    ) -> None:
        self.shower, self._patience, self._actors = shower, patience, actors
        self.contexts = tuple(contexts) or (1,) * len(counts)
        self.failures: list[str] = []
        # Environments keep their numbers, and so their seeds, whatever is dealt.
        self._firsts = np.cumsum([0, *([most] * len(counts) if most else counts)]).tolist()
        self._crewed = [
            Crewed(
                tasks=shower.tasks,
                layouts=shower.layouts,
                makers=makers,
                environments=[],
                processor=processor,
                seed_of=seed_of,
                record=record,
                contexts=self.contexts,
            )
            for _ in range(max(actors, 1))
        ]
        self._crews: list[Actor | LocalCrew] = []
        self._episodes = np.full(self._firsts[-1], -1)  # of each number, the latest
        self._states: list[States] = []
        self._answered: list[list[Seen]] = [[] for _ in self._crewed]
        self._assign(counts)

    def _assign(self, counts: Sequence[int]) -> None:
        """Say which environments there are, and who steps them."""
        bounds = np.cumsum([0, *counts]).tolist()
        self.of_task = [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        starts = list(zip(self._firsts, counts, strict=False))
        shares = len(self._crewed)
        self._crewed = [
            replace(
                crewed,
                environments=[
                    range(first + share, first + count, shares) for first, count in starts
                ],
            )
            for share, crewed in enumerate(self._crewed)
        ]
        numbers = np.concatenate([np.arange(first, first + count) for first, count in starts])
        self._row_of = dict(zip(numbers.tolist(), range(len(numbers)), strict=True))
        self._rows = [
            np.array([self._row_of[number] for number in crewed.numbers], np.int64)
            for crewed in self._crewed
        ]

    def __len__(self) -> int:
        return self.of_task[-1].stop

    @property
    def episodes(self) -> np.ndarray:
        """(numbers,) int64 number of the latest episode of each environment; -1 for none."""
        return self._episodes.copy()

    @property
    def counts(self) -> list[int]:
        """How many environments each task has."""
        return [part.stop - part.start for part in self.of_task]

    def begin(self, episodes: np.ndarray | None = None) -> None:
        """Begin an episode in every environment.

        Args:
            episodes: (numbers,) int64, which; None: the first of each.
        """
        if episodes is None:
            self._episodes[list(self._row_of)] = 0
        else:
            self._episodes = episodes.copy()
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
        """The first states of a crew."""
        try:
            return _late(crew)
        except ActorLost as lost:
            raise GeneralistError(f"An actor {lost} before it began.") from lost

    def deal(self, counts: Sequence[int]) -> None:
        """Give each task so many environments from now on.

        Those that go end within their episode. Those that come begin the next of their own.
        """
        self._assign(counts)
        questions = [
            ("deal", crewed.environments, self._episodes[crewed.numbers]) for crewed in self._crewed
        ]
        for number, seen in self._ask(questions, Stepped.nothing(len(self))).items():
            self._answered[number] = seen
        self._look()

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
        result = Stepped.nothing(len(self))
        questions = [("step", ids[rows], version) for rows in self._rows]
        for number, (stepped, seen) in self._ask(questions, result).items():
            _merge(result, stepped, self._rows[number])
            self.failures += stepped.failures
            self._answered[number] = seen
        self._look()
        return result

    def _ask(
        self,
        questions: Sequence[tuple[Any, ...]],
        result: Stepped,
        answer: Callable[[Actor | LocalCrew], Any] = lambda crew: crew.answer(),
    ) -> dict[int, Any]:
        """Ask each crew its question, and replace the actors that are lost meanwhile.

        Args:
            questions: what is asked, and the arguments.
            result: is told whose step failed.
            answer: waits for a crew's answer.

        Returns:
            The answers of those that are there, by number; the others' first states are noted.
        """
        answers, lost = {}, {}
        for number, (crew, question) in enumerate(zip(self._crews, questions, strict=True)):
            try:
                crew.ask(*question)
            except ActorLost as loss:
                lost[number] = str(loss)
        for number, crew in enumerate(self._crews):
            try:
                if number not in lost:
                    answers[number] = answer(crew)
            except ActorLost as loss:
                lost[number] = str(loss)
        for number, why in lost.items():
            self._replace(number, why, result)
        return answers

    def _replace(self, number: int, why: str, result: Stepped) -> None:
        """Put another actor in the place of one that is lost."""
        crewed, rows = self._crewed[number], self._rows[number]
        failure = f"Actor {number} {why}; another begins the next episodes."
        result.failures.append(failure)
        self.failures.append(failure)
        result.failed[rows], result.going_on[rows] = True, False
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
        counts = np.concatenate([each.counts for each in states])
        starts = np.cumsum(counts) - counts
        timesteps = np.repeat(starts[order], counts[order]) + counted(counts[order])
        return States(
            task,
            np.concatenate([each.headers for each in states])[order],
            np.concatenate([each.ids for each in states])[timesteps],
            [masks[place] for place in order],
            counts[order],
        )

    def states_of(self, seen: Seen) -> States:
        """What was seen, behind its headers."""
        headers = [self.shower.header(seen.task, said) for said in seen.instructions]
        return States(seen.task, np.array(headers), seen.ids, seen.masks, seen.counts)

    # Resuming

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` needs: numbers of episodes, and the actions in them so far.

        Raises:
            GeneralistError: actors are lost again and again.
        """
        questions = [("state",)] * len(self._crews)
        for _ in range(3):  # those that were replaced are asked again
            states = self._ask(questions, Stepped.nothing(len(self)))
            self._look()
            if len(states) == len(questions):
                break
        else:
            raise GeneralistError(f"Actors are lost again and again. {self.failures[-1]}")
        taken: dict[int, np.ndarray] = {}
        versions = np.zeros(len(self), np.int64)
        for number, (crewed, rows) in enumerate(zip(self._crewed, self._rows, strict=True)):
            theirs, versions[rows] = states[number]
            taken |= zip(crewed.numbers, theirs, strict=True)
        return {
            "episodes": self.episodes,
            "counts": np.array(self.counts),
            "versions": versions,
            **{f"taken/{number}": each for number, each in sorted(taken.items())},
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Play the actions of `state` again, so that every environment is where it was.

        An actor that is lost meanwhile is replaced, and the next episodes begin.

        Raises:
            GeneralistError: the state is of other environments, or an environment does not depend
                on its seed and actions alone.
        """
        if len(state["episodes"]) != len(self._episodes):
            raise GeneralistError(
                f"The checkpoint was saved with {len(state['episodes'])} environments, and there "
                f"are {len(self._episodes)}."
            )
        self._assign(state["counts"].tolist())
        self.begin(state["episodes"])
        questions = []
        for crewed, rows in zip(self._crewed, self._rows, strict=True):
            taken = [state[f"taken/{number}"] for number in crewed.numbers]
            questions.append(("replay", taken, state["versions"][rows].tolist()))
        for number, seen in self._ask(questions, Stepped.nothing(len(self)), _late).items():
            self._answered[number] = seen
        self._look()

    def close(self) -> None:
        """End all actors, and close all environments."""
        for crew in self._crews:
            crew.close()
        self._crews = []


def _late(crew: Actor | LocalCrew) -> Any:
    """An answer that takes an actor its time: it imports packages, or plays episodes again."""
    for _ in range(9):
        try:
            return crew.answer()
        except ActorLost as lost:
            if "gave no answer" not in str(lost):
                raise
    return crew.answer()


def _merge(result: Stepped, stepped: Stepped, rows: np.ndarray) -> None:
    """Add what a crew's step brought to that of all, in their rows."""
    result.rewards[rows] = stepped.rewards
    result.going_on[rows] = stepped.going_on
    result.succeeded[rows] = stepped.succeeded
    result.failed[rows] = stepped.failed
    result.finished += stepped.finished
    result.cut |= {int(rows[row]): seen for row, seen in stepped.cut.items()}
    result.failures += stepped.failures
