"""An arena: players of one board game meet, all pairs, with both colours.

Game g of a pair has opening g // 2 of the board: `opening_plies` random legal moves. Both colours
play each opening once, so a lopsided one favours nobody. Search and network are not random; with
no opening, games between two of them would all be the same.

    OUT/games.jsonl     one line a game, written as soon as it has ended
    OUT/arena.json      scores and ratings

A game depends on its number, players and settings alone, so an arena that was interrupted goes on
where it stopped.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.acting.boards import FAMILY, SearchPolicy, tree_policy, unknown_board_layout
from generalist.acting.matches import Pairing, Result, play_matches, random_opening
from generalist.acting.person import HUMAN, Person
from generalist.acting.trees import TreePlan
from generalist.envs.board_opponents import rules_policy
from generalist.envs.board_view import BoardView
from generalist.errors import UsageError
from generalist.evaluation.bradley_terry import ratings
from generalist.integrity import read_json
from generalist.planning.tree import TreeSearch
from generalist.policy import Policy
from generalist.shards.files import write_json

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

GAMES, REPORT = "games.jsonl", "arena.json"
_ANCHORS = ("mcts@100", "mcts@400", "random")  # which is Elo 0, in this order of preference
UNTRAINED = "untrained"
"""A network of self-play's own sizes as it begins. It says what the search alone is worth."""
_PROTOCOL = 2  # raised whenever the same settings come to give other games


@dataclass(frozen=True)
class Score:
    """The games of two players.

    Attributes:
        players: numbers of both.
        games: of the first player: won, drawn, lost.
        first: the same of those in which it moved first.
        score: its wins and half its draws, as a share.
        low: lower end of the 95% interval.
        high: upper end.
        plies: mean length.
    """

    players: tuple[int, int]
    games: tuple[int, int, int]
    first: tuple[int, int, int]
    score: float
    low: float
    high: float
    plies: float


def player_named(name: str, board: str, agents: dict[str, Agent]) -> Policy:
    """A player: `human`, `random`, `mcts@N`, `CHECKPOINT`, `CHECKPOINT+tree@N` or
    `untrained+tree@N`.

    A checkpoint alone takes the likeliest move of its policy. A board of a size that it was not
    trained on is played too. A person plays at the terminal.

    Args:
        name: of the player.
        board: name of the board.
        agents: those loaded so far, by checkpoint; a new one is added.

    Raises:
        UsageError: there is no such player, or the checkpoint knows no boards.
    """
    if name == HUMAN:
        return Person()
    if re.fullmatch(r"random|mcts@[1-9]\d*", name):
        return rules_policy(name)
    path, plus, search = name.rpartition("+")
    match = re.fullmatch(r"tree@([1-9]\d*)", search) if plus else None
    path = path if match else name
    if match is not None and path == UNTRAINED:
        return _untrained(board, int(match[1]))
    if not Path(path).is_dir():
        raise UsageError(
            f"There is no player {name!r}. Players are human, random, mcts@100, the folder of a "
            "checkpoint, CHECKPOINT+tree@100 and untrained+tree@100."
        )
    if path not in agents:
        agents[path] = _agent(path, f"{FAMILY}{board}")
    agent = agents[path]
    if match is None:
        return agent
    return tree_policy(agent, TreePlan(simulations=int(match[1])))


def _untrained(board: str, simulations: int) -> SearchPolicy:
    """The search of a checkpoint, with a network that has learned nothing. Seed and sizes are
    fixed, so it is the same player in every arena of a board."""
    from generalist.training.selfplay.recipe import LengthRecipe, SelfplayRecipe
    from generalist.training.selfplay.start import start

    parts = start(SelfplayRecipe(boards=[board], length=LengthRecipe(games=1)))
    search = TreeSearch(parts.boards, parts.judge)
    return SearchPolicy(search, number=0, view=parts.boards.views[0], simulations=simulations)


