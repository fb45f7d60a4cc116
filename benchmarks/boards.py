"""Simulations a second of board search, beside OpenSpiel's own search with the same network.

    python -m benchmarks.boards --board ConnectFour-6x7 --seconds 20

All subjects search with one network of untrained weights, and take turns within one run. Times are
CPU time of the process.

selfplay: a run of self-play as its recipe says, optimizer steps included.
search: its search alone, 80 simulations a move in all games.
openspiel: `open_spiel.python.algorithms.mcts.MCTSBot` with PUCT selection, whose evaluator asks the
    same network. It judges one position at a time, as OpenSpiel's AlphaZero in Python does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.measure import print_facts, print_table, screen, write_json
from generalist.planning.tree import TreeSearch
from generalist.training.selfplay.recipe import SelfplayRecipe, load_selfplay_recipe
from generalist.training.selfplay.run import SelfplayRun
from generalist.training.selfplay.start import Start, start

_SIMULATIONS = 80  # of one move
_OPENING_PLIES = 8


class _Evaluator:
    """OpenSpiel's evaluator (`mcts.Evaluator`) over the network."""

    def __init__(self, parts: Start) -> None:
        self._parts = parts

    def _judged(self, state: Any) -> tuple[list[int], np.ndarray, float]:
        seen = self._parts.boards.look([0], [state])
        priors, values = self._parts.judge.judge(seen)
        count = int(seen.count[0])
        return seen.actions[0, :count].tolist(), priors[0, :count], float(values[0])

    def prior(self, state: Any) -> list[tuple[int, float]]:
        """Pairs of actions and priors."""
        actions, priors, _ = self._judged(state)
        return list(zip(actions, priors.tolist(), strict=True))

    def evaluate(self, state: Any) -> np.ndarray:
        """The value for both players."""
        *_, value = self._judged(state)
        return np.array([value, -value] if state.current_player() == 0 else [-value, value])


def _middle_games(parts: Start, count: int) -> list[Any]:
    """Positions after some random moves."""
    random, view = np.random.default_rng(0), parts.boards.views[0]
    states: list[Any] = []
    while len(states) < count:
        state = view.start()
        for _ in range(_OPENING_PLIES):
            state = view.after(state, int(random.choice(view.legal(state))))
            if state.is_terminal():
                break
        else:
            states.append(state)
    return states


def _searching(parts: Start, games: int) -> Callable[[], int]:
    states, search = _middle_games(parts, games), TreeSearch(parts.boards, parts.judge)

    def move() -> int:
        search.forget()
        search.search([0] * games, states, _SIMULATIONS)
        return games * _SIMULATIONS

    return move


def _openspiel(parts: Start) -> Callable[[], int]:
    from open_spiel.python.algorithms import mcts

    (state,) = _middle_games(parts, 1)
    bot = mcts.MCTSBot(
        state.get_game(), 1.5, _SIMULATIONS, _Evaluator(parts), solve=False,
        random_state=np.random.RandomState(0), child_selection_fn=mcts.SearchNode.puct_value,
    )  # fmt: skip

    def move() -> int:
        bot.mcts_search(state)
        return _SIMULATIONS

    return move


def _selfplay(run: SelfplayRun) -> Callable[[], int]:
    def move() -> int:
        before = run.games.simulations
        run.round(lambda _: 0)
        return run.games.simulations - before

    return move


def measure(recipe: SelfplayRecipe, seconds: float) -> dict[str, float]:
    """Simulations a second of each subject, each given this CPU time in five turns."""
    parts = start(recipe)
    run = SelfplayRun(recipe, start(recipe))
    subjects = {
        "selfplay": _selfplay(run),
        "search": _searching(parts, recipe.parallel_games),
        "openspiel": _openspiel(parts),
    }
    for move in subjects.values():
        move()
    done, spent = dict.fromkeys(subjects, 0), dict.fromkeys(subjects, 0.0)
    for turn in range(1, 6):
        for name, move in subjects.items():
            while spent[name] < seconds * turn / 5:
                began = time.process_time()
                done[name] += move()
                spent[name] += time.process_time() - began
    return {name: done[name] / spent[name] for name in subjects}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--board", default="ConnectFour-6x7")
    parser.add_argument("--games", type=int, default=256, help="in step")
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU time of each subject")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        recipe = load_selfplay_recipe(
            "selfplay/boards",
            [f"boards=[{options.board}]", f"parallel_games={options.games}",
             f"output_dir={folder}", "anchors.games=0", "workers=0"],
        )  # fmt: skip
        found = measure(recipe, options.seconds)
    facts = {"board": options.board, "games": options.games, "seconds": options.seconds}
    print_facts(screen(), facts)
    rows = [(name, f"{rate:,.0f}") for name, rate in found.items()]
    print_table(screen(), "Simulations a second of CPU time", ("subject", "simulations/s"), rows)
    write_json(options.json, {**facts, "simulations_per_second": found})


if __name__ == "__main__":
    main()
