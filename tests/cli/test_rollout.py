"""`generalist rollout`: options before and behind the family, who acts, what is said."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from generalist.acting.agent import Agent
from generalist.acting.forms import Header
from generalist.acting.rollout import rollout
from generalist.cli import rollout as command
from generalist.cli.families import FAMILIES, SHARED
from generalist.cli.main import main
from generalist.envs import get_task
from generalist.envs.options import defaults_of
from generalist.tokenization.returns import TaskReturns
from tests.conftest import TinyRun
from tests.decoding.models import compact_agent

CARTPOLE = "gym/CartPole-v1"
EXAMPLES = {
    "gym": "CartPole-v1", "dmc": "cartpole-balance", "babyai": "GoToLocal", "atari": "Pong",
    "metaworld": "reach", "doom": "basic",
    "doomworld": "GoTo", "miniworld": "GoTo", "minatar": "Breakout", "board": "TicTacToe",
    "caption": "BabyAI", "vqa": "BabyAI",
}  # fmt: skip


def played(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The JSON of a rollout."""
    file = tmp_path / "result.json"
    assert main(["rollout", *arguments, "--json", str(file)]) == 0
    return json.loads(file.read_text())


def failed(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """What is said of wrong use."""
    capsys.readouterr()
    assert main(["rollout", *arguments]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    return said


def test_every_family_has_a_subcommand_with_options_that_its_environments_take() -> None:
    assert set(FAMILIES) == set(EXAMPLES)
    for name, family in FAMILIES.items():
        takes = defaults_of(get_task(f"{name}/{EXAMPLES[name]}").make)
        own = {"max_steps", *family.options} - {"option"}
        assert own <= set(takes), name
        shown = inspect.signature(command._command(name, family)).parameters
        assert {*own, *SHARED, "task"} <= set(shown)


@pytest.mark.parametrize("family", EXAMPLES)
def test_episodes_can_be_cut_in_every_family(family: str, tmp_path: Path) -> None:
    result = played(tmp_path, family, EXAMPLES[family], "--policy", "random", "--episodes", "2",
                    "--max-steps", "2")  # fmt: skip
    assert max(result["lengths"]) <= 2 and result["normalized"] is None
    assert result["policy"] == "random" and result["checkpoint"] is None


def test_experts_act_and_score_as_they_were_measured(tmp_path: Path) -> None:
    result = played(tmp_path, "gym", "CartPole-v1", "--policy", "expert", "--episodes", "2")
    assert result["policy"] == "lqr" and result["returns"] == [500.0, 500.0]
    assert result["normalized"] == pytest.approx(1.0, abs=0.01)
    planner = played(tmp_path, "gym", "Pendulum-v1", "--policy", "expert", "--expert", "planner@8",
                     "--episodes", "1", "--max-steps", "5")  # fmt: skip
    assert planner["policy"] == "planner@8" and planner["lengths"] == [5]


def test_random_play_is_that_of_the_references(tmp_path: Path) -> None:
    from generalist.envs import make
    from generalist.experts import random_episode

    result = played(tmp_path, "gym", "Taxi-v4", "--policy", "random", "--episodes", "2")
    env = make("gym/Taxi-v4")  # which says what is legal
    assert result["returns"] == [
        random_episode(env, "gym/Taxi-v4", seed).return_ for seed in result["seeds"]
    ]


def test_where_the_model_runs_may_stand_before_or_behind_the_family(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    load = Agent.from_pretrained

    def loading(*given: Any, **options: Any) -> Agent:
        asked.append((str(options["device"]), options["dtype"]))
        return load(*given, **options)

    monkeypatch.setattr(Agent, "from_pretrained", loading)
    task = ["gym", "CartPole-v1", "--checkpoint", str(tiny_run.checkpoint), "--episodes", "1"]
    for arguments in (
        ["--device", "cpu", "--dtype", "bfloat16", *task],
        [*task, "--device", "cpu", "--dtype", "bfloat16"],
        ["--dtype", "float32", *task, "--dtype", "bfloat16", "--device", "cpu"],
    ):
        played(tmp_path, *arguments)
    assert asked == [("cpu", "bfloat16")] * 3
    text = ["text", "--checkpoint", str(tiny_run.checkpoint), "--tokens", "1", "--device", "cpu"]
    played(tmp_path, *text)
    assert asked[-1] == ("cpu", "float32")


def test_an_instruction_of_ones_own_is_what_the_agent_is_told(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    header = Agent.header

    def hearing(
        agent: Agent, instruction: str | None = None, episode: int = 0, **shown: str | None
    ) -> Header:
        told.append(instruction)
        return header(agent, instruction, episode, **shown)

    monkeypatch.setattr(Agent, "header", hearing)
    task = ["gym", "CartPole-v1", "--checkpoint", str(tiny_run.checkpoint), "--episodes", "2"]
    result = played(tmp_path, *task, "--instruction", "lean left")
    assert told == ["lean left"] * 2 and result["instruction"] == "lean left"
    assert played(tmp_path, *task)["instruction"] is None and told[2:] == [None] * 2


def test_an_option_equal_to_its_default_keeps_the_normalised_score(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    task = ["gym", "CartPole-v1", "--checkpoint", str(tiny_run.checkpoint), "--episodes", "1"]
    for same in (["--max-steps", "500"], ["--option", "sutton_barto_reward=false"]):
        assert played(tmp_path, *task, *same)["normalized"] is not None
    for other in (["--max-steps", "499"], ["--option", "sutton_barto_reward=true"]):
        assert played(tmp_path, *task, *other)["normalized"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gym", "CartPole-v1", "--policy", "random", "--temperature", "0"], "--temperature bel"),
        (["gym", "CartPole-v1", "--policy", "random", "--prompt-episodes", "1"], "--prompt-epi"),
        (["gym", "CartPole-v1", "--policy", "expert", "--instruction", "x"], "--instruction bel"),
        (["gym", "CartPole-v1", "--policy", "expert", "--checkpoint", "x"], "--checkpoint bel"),
        (["gym", "CartPole-v1", "--expert", "lqr"], "--expert belongs to --policy expert"),
        (["gym", "CartPole-v1", "--policy", "nobody"], "nobody"),
        (["gym", "CartPole-v1", "--policy", "expert", "--expert", "nobody"], "no expert 'nobody'"),
        (["gym", "CartPole-v1", "--policy", "random", "--option", "goal"], "KEY=VALUE"),
        (["gym", "CartPole-v1", "--policy", "random", "--option", "goal=1"], "goal"),
        (["gym", "CartPole-v1", "--policy", "random", "--video-episodes", "2"], "--video DIR"),
        (["gym", "CartPole-v1", "--policy", "random", "--render", "ansi"], "ansi"),
        (["gym", "Blackjack-v1", "--policy", "expert"], "no expert"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_use(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    assert words in failed(capsys, *arguments)


def test_an_unknown_render_mode_is_refused() -> None:
    from generalist.envs import make
    from generalist.errors import UsageError

    for task in (CARTPOLE, "atari/Pong", "board/TicTacToe", "babyai/GoToLocal", "dmc/walker-walk"):
        with pytest.raises(UsageError, match="render mode.*nonsense"):
            make(task, render_mode="nonsense")


def test_interrupted_before_its_first_episode_it_says_that_it_begins_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from generalist.session import Trace

    def interrupting(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trace, "step", interrupting)
    assert main(["rollout", "gym", "CartPole-v1", "--policy", "random"]) == 130
    assert "begins anew" in capsys.readouterr().err


def test_the_python_function_takes_the_same_players() -> None:
    assert rollout("expert", CARTPOLE, episodes=1, progress=False).policy == "lqr"
    assert rollout("random", CARTPOLE, episodes=1, progress=False).checkpoint is None


def test_what_cannot_be_asked_for_is_wrong_use(
    tmp_path: Path, tiny_run: TinyRun, capsys: pytest.CaptureFixture
) -> None:
    checkpoint = tmp_path / "asked"
    levels = ((0.0, 0.0), (200.0, 80.0))
    returns = TaskReturns(0.0, 100.0, 0.95, 256, levels)
    compact_agent(CARTPOLE, returns=returns).save_pretrained(checkpoint)
    asks = ["gym", "CartPole-v1", "--episodes", "1", "--checkpoint", str(checkpoint)]
    asks.append("--wanted-return")
    assert "A wanted return is" in failed(capsys, *asks, "much")
    assert "must be above low" in failed(capsys, *asks, "expert:low=3,high=2")
    assert played(tmp_path, *asks, "50%")["wanted_return"] == "50%"
    assert main(["rollout", *asks, "900"]) == 0
    assert "900 is beyond the data, 0 to 200; so 200 is asked" in capsys.readouterr().err
    asks[-2] = str(tiny_run.checkpoint)
    assert "it was trained without returns" in failed(capsys, *asks, "expert")
    own = [*asks[:4], "--policy", "random", "--wanted-return"]
    assert "--wanted-return belongs to --policy agent" in failed(capsys, *own, "expert")


def test_retrieval_is_reached_from_the_command_line(tiny_run: TinyRun, tmp_path: Path) -> None:
    task, data = ["gym", "CartPole-v1", "--episodes", "2", "--max-steps", "60"], str(tiny_run.data)
    played_alone = played(tmp_path, *task, "--policy", "retrieval", "--retrieve", data)
    assert played_alone["policy"] == "retrieval" and played_alone["checkpoint"] is None
    assert played_alone["mean"] > 40  # the expert keeps the pole up, random play for some 20 steps
    own = [*task, "--checkpoint", str(tiny_run.checkpoint)]
    nothing = played(tmp_path, *own)
    assert nothing["retrieval"] is None and not nothing["prompted"]
    shown = played(tmp_path, *own, "--retrieve", data, "--retrieve-steps", "3")
    assert shown["prompted"] and shown["policy"] == "agent"
    assert shown["retrieval"] == {"data": data, "steps": 3, "weight": None}
    mixed = played(tmp_path, *own, "--retrieve", data, "--retrieve-lambda", "0")
    assert mixed["returns"] == played_alone["returns"], "lambda 0 plays the nearest action"


def test_wrong_use_of_retrieval_is_told(tiny_run: TinyRun, capsys: pytest.CaptureFixture) -> None:
    data, checkpoint = ["--retrieve", str(tiny_run.data)], str(tiny_run.checkpoint)
    own = ["gym", "CartPole-v1", "--checkpoint", checkpoint]
    for arguments, said in (
        ([*own, "--retrieve-steps", "3"], "belong to --retrieve FOLDER"),
        ([*own, "--retrieve-lambda", "3"], "belong to --retrieve FOLDER"),
        ([*own, *data, "--retrieve-steps", "99"], "do not fit a quarter of the window"),
        ([*own, *data, "--prompt-episodes", "1"], "leave prompt_episodes out"),
        (["gym", "CartPole-v1", "--policy", "retrieval"], "needs --retrieve FOLDER"),
        (["gym", "CartPole-v1", "--policy", "random", *data], "belongs to --policy agent or"),
        (
            ["gym", "CartPole-v1", "--policy", "retrieval", *data, "--retrieve-lambda", "1"],
            "plays the nearest action alone",
        ),
        (
            ["gym", "MountainCar-v0", "--policy", "retrieval", *data],
            "holds no demonstrations of gym/MountainCar-v0",
        ),
    ):
        assert said in failed(capsys, *arguments)