def _agent(path: str, task: str) -> Agent:
    from generalist.acting.agent import Agent
    from generalist.evaluation.measure import checkpoint_tasks

    known = checkpoint_tasks(Path(path))
    agent = Agent.from_pretrained(path, task if task in known else known[0], temperature=0.0)
    if task in known:
        return agent
    layout = unknown_board_layout(task, agent.layouts, agent.processor)
    if layout is None:
        raise UsageError(
            f"The checkpoint {path} was not trained on {task}, and not by `generalist selfplay`, "
            "so it does not know the board."
        )
    return agent.for_task(task, layout)


def arena(
    names: Sequence[str],
    board: str,
    out: Path,
    *,
    games: int = 100,
    opening_plies: int = 2,
    seed: int = 0,
    parallel: int = 128,
    on_game: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Let players meet; return the content of arena.json.

    Args:
        names: of at least two players, as `player_named` takes them.
        board: name of the board, such as `ConnectFour-6x7`.
        out: folder of the arena.
        games: of each pair, an even number.
        opening_plies: random moves at the beginning of each game.
        seed: of openings and players.
        parallel: games that run at a time; changes the speed alone.
        on_game: called with the number of games that have ended, and of how many.

    Raises:
        UsageError: a player or board is unknown, the number of games is odd, or `out` holds
            another arena.
    """
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError("An arena needs two players or more, each named once.")
    if games < 2 or games % 2:
        raise UsageError(f"--games is {games}; give an even number, for both colours.")
    view = BoardView.named(board)
    agents: dict[str, Agent] = {}
    players = [player_named(name, board, agents) for name in names]
    settings = {
        "protocol": _PROTOCOL, "board": board, "opening_plies": opening_plies, "seed": seed,
        "players": [_identity(name) for name in names],
    }  # fmt: skip
    done = _begin(out, settings)
    pairings = _pairings(view, len(names), games=games, opening_plies=opening_plies, seed=seed)
    wanted = {pairing.number for pairing in pairings}
    found = {number: result for number, result in done.items() if number in wanted}
    left = [pairing for pairing in pairings if pairing.number not in found]
    with (out / GAMES).open("a") as file:
        for result in _played(view, players, left, parallel):
            _tell(result, players, names)
            found[result.pairing.number] = result
            file.write(json.dumps(_line(result)) + "\n")
            file.flush()
            if on_game is not None:
                on_game(len(found), len(pairings))
    results = [found[pairing.number] for pairing in pairings]
    report = _report(names, board, results, settings)
    write_json(out / REPORT, report)
    return report


def _played(
    view: BoardView, players: Sequence[Policy], left: Sequence[Pairing], parallel: int
) -> Iterator[Result]:
    """Results of one pair after the other."""
    for pair in dict.fromkeys(tuple(sorted(each.players)) for each in left):
        own = [each for each in left if tuple(sorted(each.players)) == pair]
        alone = any(isinstance(players[number], Person) for number in pair)
        yield from play_matches(view, players, own, 1 if alone else parallel)


def _tell(result: Result, players: Sequence[Policy], names: Sequence[str]) -> None:
    """Show a person how a game of theirs has ended."""
    pair = result.pairing.players
    for side, number in enumerate(pair):
        player = players[number]
        if isinstance(player, Person) and result.position is not None:
            player.over(result.position, side, names[pair[1 - side]])


def _pairings(
    view: BoardView, players: int, *, games: int, opening_plies: int, seed: int
) -> list[Pairing]:
    """All games. A number says its pair and its place there, however many games are asked for."""
    pairs = list(combinations(range(players), 2))
    found = []
    for place in range(games):
        opening = random_opening(view, opening_plies, 1_000_003 * seed + place // 2)
        for which, pair in enumerate(pairs):
            both = pair if place % 2 == 0 else pair[::-1]
            number = (seed * 5_000 + place) * len(pairs) + which
            found.append(Pairing(number, both, opening))
    return sorted(found, key=lambda each: sorted(each.players))


def _identity(name: str) -> dict[str, str]:
    """What a player is: its name, and the weights of a checkpoint."""
    path = Path(name.rpartition("+")[0] or name)
    path = path if path.is_dir() else Path(name)
    if not path.is_dir() or str(path) == UNTRAINED:
        return {"name": name}
    from generalist.evaluation.measure import weights_fingerprint

    return {"name": name, "weights": weights_fingerprint(path)}


def _begin(out: Path, settings: dict[str, Any]) -> dict[int, Result]:
    """The games that an earlier start of this arena has played."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "settings.json"
    if path.exists() and read_json(path) != settings:
        raise UsageError(
            f"{out} holds an arena of other players, weights, board or openings; give another "
            "folder by --out."
        )
    write_json(path, settings)
    games = out / GAMES
    if not games.exists():
        return {}
    whole = games.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]  # a line that was cut short is played again
    os.truncate(games, len(whole))
    found = {}
    for line in whole.decode().splitlines():
        with suppress(ValueError, KeyError, TypeError):
            each = json.loads(line)
            pairing = Pairing(each["number"], tuple(each["players"]), tuple(each["opening"]))
            found[pairing.number] = Result(pairing, each["outcome"], each["plies"])
    return found


