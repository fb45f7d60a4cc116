"""Games: watched, taken over, handed back; a person's episode is data that replays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from generalist import envs
from generalist.acting.agent import Agent
from generalist.errors import UsageError
from generalist.shards.reader import TaskData
from generalist.shards.validate import validate
from generalist.tokenization.returns import TaskReturns
from generalist.viewer.game import PLAY_SEEDS, Game, Model
from generalist.viewer.person import Controls
from generalist.viewer.watched import Beliefs
from tests.conftest import TINY_MODEL, command
from tests.decoding.models import compact_agent

CARTPOLE = "gym/CartPole-v1"


@pytest.fixture
def game(model: Model):
    made: list[Game] = []

    def make(task: str, agents: int = 1, seed: int = PLAY_SEEDS) -> Game:
        made.append(Game(model, task, agents=agents, seed=seed))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_agent_plays_and_is_looked_into(game):
    playing = game(CARTPOLE)
    started = playing.started()
    assert started["known"] and started["expert"] == 500
    assert [each["key"] for each in started["controls"]["buttons"]] == ["ArrowLeft", "ArrowRight"]
    playing.step()
    state = playing.state()
    assert state["slots"][0]["step"] == 1 and state["moment"]["bars"]
    (picture,) = playing.pictures()
    assert picture[:2] == b"\xff\xd8"


def test_nine_play_side_by_side_and_begin_anew_at_their_end(game):
    playing = game("gym/MountainCarContinuous-v0", agents=9)
    playing.look_into(8)
    for _ in range(3):
        playing.step()
    state = playing.state()
    assert len(playing.pictures()) == len(state["slots"]) == 9
    assert [each["seed"] for each in state["slots"]] == list(range(PLAY_SEEDS, PLAY_SEEDS + 9))
    assert state["moment"] is not None
    playing.sessions[3].trace.truncated = True
    playing.step()
    again = playing.state()["slots"][3]
    assert again["seed"] == PLAY_SEEDS + 9 and again["step"] == 1


def test_a_person_takes_over_and_hands_back(game):
    playing = game(CARTPOLE)
    with pytest.raises(UsageError, match="Take over"):
        playing.act(1)
    playing.take_over(True)
    playing.act(1)
    for _ in range(4):
        playing.step()
    trace = playing.sessions[0].trace
    assert [int(each) for each in trace.actions] == [1, 1, 1, 1]  # held down
    for wrong in (2, -1, [1.0]):
        with pytest.raises(UsageError):
            playing.act(wrong)
    playing.take_over(False)
    playing.step()
    assert int(trace.actions[-1]) == int(playing.sessions[0].decision.actions[0])


def test_at_the_end_of_a_persons_episode_the_game_waits(game):
    playing = game(CARTPOLE)
    playing.take_over(True)
    playing.act(1)
    while not playing.sessions[0].done:
        playing.step()
    steps = playing.sessions[0].trace.steps
    playing.step()
    assert playing.waiting and playing.sessions[0].trace.steps == steps < 40
    playing.again()
    assert playing.sessions[0].trace.steps == 0 and not playing.waiting


@pytest.mark.parametrize("task", [CARTPOLE, "gym/Pendulum-v1", "babyai/GoToLocal"])
def test_a_persons_episode_validates_and_replays_to_the_same_return(
    game, model: Model, tmp_path: Path, task: str
):
    playing = game(task)
    playing.take_over(True)
    rng = np.random.default_rng(0)
    space = playing.sessions[0].trace.env.action_space
    for _ in range(12):
        discrete = hasattr(space, "n")
        playing.act(int(rng.integers(3 if task.startswith("babyai") else space.n)) if discrete
                    else rng.uniform(space.low, space.high).tolist())  # fmt: skip
        playing.step()
        if playing.sessions[0].done:
            break
    trace = playing.sessions[0].trace
    folder = playing.save(tmp_path)
    assert folder == tmp_path / task
    report = validate(tmp_path)
    assert not report.problems
    data = TaskData(folder)
    record = data.record(0)
    assert record["source"] == "person" and record["person_steps"] == trace.steps
    assert record["instruction"] == trace.instruction and record["seed"] == PLAY_SEEDS
    episode = model.agent.processor.decode(data.tokens(0), data.layout, task)
    env = envs.make(task)
    env.reset(seed=record["seed"])
    rewards = [env.step(action)[1] for action in episode.actions]
    assert sum(rewards) == pytest.approx(record["return"], abs=1e-4)
    np.testing.assert_allclose(rewards, data.rewards(0), atol=1e-5)


def test_an_episode_is_saved_once(game, tmp_path: Path):
    playing = game(CARTPOLE)
    for count in (1, 2, 3):
        playing.step()
        folder = playing.save(tmp_path)
        with pytest.raises(UsageError, match="already saved, with all its"):
            playing.save(tmp_path)
        assert len(TaskData(folder)) == count
        if count == 2:
            playing.again()
    assert [len(TaskData(folder).rewards(number)) for number in range(3)] == [1, 2, 1]


def test_new_episodes_are_asked_for_a_return():
    beliefs = Beliefs()
    returns = TaskReturns(0.0, 500.0, 1.0, 256, ((0.0, 0.0), (500.0, 200.0)))
    agent = compact_agent(CARTPOLE, returns=returns, on_logits=beliefs)
    playing = Game(Model("asked", agent, beliefs), CARTPOLE, agents=1, seed=PLAY_SEEDS)
    assert playing.started()["asks"] and playing.state()["wanted"] is None
    playing.ask(" 80% ")
    playing.step()
    state = playing.state()
    assert state["wanted"] == playing.sessions[0].wanted_return == "80%"
    assert state["slots"][0]["seed"] == PLAY_SEEDS + 1 and np.isfinite(state["moment"]["value"])
    with pytest.raises(UsageError, match="a lot"):
        playing.ask("a lot")
    assert playing.state()["wanted"] == "80%"
    assert playing.state()["beyond"] is None
    playing.ask("900")
    assert "beyond the data, 0 to 500; so 500 is asked for" in playing.state()["beyond"]
    playing.ask("")
    assert playing.sessions[0].wanted_return is playing.state()["beyond"] is None
    playing.close()


def test_what_knows_no_returns_is_not_asked_for_any(game):
    playing = game(CARTPOLE)
    assert not playing.started()["asks"]
    with pytest.raises(UsageError, match="without returns"):
        playing.ask("expert")


def test_turns_wait_for_the_person(game):
    playing = game("babyai/GoToLocal")
    playing.take_over(True)
    assert playing.waiting
    playing.act(2)
    assert not playing.waiting
    playing.step()
    assert playing.waiting and playing.sessions[0].trace.steps == 1


def test_a_board_is_played_against_what_plays_there(game):
    pytest.importorskip("pyspiel")
    playing = game("board/Gomoku-9x9")
    state = playing.state()
    assert playing.control and not playing.known and state["waiting"]
    legal = state["legal"]
    taken = next((number for number, free in enumerate(legal) if not free), None)
    if taken is not None:
        with pytest.raises(UsageError, match="not legal"):
            playing.act(taken)
    playing.act(legal.index(1))
    playing.step()
    assert sum(playing.state()["legal"] or [0]) < sum(legal)
    with pytest.raises(UsageError, match="you play alone"):
        playing.take_over(False)


@pytest.mark.parametrize("name", ["TicTacToe", "ConnectFour-6x7", "Othello", "Gomoku-7x7"])
def test_a_click_on_a_board_is_the_move_at_that_cell(name: str):
    """What is legal lies on cells that are empty, as the player sees the board."""
    pytest.importorskip("pyspiel")
    env = envs.make(f"board/{name}", opponent="random")
    cells = Controls(f"board/{name}", env).to_dict()["cells"]
    for seed in range(4):
        board, info = env.reset(seed=seed)
        for _ in range(4):
            legal = np.flatnonzero(info["action_mask"])
            if cells["by"] == "column":
                assert set(legal) == set(np.flatnonzero((board == 0).any(axis=0)))
                move = int(legal[0])
                before = (board[:, move] == 0).sum()
                board, *_, info = env.step(move)
                assert (board[:, move] == 0).sum() < before
            else:
                on_board = legal[legal < board.size]
                assert (board.ravel()[on_board] == 0).all()
                board, *_, info = env.step(int(legal[0]))
                assert board.ravel()[legal[0]] != 0 or legal[0] >= board.size
            if not info["action_mask"].any():
                break


def test_a_task_that_nobody_can_act_in_is_refused(model: Model):
    with pytest.raises(UsageError):
        Game(model, "gym/NoSuchThing-v0", agents=1, seed=0)


def test_idle_actions_do_nothing():
    lander = Controls("gym/LunarLander-v3", envs.make("gym/LunarLander-v3"))
    assert lander.held == 0 and not lander.is_held
    keys = [each["key"] for each in lander.to_dict()["buttons"]]
    assert keys == ["0", "ArrowLeft", "ArrowUp", "ArrowRight"]


@pytest.mark.slow
def test_a_persons_episodes_train_a_model(game, tmp_path: Path):
    playing = game(CARTPOLE)
    playing.take_over(True)
    for _ in range(3):
        playing.again()
        while not playing.sessions[0].done:
            playing.act(playing.sessions[0].trace.steps // 3 % 2)
            playing.step()
        playing.save(tmp_path / "data")
    recipe = {
        "model": TINY_MODEL,
        "data": {"root": str(tmp_path / "data"), "window_tokens": 64, "rows_per_step": 2,
                 "rows_per_forward": 2},
        "schedule": {"steps": 3, "warmup_steps": 1},
        "precision": "fp32",
        "trackers": [],
        "output_dir": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command("validate", tmp_path / "data")
    command("train", tmp_path / "recipe.yaml")
    agent = Agent.from_pretrained(tmp_path / "run" / "checkpoint")
    assert agent.task == CARTPOLE


def test_doom_is_played_with_keys_and_a_mouse(game, tmp_path: Path, monkeypatch):
    pytest.importorskip("vizdoom")
    monkeypatch.setattr(Model, "tasks", [CARTPOLE])  # of deathmatch it is to know nothing
    playing = game("doom/deathmatch")
    assert playing.control and not playing.known
    said = playing.started()["controls"]
    labels = [each["label"] for each in said["toggles"]]
    assert said["motions"] == ["y", "x", None] and not said["buttons"]
    keys = [0.0] * len(labels)
    keys[labels.index("move forward")] = 1.0
    for degrees in (4.0, 5.0, 80.0):  # two motions before one step are added up; too far is cut
        playing.act([*keys, 0.0, degrees, 0.0])
    playing.step()
    playing.step()
    first, second = playing.sessions[0].trace.actions
    assert first["mouse"].tolist() == [0.0, 45.0, 0.0] and second["mouse"].tolist() == [0.0] * 3
    assert first["keys"].tolist() == second["keys"].tolist() == [int(key) for key in keys]
    for wrong in (1, [1.0], [0.5, *keys[1:], 0.0, 0.0, 0.0]):
        with pytest.raises(UsageError):
            playing.act(wrong)
    playing.save(tmp_path)
    assert not validate(tmp_path).problems


def test_where_there_is_no_mouse_it_presses_the_keys_that_turn(game):
    pytest.importorskip("vizdoom")
    playing = game("doom/defend_the_center")
    playing.take_over(True)
    assert playing.started()["controls"]["motions"] == ["x"]
    for degrees in (-3.0, 3.0, 0.2):
        playing.act([0.0, 0.0, 1.0, degrees])
        playing.step()
    actions = [each.tolist() for each in playing.sessions[0].trace.actions]
    assert actions == [[1, 0, 1], [0, 1, 1], [0, 0, 1]]
