"""Runs of self-play: what is written, that a resumed run equals one that was not, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from generalist.acting.agent import Agent
from generalist.acting.boards import tree_policy
from generalist.acting.hub import SHIPPED
from generalist.acting.matches import Pairing, play_matches
from generalist.acting.rollout import rollout
from generalist.acting.trees import TreePlan
from generalist.acting.zero_shot import agent_for
from generalist.analysis.visits import recorded_games, recorded_visits
from generalist.cli.main import main
from generalist.envs import make
from generalist.envs.board_games import find_game
from generalist.envs.board_view import BoardView, Position
from generalist.errors import GeneralistError, UsageError
from generalist.evaluation.arena import arena
from generalist.shards.reader import TaskData
from generalist.shards.validate import validate
from generalist.tokenization.processor import GeneralistProcessor
from generalist.training.loop import TrainingInterrupted, train
from generalist.training.recipe import load_recipe
from generalist.training.selfplay.log import SelfplayLog
from generalist.training.selfplay.recipe import SelfplayRecipe, load_selfplay_recipe
from generalist.training.selfplay.run import SelfplayRun, selfplay
from generalist.training.selfplay.start import start
from generalist.training.selfplay.state import SelfplayState
from generalist.training.strategies.launch import StopSignal

pytest.importorskip("pyspiel")

SMALL = {
    "boards": ["TicTacToe", "ConnectFour-4x5", "Hex-3x3"],
    "side": 6,
    "parallel_games": 12,
    "moves_per_round": 2,
    "model": {
        "form": "compact", "hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2,
        "embedders": {"width": 4},
    },
    "search": {"full_simulations": 12, "fast_simulations": 4},
    "learning": {"batch": 32, "first_positions": 60},
    "anchors": {"opponent": "random", "games": 2, "simulations": 4, "every_steps": 12},
    "length": {"games": 60},
}  # fmt: skip


TASKS = [f"board/{name}" for name in SMALL["boards"]]


def recipe(folder: Path, **changes: object) -> SelfplayRecipe:
    return SelfplayRecipe.model_validate({**SMALL, "output_dir": folder, **changes})


class StopAfter(StopSignal):
    """A signal that comes when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    @property
    def raised(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    @raised.setter
    def raised(self, value: bool) -> None:
        pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("selfplay") / "whole"
    selfplay(recipe(folder))
    return folder


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "checkpoint" / "model.safetensors")


def kept_games(folder: Path) -> dict[str, list[tuple[int, str, bytes, bytes]]]:
    """Of each board: number, side, tokens and soft labels of its episodes, in order."""
    found = {}
    for name in SMALL["boards"]:
        data = TaskData(folder / "data/board" / name)
        found[name] = [
            (
                data.record(n)["game"],
                data.record(n)["side"],
                data.tokens(n).tobytes(),
                soft(data, n),
            )
            for n in range(len(data))
        ]
    return found


def soft(data: TaskData, number: int) -> bytes:
    row = data.row(number)
    found = data.sample(row.sample).soft_labels
    assert found is not None
    return b"".join(each.tobytes() for each in found.of(row.first_step, row.steps))


def test_a_resumed_run_equals_one_that_was_not_interrupted(finished: Path, tmp_path: Path) -> None:
    folder, begun = tmp_path / "resumed", []
    for looks in (5, 8):
        run = SelfplayRun(recipe(folder), start(recipe(folder)))
        folder.mkdir(exist_ok=True)
        run.resume()
        run.log.begin = lambda state: begun.append(state.simulations)  # of its rates
        with pytest.raises(TrainingInterrupted, match="The same command continues"):
            run.run(StopAfter(looks))
    assert begun[0] == 0 < begun[1]
    selfplay(recipe(folder))
    one, other = weights(finished), weights(folder)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    records = [(path / "games.jsonl").read_text() for path in (finished, folder)]
    assert records[0] == records[1]
    assert kept_games(finished) == kept_games(folder)


