"""Actors on a Ray cluster, each of which plays whole unrolls with the weights it was last given.

1. Weights go to the actors by the object store, unrolls come back.
2. The learner waits for half of the actors, and learns from what has come. Who has delivered plays
   on at once, with the present weights. A slow actor so delays nobody: its unroll comes later, and
   importance weights make up for its older policy.
3. An actor that is lost, or overdue, loses its unroll and nothing else: another begins the next
   episodes of its environments.

Shapes: E = environments, T = steps; n environments of a task.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch

from generalist.clusters import joined
from generalist.collecting.worker import single_threaded
from generalist.errors import GeneralistError, UsageError, in_words
from generalist.training.ranks import Problem
from generalist.training.reinforcement.actors import ActorLost
from generalist.training.reinforcement.fleet import Fleet
from generalist.training.reinforcement.recipe import ReinforcementRecipe
from generalist.training.reinforcement.timesteps import Shower
from generalist.training.reinforcement.unrolls import Played, Unroll, play_unroll

PATIENCE_SECONDS = 300.0
"""What an actor has for an unroll, with its start, before another takes its place."""


@dataclass(frozen=True)
class Brought:
    """What an actor brings.

    Attributes:
        played: an unroll of its environments, in their own order.
        headers: as `Shower.known`; those that the unroll's numbers mean.
        episodes: numbers of its environments' latest episodes.
        failures: what went wrong, in words.
    """

    played: Played
    headers: list[np.ndarray]
    episodes: np.ndarray
    failures: list[str]


class Player:
    """What an actor does in its own process.

    Args:
        make_fleet: makes its environments.
        models: the model that acts, and the one that the run started with or None.
        recipe: how unrolls are played.
        start: numbers of the first episodes.
    """

    def __init__(
        self,
        make_fleet: Callable[[], Fleet],
        models: tuple[Any, Any],
        recipe: ReinforcementRecipe,
        start: np.ndarray,
    ) -> None:
        single_threaded()
        self._make_fleet, self._start, self._recipe = make_fleet, start, recipe
        self._model, self._reference = models
        self._fleet: Fleet | None = None

    def play(
        self, weights: Mapping[str, torch.Tensor], version: int, seed: int
    ) -> Brought | Problem:
        """Play an unroll.

        Args:
            weights: of the model, by name.
            version: of these weights.
            seed: of the actions.
        """
        try:
            if self._fleet is None:
                self._fleet = self._make_fleet()
                self._fleet.begin(self._start)
            self._model.load_state_dict(weights)
            played = play_unroll(
                self._model, self._fleet, self._recipe,
                random=torch.Generator().manual_seed(seed),
                version=version, reference=self._reference,
            )  # fmt: skip
        except GeneralistError as error:
            return Problem.of(error)
        failures, self._fleet.failures = self._fleet.failures, []
        shower = self._fleet.shower
        return Brought(played, shower.known(), self._fleet.episodes, failures)


class RayActor:
    """A `Player` somewhere on the cluster, asked in the way of an `Actor`.

    Args:
        arguments: of the `Player`.
    """

    def __init__(self, *arguments: Any) -> None:
        import ray

        self._handle: Any = ray.remote(num_cpus=1, max_restarts=0)(Player).remote(*arguments)
        self.asked_at = 0.0
        self.promise: Any = None  # of the present answer

    def ask(self, what: str, *arguments: Any) -> None:
        """Have the player do something, and do not wait for it."""
        self.asked_at = time.monotonic()
        self.promise = getattr(self._handle, what).remote(*arguments)

    def answer(self) -> Any:
        """What came of the last question.

        Raises:
            ActorLost: the process or its machine is gone.
            GeneralistError: the player raised it.
        """
        import ray

        try:
            answer = ray.get(self.promise)
        except ray.exceptions.RayTaskError as error:
            raise ActorLost(f"raised {in_words(error.cause)}") from error
        except ray.exceptions.RayError as error:
            raise ActorLost(f"is lost ({type(error).__name__})") from error
        if isinstance(answer, Problem):
            raise answer.error()
        return answer

    def close(self) -> None:
        """End the process."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._handle)


