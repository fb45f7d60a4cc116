"""Games in processes beside the one that learns.

Each process has its own network, search and random numbers, and plays its share of the games. While
they make the next moves, the learner learns from the games that ended by then:

    begin(weights)   all processes play a round in each of their games, with these weights
    ...              the learner takes its optimizer steps
    finish()         the games that ended

So the games are one round behind the learner. What is played depends on the recipe and on the order
of these calls alone, not on who is faster: a run that is resumed equals one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.errors import GeneralistError
from generalist.planning.tree import TreeSearch
from generalist.processes import process_pool
from generalist.training.selfplay.games import Ended, Games
from generalist.training.selfplay.recipe import SelfplayRecipe
from generalist.training.selfplay.start import Start, start


@dataclass(frozen=True)
class _Round:
    """What one process did in a round; the counts are of this round alone."""

    ended: list[Ended]
    simulations: int
    plies: int
    asked: int
    judged: int
    cpu_seconds: float


class GamesBeside:
    """The games of a run, split over processes; as `Games`, in two halves.

    Args:
        recipe: of the run; `workers` says how many processes there are.
        seeds: of their random numbers, one for each.
        stack: closes the processes.

    Attributes:
        weights: (games,) how often new games begin on each board; they need not add up to 1.
        simulations: simulations so far.
        plies: moves so far.
        asked: positions that had to be judged in this start of the run.
        judged: those that a network judged; it had judged the others before.
        cpu_seconds: CPU time of the processes for playing, in this start of the run.
    """

    def __init__(
        self, recipe: SelfplayRecipe, seeds: Sequence[np.random.SeedSequence], stack: ExitStack
    ) -> None:
        self.weights = np.ones(len(recipe.boards))
        self.simulations = self.plies = self.asked = self.judged = 0
        self.cpu_seconds = 0.0
        share, rest = divmod(recipe.parallel_games, recipe.workers)
        # A pool of one process each, because its games stay there.
        self._pools: list[ProcessPoolExecutor] = [
            stack.enter_context(process_pool(1, _open, (recipe, share + (number < rest), seed)))
            for number, seed in enumerate(seeds)
        ]
        self._moves = recipe.moves_per_round
        self._running: list[Future[_Round]] = []

    def begin(self, parameters: Mapping[str, Tensor]) -> None:
        """Let all processes play a round in every game, with these weights of the network."""
        # Copies: a thread sends them while the learner already changes the parameters.
        weights = {name: each.detach().cpu().numpy().copy() for name, each in parameters.items()}
        self._running = [
            pool.submit(_play, weights, self.weights, self._moves) for pool in self._pools
        ]

    def finish(self) -> list[Ended]:
        """Wait for all; return the games that ended, for which others begin.

        Raises GeneralistError where a process has ended.
        """
        ended: list[Ended] = []
        for each in self._running:
            played = _answer(each)
            ended += played.ended
            self.simulations += played.simulations
            self.plies += played.plies
            self.asked += played.asked
            self.judged += played.judged
            self.cpu_seconds += played.cpu_seconds
        self._running = []
        return ended

    def state(self) -> dict[str, np.ndarray]:
        """The running games as arrays, to be continued by `restore`."""
        return {
            f"{number}/{name}": array
            for number, pool in enumerate(self._pools)
            for name, array in _answer(pool.submit(_state)).items()
        }

    def random_states(self) -> list[dict[str, Any]]:
        """The states of all generators of random numbers, as JSON."""
        return [_answer(pool.submit(_random_state)) for pool in self._pools]

    def restore(
        self, state: Mapping[str, np.ndarray], random_states: Sequence[dict[str, Any]]
    ) -> None:
        """Continue the games of `state`."""
        for number, (pool, random) in enumerate(zip(self._pools, random_states, strict=True)):
            prefix = f"{number}/"
            own = {
                name.removeprefix(prefix): array
                for name, array in state.items()
                if name.startswith(prefix)
            }
            _answer(pool.submit(_restore, own, random))


def _answer(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise GeneralistError(
            "A process that plays has ended, perhaps because memory ran out. The same command "
            "continues from the last checkpoint; fewer workers need less memory."
        ) from error


# In a process that plays


@dataclass
class _Player:
    """What a process plays with."""

    parts: Start
    search: TreeSearch
    games: Games


_player: _Player | None = None


def _open(recipe: SelfplayRecipe, count: int, seed: np.random.SeedSequence) -> None:
    global _player
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    parts = start(recipe)
    search = TreeSearch(parts.boards, parts.judge, exploration=recipe.search.exploration)
    random = np.random.default_rng(seed)
    games = Games(parts.boards, search, recipe.search, count=count, random=random)
    _player = _Player(parts, search, games)


def _games() -> Games:
    assert _player is not None
    return _player.games


def _play(weights: Mapping[str, np.ndarray], board_weights: np.ndarray, moves: int) -> _Round:
    began, player = time.process_time(), _player
    assert player is not None
    games, search, network = player.games, player.search, player.parts.network
    with torch.no_grad():
        for name, parameter in network.trained().items():
            parameter.copy_(torch.from_numpy(weights[name]))
    network.forget()
    search.forget()
    games.weights = board_weights
    simulations, plies, asked, judged = _counts(games, search)
    ended = [each for _ in range(moves) for each in games.play()]
    after = _counts(games, search)
    return _Round(
        ended,
        simulations=after[0] - simulations,
        plies=after[1] - plies,
        asked=after[2] - asked,
        judged=after[3] - judged,
        cpu_seconds=time.process_time() - began,
    )


def _counts(games: Games, search: TreeSearch) -> tuple[int, int, int, int]:
    return games.simulations, games.plies, search.asked, search.judged


def _state() -> dict[str, np.ndarray]:
    return _games().state()


def _random_state() -> dict[str, Any]:
    return _games().random_states()[0]


def _restore(state: Mapping[str, np.ndarray], random: dict[str, Any]) -> None:
    _games().restore(state, [random])