def _line(result: Result) -> dict[str, Any]:
    pairing = result.pairing
    return {
        "number": pairing.number, "players": pairing.players, "opening": pairing.opening,
        "outcome": result.outcome, "plies": result.plies,
    }  # fmt: skip


def _report(
    names: Sequence[str], board: str, results: Sequence[Result], settings: dict[str, Any]
) -> dict[str, Any]:
    pairs = np.array([result.pairing.players for result in results])
    scores = np.array([(result.outcome + 1) / 2 for result in results])
    anchor = next((names.index(each) for each in _ANCHORS if each in names), len(names) - 1)
    rated = ratings(pairs, scores, players=len(names), anchor=anchor)
    table = [_score(results, pair) for pair in combinations(range(len(names)), 2)]
    return {
        "board": board,
        "settings": settings,
        "anchor": names[anchor],
        "players": [
            {"name": name, "elo": float(rated.elo[n]), "low": float(rated.low[n]),
             "high": float(rated.high[n])}
            for n, name in enumerate(names)
        ],
        "pairs": [asdict(each) for each in table],
        "openings": len({result.pairing.opening for result in results}),
    }  # fmt: skip


def _score(results: Sequence[Result], pair: tuple[int, int]) -> Score:
    """The games of a pair, told by its first player, with a normal interval of its score."""
    own = [result for result in results if set(result.pairing.players) == set(pair)]
    outcomes = np.array(
        [
            result.outcome if result.pairing.players[0] == pair[0] else -result.outcome
            for result in own
        ]
    )
    first = np.array([result.pairing.players[0] == pair[0] for result in own])
    shares = (outcomes + 1) / 2
    low, high = _interval(shares)
    return Score(
        players=pair,
        games=_counts(outcomes),
        first=_counts(outcomes[first]),
        score=float(shares.mean()),
        low=low,
        high=high,
        plies=float(np.mean([result.plies for result in own])),
    )


def _counts(outcomes: np.ndarray) -> tuple[int, int, int]:
    won, drawn, lost = (int((outcomes == each).sum()) for each in (1, 0, -1))
    return won, drawn, lost


_Z = 1.959964  # of a two-sided interval of 95%


def _interval(shares: np.ndarray) -> tuple[float, float]:
    """Wilson's interval (1927) of a mean of values in [0, 1].

    Draws have less variance than wins and losses of the same mean, so it is wide rather than
    narrow with them.
    """
    count, mean = len(shares), float(shares.mean())
    centre = (mean + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    spread = _Z / (1 + _Z**2 / count) * np.sqrt(mean * (1 - mean) / count + _Z**2 / (4 * count**2))
    # At 0 and 1 rounding would leave the mean itself out.
    return min(mean, float(centre - spread)), max(mean, float(centre + spread))