class Cluster:
    """The environments of a run, with actors on a Ray cluster; in place of a `Fleet`.

    Args:
        shower: knows the tasks, and makes headers.
        processor: encodes observations and decodes actions.
        address: of the cluster; see `generalist.clusters.joined`.
        actors: how many.
        makers: for each task a function that makes one of its environments.
        counts: for each task, how many.
        seed_of: the seed of episode `episode` of environment `number`.
        record: whether finished episodes come whole.
        contexts: as in Fleet.
        patience: seconds that an actor has for an unroll.

    Attributes:
        shower: as given.
        of_task: as in Fleet.
        failures: as in Fleet.

    Raises:
        UsageError: there are too few environments or CPUs for so many actors.
        GeneralistError: the cluster cannot be reached.
    """

    exact = False
    """Restored episodes begin anew."""

    def __init__(
        self,
        shower: Shower,
        processor: Any,
        *,
        address: str,
        actors: int,
        makers: Sequence[Callable[[], gymnasium.Env]],
        counts: Sequence[int],
        seed_of: Callable[[int, int], int],
        record: bool = False,
        contexts: Sequence[int] = (),
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.shower, self.counts = shower, list(counts)
        self.failures: list[str] = []
        bounds = np.cumsum([0, *counts]).tolist()
        self.of_task = [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        for task, count in zip(shower.tasks, counts, strict=True):
            if count < actors:
                raise UsageError(f"{task} has {count} environments for {actors} actors.")
        self._rows_of = [  # for each actor, by task: its rows within the task's
            [np.array_split(np.arange(count), actors)[number] for count in counts]
            for number in range(actors)
        ]
        self._rows = [
            np.concatenate(
                [part.start + mine for part, mine in zip(self.of_task, rows, strict=True)]
            )
            for rows in self._rows_of
        ]
        self._fleets = [
            partial(
                Fleet, deepcopy(shower), processor,
                makers=makers, counts=[len(mine) for mine in rows],
                seed_of=partial(_seed_of_row, seed_of, self._rows[number].tolist()), record=record,
                contexts=contexts,
            )
            for number, rows in enumerate(self._rows_of)
        ]  # fmt: skip
        self._episodes = np.full(bounds[-1], -1)
        self._patience = patience
        self._actors: list[RayActor] = []
        self._stack = contextlib.ExitStack()
        purpose = "Reinforcement with actors on a Ray cluster"
        cpus = self._stack.enter_context(joined(address, processes=actors, purpose=purpose))
        if cpus < actors:
            self._stack.close()
            raise UsageError(f"The Ray cluster has {cpus} CPUs, too few for {actors} actors.")

    def __len__(self) -> int:
        return len(self._episodes)

    def begin(self) -> None:
        """Nothing yet: actors start with the first weights."""

    def play(
        self,
        model: Any,
        recipe: ReinforcementRecipe,
        *,
        random: torch.Generator,
        version: int,
        reference: Any = None,
    ) -> Played:
        """The unrolls of half of the actors, or more, as one; see `play_unroll`.

        Environments whose unroll is not there yet are not usable in it.
        """
        import ray

        if not self._actors:
            models = tuple(None if m is None else deepcopy(m).cpu() for m in (model, reference))
            self._arguments = ray.put(models), ray.put(recipe)
            self._actors = [self._manned(number) for number in range(len(self._fleets))]
        weights = ray.put({name: each.cpu() for name, each in model.state_dict().items()})
        ask = partial(self._ask, weights=weights, version=version, random=random)
        for number, actor in enumerate(self._actors):
            if actor.promise is None:
                ask(number)
        brought = self._collect(ask, recipe.max_failures)
        for number in brought:
            ask(number)
        return self._merged(brought)

    def _manned(self, number: int) -> RayActor:
        models, recipe = self._arguments
        start = self._episodes[self._rows[number]] + 1
        return RayActor(self._fleets[number], models, recipe, start)

    def _ask(self, number: int, *, weights: Any, version: int, random: torch.Generator) -> None:
        seed = int(torch.randint(2**62, (1,), generator=random))
        self._actors[number].ask("play", weights, version, seed)

    def _collect(self, ask: Callable[[int], None], bearable: int) -> dict[int, Brought]:
        """What at least half of the actors bring, by their numbers; replaces those that are lost.

        Args:
            ask: asks an actor for an unroll.
            bearable: how many may be lost meanwhile.

        Raises:
            GeneralistError: more were, perhaps each that was tried.
        """
        import ray

        brought: dict[int, Brought] = {}
        enough = -(-len(self._actors) // 2)
        while True:
            waiting = {a.promise: i for i, a in enumerate(self._actors) if i not in brought}
            wait = 0.0 if len(brought) >= enough else 1.0
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=wait)
            for number in (waiting[promise] for promise in ready):
                try:
                    brought[number] = self._actors[number].answer()
                except ActorLost as lost:
                    self._replace(number, str(lost), ask)
            for number in set(waiting.values()) - set(brought):
                if time.monotonic() - self._actors[number].asked_at > self._patience:
                    self._replace(number, f"gave no unroll in {self._patience:g} seconds", ask)
            if len(self.failures) > bearable:
                raise GeneralistError(
                    f"{len(self.failures)} actors were lost while one unroll was waited for, the "
                    f"last time so: {self.failures[-1]}"
                )
            if not wait or len(brought) == len(self._actors):
                return brought

    def _replace(self, number: int, why: str, ask: Callable[[int], None]) -> None:
        """Put another actor in the place of one that is lost."""
        self.failures.append(f"Actor {number} {why}; another begins the next episodes.")
        self._actors[number].close()
        self._actors[number] = self._manned(number)
        ask(number)

    def _merged(self, brought: Mapping[int, Brought]) -> Played:
        """The unrolls of some actors, in the rows of all environments."""
        parts = {number: self._translated(each) for number, each in sorted(brought.items())}
        for number, each in brought.items():
            self._episodes[self._rows[number]] = each.episodes
            self.failures += each.failures
        arrays: dict[str, np.ndarray] = {}
        for number, unroll in parts.items():
            for name, mine in unroll.arrays().items():
                kind, _, task = name.partition("/")
                if name not in arrays:  # what an actor does not say of masks: all is legal
                    count = self.counts[int(task)] if task else len(self)
                    fill = 255 if kind == "legal" else 0
                    arrays[name] = np.full((count, *mine.shape[1:]), fill, mine.dtype)
                rows = self._rows_of[number][int(task)] if task else self._rows[number]
                arrays[name][rows] = mine
        steps = sum(each.played.steps for each in brought.values())
        finished = [outcome for each in brought.values() for outcome in each.played.finished]
        return Played(Unroll.of_arrays(arrays, len(self.counts)), finished, steps)

    def _translated(self, brought: Brought) -> Unroll:
        """An actor's unroll with the numbers that its headers have here."""
        numbers = np.array([self.shower.number_of(header) for header in brought.headers])
        unroll = brought.played.unroll
        return replace(unroll, headers=numbers[unroll.headers])

    # Resuming

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` needs: numbers of episodes."""
        return {"episodes": self._episodes.copy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Begin the episodes behind those of `state`.

        Raises:
            GeneralistError: the state is of other environments.
        """
        if len(state["episodes"]) != len(self):
            raise GeneralistError(
                f"The checkpoint was saved with {len(state['episodes'])} environments, and there "
                f"are {len(self)}."
            )
        self._episodes = state["episodes"].copy()

    def close(self) -> None:
        """End all actors, and leave the cluster."""
        self._actors = []
        self._stack.close()


def _seed_of_row(
    seed_of: Callable[[int, int], int], rows: list[int], number: int, episode: int
) -> int:
    """The seed of an actor's environment `number`, which is row `rows[number]` of all."""
    return seed_of(rows[number], episode)
