"""The commands of boards: what they print, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from generalist.acting.plans import check_plan, parse_plan
from generalist.cli.main import main
from generalist.errors import UsageError
from tests.decoding.models import compact_agent

pytest.importorskip("pyspiel")


def test_an_arena_prints_scores_and_ratings(tmp_path: Path, capsys) -> None:
    file = tmp_path / "arena.json"
    arguments = ["--board", "board/TicTacToe", "--games", "4", "--out", str(tmp_path / "arena")]
    assert main(["arena", "mcts@50", "random", *arguments, "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "TicTacToe, both colours, 2 openings" in printed and "Elo by Bradley-Terry" in printed
    report = json.loads(file.read_text())
    assert report["players"][0]["elo"] > report["players"][1]["elo"] == 0
    assert main(["arena", "mcts@50", "nobody", "--board", "TicTacToe"]) == 2
    assert "There is no player 'nobody'" in capsys.readouterr().err
    assert main(["arena", "mcts@50", "random", "--board", "Chess"]) == 2


def test_a_person_plays_at_the_terminal(tmp_path: Path, capsys, monkeypatch) -> None:
    """Moves that are not legal are refused in words and asked for again."""
    cells = [f"{column}{row}" for row in (1, 2, 3) for column in "abc"]
    typed = iter(["z9", "a1", "a1", *cells * 4])
    prompts = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return next(typed)

    monkeypatch.setattr("generalist.acting.person.input", ask, raising=False)
    arguments = ["--board", "TicTacToe", "--games", "2", "--opening-plies", "0"]
    assert main(["arena", "human", "random", *arguments, "--out", str(tmp_path / "arena")]) == 0
    printed = capsys.readouterr().out
    assert "'z9' is no move here. Legal: a1, b1" in printed and "is not legal now" in printed
    assert printed.count(" against random.") == 2 and len(prompts) > 6
    lines = (tmp_path / "arena" / "games.jsonl").read_text().splitlines()
    assert [json.loads(line)["players"] for line in lines] == [[0, 1], [1, 0]]

    def nothing(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("generalist.acting.person.input", nothing, raising=False)
    assert main(["arena", "human", "random", *arguments, "--out", str(tmp_path / "other")]) == 2
    assert "The input ended before the game did" in capsys.readouterr().err


def test_selfplay_refuses_a_wrong_recipe(capsys) -> None:
    assert main(["selfplay", "selfplay/boards", "search.full_simulation=9"]) == 2
    assert "did you mean 'full_simulations'?" in capsys.readouterr().err


def test_plans_are_refused_where_they_cannot_be() -> None:
    agent = compact_agent("gym/CartPole-v1")
    check_plan(parse_plan("tree"), agent, ["board/TicTacToe"])
    check_plan(parse_plan("tree"), agent, ["board/TicTacToe", "gym/CartPole-v1"])
    with pytest.raises(UsageError, match="plans in board games and.*gym/FrozenLake-v1 is neither"):
        check_plan(parse_plan("tree"), agent, ["board/TicTacToe", "gym/FrozenLake-v1"])
    with pytest.raises(UsageError, match="board/TicTacToe.*leave out horizon and actions"):
        check_plan(parse_plan("tree:horizon=5"), agent, ["board/TicTacToe"])
    with pytest.raises(UsageError, match="is no world model"):
        check_plan(parse_plan("beam"), agent, ["gym/CartPole-v1"])
