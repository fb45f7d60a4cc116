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


def test_selfplay_refuses_a_wrong_recipe(capsys) -> None:
    assert main(["selfplay", "selfplay/boards", "search.full_simulation=9"]) == 2
    assert "did you mean 'full_simulations'?" in capsys.readouterr().err


def test_a_tree_is_for_boards_alone() -> None:
    agent = compact_agent("gym/CartPole-v1")
    check_plan(parse_plan("tree"), agent, ["board/TicTacToe"])
    with pytest.raises(UsageError, match="tree search is for board games.*gym/CartPole"):
        check_plan(parse_plan("tree"), agent, ["board/TicTacToe", "gym/CartPole-v1"])
    with pytest.raises(UsageError, match="is no world model"):
        check_plan(parse_plan("beam"), agent, ["gym/CartPole-v1"])