@pytest.mark.parametrize("left", [None, 100], ids=["deleted", "cut in a line"])
def test_a_record_that_lost_games_is_gone_on_with_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: int | None
) -> None:
    """The checkpoint knows how long the record was: the gap was filled with zero bytes."""
    settings, record = recipe(tmp_path, boards=["TicTacToe"]), tmp_path / "games.jsonl"
    with SelfplayRun(settings, start(settings)) as run, pytest.raises(TrainingInterrupted):
        run.run(StopAfter(6))
    before = record.read_bytes()
    assert 0 < run.state.games == len(before.splitlines()) and len(before) > 100
    record.unlink()
    if left is not None:
        record.write_bytes(before[:left])
    selfplay(settings)
    assert f"{record} lacks games that were played before" in capsys.readouterr().err
    kept = 0 if left is None else before[:left].count(b"\n")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (games,) = recorded_games(record).values()
    assert len(games) == kept + rows[-1]["games"] - run.state.games
    selfplay(settings)  # there is nothing left to do, and nothing to say of the record
    assert "lacks games" not in capsys.readouterr().err


def test_a_run_takes_no_games_of_another_for_its_own(tmp_path: Path) -> None:
    """Games are told by their numbers, and another run has the same: its own were left out."""
    settings = recipe(tmp_path, boards=["TicTacToe"], length={"games": 20})
    selfplay(settings)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(GeneralistError, match="games of another run, of which no checkpoint is"):
        selfplay(settings.model_copy(update={"seed": 1}))
    assert selfplay(settings).is_dir()  # the same games again
    shutil.rmtree(tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "data")
    selfplay(settings.model_copy(update={"seed": 1}))
    (games,) = recorded_games(tmp_path / "games.jsonl").values()
    data = TaskData(tmp_path / "data/board/TicTacToe")
    steps = np.array([data.record(number)["steps"] for number in range(len(data))])
    assert steps.sum() == sum(map(len, games))


def test_rates_count_from_where_a_start_of_the_run_begins(tmp_path: Path) -> None:
    settings = recipe(tmp_path)
    with SelfplayLog(settings, SimpleNamespace(asked=0, judged=0)) as log:
        log.begin(SelfplayState(cpu_seconds=1_000.0, simulations=10**6))
        log.learning_seconds = 5.0
        log.flush_if_due(SelfplayState(cpu_seconds=1_010.0, simulations=10**6 + 500), 1.0)
    row = json.loads((tmp_path / "log.jsonl").read_text())
    assert row["simulations_per_cpu_second"] == 50.0 and row["learning_share"] == 0.5


def test_a_move_that_was_not_drawn_is_its_own_label(finished: Path) -> None:
    """Also where several moves were visited as often, as after four simulations."""
    equal = 0
    for name in SMALL["boards"]:
        data, game = TaskData(finished / "data/board" / name), find_game(name)
        place = data.layout.positions.of_role("action")[0]
        for n in range(len(data)):
            actions = data.tokens(n).reshape(-1, data.layout.tokens_per_timestep)[:, place]
            plies = 2 * np.arange(len(actions)) + (data.record(n)["side"] == "second")
            late = plies >= game.rows * game.columns / 3
            np.testing.assert_array_equal(data.labels(n).ravel()[late], actions[late])
            equal += late.sum()
    assert equal > 100


@pytest.mark.slow
def test_games_in_processes_beside_the_learner_are_resumed_exactly(tmp_path: Path) -> None:
    small = {"boards": ["TicTacToe", "Hex-3x3"], "workers": 2, "parallel_games": 7}

    def settings(name: str) -> SelfplayRecipe:
        return recipe(tmp_path / name, **small, length={"games": 50})

    selfplay(settings("whole"))
    (tmp_path / "resumed").mkdir()
    with SelfplayRun(settings("resumed"), start(settings("resumed"))) as run:
        with pytest.raises(TrainingInterrupted):
            run.run(StopAfter(10))
        assert 0 < run.state.games < 50 and run.state.steps > 0
    selfplay(settings("resumed"))
    one, other = (weights(tmp_path / name) for name in ("whole", "resumed"))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    records = [(tmp_path / name / "games.jsonl").read_text() for name in ("whole", "resumed")]
    assert records[0] == records[1] and len(records[0].splitlines()) >= 50
    rows = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert rows[-1]["simulations"] > 0 and 0 < rows[-1]["remembered_share"] < 1
    with pytest.raises(GeneralistError, match="other workers"):
        selfplay(recipe(tmp_path / "whole", **{**small, "workers": 1}, length={"games": 50}))


