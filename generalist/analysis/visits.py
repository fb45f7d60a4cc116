"""The states that games visit: from records, from shards, or of random play.

Legend: V = visits, S = distinct states, G = games, K = tokens of an observation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generalist.analysis import connect_four
from generalist.envs.board_view import BoardView
from generalist.errors import GeneralistError, UsageError
from generalist.shards.reader import TaskData, dataset_folders

RECORD = "games.jsonl"
_AT_ONCE = 20_000  # random games: as many as stay in a core's cache


@dataclass(frozen=True)
class Visits:
    """The states that games visited.

    Attributes:
        state: (V,) integers, number of the state.
        game: (V,) integers, number of the game, ascending.
    """

    state: np.ndarray
    game: np.ndarray

    @property
    def games(self) -> int:
        """G."""
        return int(self.game[-1]) + 1 if len(self.game) else 0

    @classmethod
    def of_keys(cls, keys: np.ndarray, game: np.ndarray) -> Visits:
        """Number the states, which are told by keys (V,), the same key for the same state."""
        _, state = np.unique(keys, return_inverse=True)
        return cls(state.astype(np.int32), game.astype(np.int32))


def recorded_visits(path: Path) -> dict[str, Visits]:
    """Name -> visits, of what a path holds.

    Args:
        path: the record of a run of self-play (`games.jsonl`), its folder, or a folder of shards of
            any tasks. There each episode is a game, but for the two of a game of self-play.

    Raises:
        UsageError: it is none of these.
        GeneralistError: it is damaged.
    """
    record = path / RECORD if path.is_dir() else path
    if record.is_file():
        games = recorded_games(record)
        return {name: visits_of(BoardView.named(name), each) for name, each in games.items()}
    if not path.is_dir():
        raise UsageError(f"There is no record of games {path}; `generalist selfplay` writes one.")
    found: dict[str, Visits] = {}
    for folder in dataset_folders(path):
        data = TaskData(folder)
        if data.layout.is_document:
            continue
        if data.task in found:
            raise UsageError(f"{path} holds {data.task} in several folders; give one of them.")
        found[data.task] = shard_visits(data)
    if not found:
        raise UsageError(f"{path} holds documents alone, and a document visits no states.")
    return found


def recorded_games(path: Path) -> dict[str, list[list[int]]]:
    """Board -> OpenSpiel's actions of each game, of the record of a run of self-play.

    Raises GeneralistError where it is damaged.
    """
    found: dict[str, list[list[int]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            game = json.loads(line)
            found.setdefault(game["board"], []).append([int(a) for a in game["actions"]])
        except (ValueError, KeyError, TypeError) as error:
            raise GeneralistError(f"{path} is damaged in line {number}: {error!r}.") from error
    return found


def shard_visits(data: TaskData) -> Visits:
    """What the episodes of a task observed, step by step, told by the tokens of the observation.

    The two players of a game see the same board as two states, each from its own side.
    """
    places = data.layout.positions.of_role("observation")
    # A sum of tokens times odd numbers, modulo 2^64: of 10^8 states hardly two have the same.
    factors = np.random.default_rng(0).integers(2**63, size=len(places) + 1, dtype=np.uint64) * 2
    factors += np.uint64(1)
    keys, steps, names = [], [], []
    for sample in data.samples:
        timesteps = sample.tokens.reshape(-1, data.layout.tokens_per_timestep)
        lengths = [record["steps"] for record in sample.records]
        second = np.array([record.get("side") == "second" for record in sample.records], np.uint64)
        seen = np.repeat(second * factors[-1], lengths)
        for place, factor in zip(places, factors, strict=False):
            seen += timesteps[:, place].astype(np.uint64) * factor
        keys.append(seen)
        steps += lengths
        names += [record.get("game") for record in sample.records]
    return Visits.of_keys(np.concatenate(keys), np.repeat(_numbered(names), steps))


def _numbered(names: Sequence[object]) -> np.ndarray:
    """A number for each episode: neighbours of one named game share it."""
    new = [
        number == 0 or name is None or name != names[number - 1]
        for number, name in enumerate(names)
    ]
    return np.cumsum(new) - 1


def random_visits(view: BoardView, count: int, seed: int) -> Visits:
    """The states that `count` games of random legal moves visit, before each move."""
    random, game = np.random.default_rng(seed), view.game
    if game.moves_by != "column" or not connect_four.fits(game.rows, game.columns):
        return visits_of(view, random_games(view, count, random))
    keys, lengths = [], []
    for first in range(0, count, _AT_ONCE):
        size = min(_AT_ONCE, count - first)
        played = connect_four.random_games(game.rows, game.columns, size, random)
        made = played.moves >= 0
        keys.append(played.keys[made])
        lengths.append(made.sum(axis=1))
    owner = np.repeat(np.arange(count, dtype=np.int32), np.concatenate(lengths))
    return Visits.of_keys(np.concatenate(keys), owner)


def random_games(view: BoardView, count: int, random: np.random.Generator) -> Iterator[list[int]]:
    """OpenSpiel's actions of games of random legal moves."""
    for _ in range(count):
        state, drawn = view.start(), random.random(view.game.longest)
        actions: list[int] = []
        while not state.is_terminal():
            legal = state.legal_actions()
            actions.append(legal[int(drawn[len(actions)] * len(legal))])
            state.apply_action(actions[-1])
        yield actions


def visits_of(view: BoardView, games: Iterable[Sequence[int]]) -> Visits:
    """The states before each move of these games: pieces, and who is to move."""
    numbers: dict[bytes, int] = {}
    states: list[int] = []
    owners: list[int] = []
    for number, actions in enumerate(games):
        state = view.start()
        for action in actions:
            key = bytes([view.mover(state)]) + view.planes(state).astype(np.uint8).tobytes()
            states.append(numbers.setdefault(key, len(numbers)))
            owners.append(number)
            state.apply_action(action)
    return Visits(np.array(states, np.int32), np.array(owners, np.int32))