def test_judgements_hold_for_the_moves_of_a_round(tmp_path: Path) -> None:
    judged = {}
    for moves in (1, 4):
        learning = {"first_positions": 10**6}  # the weights stay, so the games are as many
        settings = recipe(tmp_path / f"{moves}", moves_per_round=moves, learning=learning)
        with SelfplayRun(settings, start(settings)) as run:
            for _ in range(8 // moves):
                run.round(lambda line: len(line))
            assert run.state.plies == 8 * 12
            judged[moves] = run.log.counts.judged / run.log.counts.asked
    assert judged[4] < 0.9 * judged[1]


def test_the_log_and_the_record_say_what_was_played(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert any("score/TicTacToe" in row for row in rows)
    last = rows[-1]
    games = [json.loads(line) for line in (finished / "games.jsonl").read_text().splitlines()]
    assert last["games"] == len(games) >= 60 and last["step"] > 10
    assert last["positions"] == sum(len(game["actions"]) for game in games)
    assert {game["board"] for game in games} == set(SMALL["boards"])
    view_names = {"TicTacToe", "ConnectFour-4x5", "Hex-3x3"}
    assert view_names == {key[6:] for row in rows for key in row if key.startswith("plies/")}


def test_games_stay_as_shards_that_training_takes(finished: Path, tmp_path: Path) -> None:
    """Moves, outcomes and labels are those that were played, and a checkpoint learns from them."""
    games = [json.loads(line) for line in (finished / "games.jsonl").read_text().splitlines()]
    report = validate(finished / "data")
    assert report.ok and {each.task for each in report.tasks} == set(TASKS)
    assert sum(each.episodes for each in report.tasks) == 2 * len(games)
    relabelled = 0
    for name in SMALL["boards"]:
        view, data = BoardView.named(name), TaskData(finished / "data/board" / name)
        processor = GeneralistProcessor.default()
        for number in range(len(data)):
            record = data.record(number)
            game, player = games[record["game"]], ["first", "second"].index(record["side"])
            assert game["board"] == name
            episode = processor.decode(data.tokens(number), data.layout)
            state, seen = (
                view.start(),
                iter(zip(episode.observations, episode.actions, strict=True)),
            )
            for action in game["actions"]:
                if view.mover(state) == player:
                    cells, move = next(seen)
                    assert np.array_equal(cells.ravel(), view.cells(state))
                    assert view.game.moves[player][move] == action
                state.apply_action(action)
            assert data.rewards(number)[-1] == view.outcome(state, player)
            labels = data.labels(number)
            relabelled += (
                0 if labels is None else int((labels != data.tokens(number)[37::38]).sum())
            )
    assert relabelled > 10  # moves are drawn by visits at first, labels are the most visited

    assert_visits_are_soft_labels(finished, games)
    shown = tmp_path / "shown.json"
    arguments = ["inspect", str(finished / "data"), "--task", TASKS[0], "--steps", "9"]
    chances = []
    for number in range(4):
        assert main([*arguments, "--episode", str(number), "--json", str(shown)]) == 0
        tokens = json.loads(shown.read_text())["tokens"]
        chances += [sum(token["soft_label"].values()) for token in tokens if "soft_label" in token]
    assert chances == pytest.approx([1] * len(chances)) and chances
    visited = recorded_visits(finished / "data"), recorded_visits(finished)
    for name in SMALL["boards"]:  # shards and record tell of the same states, in another order
        counts = [
            np.bincount(each.state) for each in (visited[0][f"board/{name}"], visited[1][name])
        ]
        assert np.array_equal(*map(np.sort, counts)), name
        assert visited[0][f"board/{name}"].games == visited[1][name].games

    changes = [
        f"data.root={finished / 'data'}", f"output_dir={tmp_path / 'clone'}", "schedule.steps=4",
        "schedule.minutes=null", "model.hidden_size=32", "model.layers=1", "model.heads=2",
        "model.intermediate_size=64", "corrections.tasks={}", "acting.temperature=1",
    ]  # fmt: skip
    learned = train(load_recipe("quickstart", changes))
    agent = Agent.from_pretrained(learned, "board/TicTacToe")
    assert rollout(agent, episodes=2, opponent="random", progress=False).episodes == 2
    with pytest.raises(UsageError, match="cannot judge positions"):  # it has learned no values
        rollout(agent, episodes=1, plan="tree", progress=False)


def assert_visits_are_soft_labels(run: Path, games: list[dict]) -> None:
    """Those of full searches, as the run remembers them; other steps have the best move alone."""
    replay = load_file(sorted((run / "checkpoints").iterdir())[-1] / "replay.safetensors")
    starts = np.cumsum([0, *(len(game["actions"]) for game in games)])
    first = GeneralistProcessor.default().vocabulary["discrete"].start
    compared = 0
    for name in SMALL["boards"]:
        data, view = TaskData(run / "data/board" / name), BoardView.named(name)
        for number in range(len(data)):
            record, row = data.record(number), data.row(number)
            actions = games[record["game"]]["actions"]
            state, plies = view.start(), []
            for ply, action in enumerate(actions):
                if view.mover(state) == ["first", "second"].index(record["side"]):
                    plies.append(starts[record["game"]] + ply)
                state.apply_action(action)
            soft = data.sample(row.sample).soft_labels
            assert soft is not None
            step, ids, mass = soft.of(row.first_step, row.steps)
            for at, place in enumerate(plies):
                moves, visits = replay["moves"][place], replay["visits"][place].astype(float)
                wanted = {
                    first + int(move): count / visits.sum()
                    for move, count in zip(moves, visits, strict=True)
                    if count and replay["full"][place]
                }
                mine = step == at
                found = dict(zip(ids[mine].tolist(), mass[mine].tolist(), strict=True))
                assert found == pytest.approx(wanted)
                compared += len(found) > 1
    assert compared > 20


def test_another_recipe_is_not_continued(finished: Path) -> None:
    with pytest.raises(GeneralistError, match="other search.*--allow-changes"):
        selfplay(recipe(finished, search={"fast_simulations": 5}))
    with pytest.raises(GeneralistError, match="other boards"):
        selfplay(recipe(finished, boards=["TicTacToe"]), allow_changes=True)


@pytest.mark.parametrize("task", ["board/ConnectFour-4x5", "board/ConnectFour-5x5"])
def test_an_agent_plays_boards_bare_and_with_one_simulation_alike(
    finished: Path, task: str
) -> None:
    agent = Agent.from_pretrained(finished / "checkpoint", "board/TicTacToe")
    env = make(task, opponent="random")
    agent = agent_for(agent, task, env)
    searching = tree_policy(agent, TreePlan(simulations=1))
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        agent.begin([0], [seed], [info])
        over = False
        while not over:
            bare = agent.decide(observation[None], [info], [0]).actions[0]
            found = searching.decide(observation[None], [info], [0])
            assert found.actions[0] == bare and -1 <= found.values[0] <= 1
            observation, _, over, _, info = env.step(int(bare))


def test_a_plan_in_a_rollout(finished: Path) -> None:
    agent = Agent.from_pretrained(finished / "checkpoint", "board/ConnectFour-4x5")
    result = rollout(
        agent, episodes=2, plan="tree:simulations=8", opponent="random", progress=False
    )
    assert result.plan == "tree:simulations=8,exploration=1.5" and result.episodes == 2
    with pytest.raises(UsageError, match="tree:simulations=100"):
        rollout(agent, episodes=1, plan="tree:depth=3", progress=False)
    with pytest.raises(UsageError, match="plan is for an agent"):
        rollout("random", "board/TicTacToe", episodes=1, plan="tree", progress=False)


def test_a_person_plays_in_the_viewer_against_a_search(finished: Path) -> None:
    pytest.importorskip("aiohttp")
    from generalist.viewer.game import Game
    from generalist.viewer.serve import load_model

    model = load_model(str(finished / "checkpoint"), "tree:simulations=8")
    for task in ("board/ConnectFour-4x5", "board/ConnectFour-5x5"):  # the second was not trained on
        game = Game(model, task, agents=1, seed=800_000)
        try:
            said = game.started()
            assert said["description"].endswith("; against tree@8")
            assert [each["label"] for each in said["controls"]["buttons"]] == list("abcde")
            column = game.state()["legal"].index(1)
            for _ in range(5):
                if not game.state()["legal"] or not game.state()["legal"][column]:
                    break
                game.act(column)
                game.step()
            assert game.sessions[0].trace.steps >= 2
            if game.state()["legal"] is not None:
                with pytest.raises(UsageError, match="^a is not legal now"):
                    game.act(column)
        finally:
            game.close()
    with pytest.raises(UsageError, match="cannot judge positions.*leave out the plan"):
        load_model(SHIPPED, "tree")
    with pytest.raises(UsageError, match="A plan is 'tree'"):
        load_model(SHIPPED, "beam")


def test_an_evaluation_plans_and_reports(finished: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("episodes: 2\nprompted_episodes: 0\ntasks: [board/TicTacToe]\n")
    arguments = ["--checkpoint", str(finished / "checkpoint"), "--plan", "tree:simulations=4"]
    arguments += ["--no-videos", "--workers", "0", "--out", str(tmp_path / "report")]
    assert main(["evaluate", str(suite), *arguments]) == 0
    result = json.loads((tmp_path / "report/results/board-TicTacToe.json").read_text())
    assert result["plan"] == "tree:simulations=4,exploration=1.5"


def test_a_run_begins_from_a_checkpoint_with_another_board(finished: Path, tmp_path: Path) -> None:
    source = str(finished / "checkpoint")
    run = recipe(
        tmp_path / "further", boards=["Breakthrough-4x4"], side=None,
        model={"init_from": source}, length={"games": 8},
    )  # fmt: skip
    folder = selfplay(run)
    known = Agent.from_pretrained(folder, "board/Breakthrough-4x4").layouts
    assert set(known) == {f"board/{name}" for name in [*SMALL["boards"], "Breakthrough-4x4"]}
    with pytest.raises(UsageError, match="common board of 6x6. Leave side out"):
        selfplay(recipe(tmp_path / "other", side=5, model={"init_from": source}))


def test_an_arena_is_continued_game_by_game(finished: Path, tmp_path: Path) -> None:
    checkpoint = finished / "checkpoint"
    names = ["random", "mcts@10", str(checkpoint), f"{checkpoint}+tree@8"]
    whole = arena(names, "TicTacToe", tmp_path / "whole", games=4)
    again = tmp_path / "again"
    arena(names, "TicTacToe", again, games=2)
    lines = (again / "games.jsonl").read_text().splitlines()
    (again / "games.jsonl").write_text("\n".join(lines[:5]) + '\n{"number": 1')  # killed there
    continued = arena(names, "TicTacToe", again, games=4)
    assert continued == whole and len(whole["pairs"]) == 6
    for pair in whole["pairs"]:
        assert sum(pair["games"]) == 4 and sum(pair["first"]) == 2
        assert pair["low"] <= pair["score"] <= pair["high"]
    assert whole["anchor"] == "random"  # there is no mcts@100
    with pytest.raises(UsageError, match="another folder by --out"):
        arena(names[:2], "TicTacToe", again, games=4)


def test_an_untrained_network_that_searches_is_an_anchor(tmp_path: Path) -> None:
    names = ["untrained+tree@60", "random"]
    report = arena(names, "ConnectFour-4x5", tmp_path / "one", games=20)
    assert report["pairs"][0]["score"] > 0.7 and report["anchor"] == "random"
    assert arena(names, "ConnectFour-4x5", tmp_path / "other", games=20) == report
    with pytest.raises(UsageError, match="no player 'untrained'.*untrained\\+tree@100"):
        arena(["untrained", "random"], "TicTacToe", tmp_path / "bare", games=2)


class Illegal:
    """A player that always names the first action."""

    def begin(self, *given: object) -> None: ...

    def end(self, slots: object) -> None: ...

    def decide(self, observations: np.ndarray, infos: list, slots: object) -> object:
        from generalist.policy import Decision

        assert all(isinstance(info["position"], Position) for info in infos)
        return Decision(actions=np.zeros(len(infos), np.int64))


def test_an_illegal_move_is_an_error() -> None:
    with pytest.raises(GeneralistError, match="not legal"):
        list(play_matches(BoardView.named("TicTacToe"), [Illegal()], [Pairing(0, (0, 0))]))


def test_bad_input_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="boards.0 is 'Chess'.*no such board"):
        load_selfplay_recipe("selfplay/boards", ["boards=[Chess]"])
    with pytest.raises(UsageError, match="needs an end"):
        load_selfplay_recipe("selfplay/boards", ["length.cpu_minutes=null"])
    with pytest.raises(UsageError, match="does not fit"):
        start(recipe(tmp_path, side=3))
    with pytest.raises(UsageError, match="no player 'mcts'"):
        arena(["mcts", "random"], "TicTacToe", tmp_path, games=2)
    with pytest.raises(UsageError, match="even number"):
        arena(["mcts@2", "random"], "TicTacToe", tmp_path, games=3)
    with pytest.raises(UsageError, match="There is no board"):
        arena(["mcts@2", "random"], "Tic", tmp_path, games=2)
