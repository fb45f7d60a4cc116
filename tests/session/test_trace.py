"""What an environment or an expert of one's own does wrong is said in one sentence, with place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml

import generalist
from generalist.cli.main import main
from generalist.errors import GeneralistError, UsageError
from generalist.experts import ExpertPolicy, collect_episode, get_expert, random_episode
from generalist.session import EpisodeError, Trace, play
from tests.conftest import TinyRun
from tests.decoding.models import tiny_agent

STRANGE = "gym/tests.strange_envs:Strange-v0"
FAULTS = {
    "raise": (2, r"the environment raised ValueError: the simulator gave up \(strange_envs.py:\d+"),
    "outcome": (2, r"the environment raised ValueError: not enough values to unpack"),
    "grows": (3, r"observation/arm has shape \(3,\); its space has \(2,\)"),
    "nan": (3, r"observation/arm is nan at \[1\]"),
    "missing": (3, "observation has no 'door'"),
    "outside": (3, r"observation/door is 7, which is not in its space Discrete\(3\)"),
    "reward (1,)": (2, r"reward is an array of shape \(1,\); expected one number"),
    "reward nan": (2, "reward is nan; expected a finite number"),
    "reward None": (2, "reward is of type NoneType; expected one number"),
    "reward word": (2, "reward is of type str; expected one number"),
    "hindsight": (2, r"info\['hindsight'\] is \{'told': 'wait'\}; expected a dict"),
}


def strange(fault: str) -> Any:
    return generalist.make(STRANGE, fault=fault)


@pytest.mark.parametrize(("fault", "said"), FAULTS.items())
def test_what_an_environment_does_wrong_names_task_seed_and_step(
    fault: str, said: tuple[int, str]
) -> None:
    step, words = said
    pattern = rf"^{re.escape(STRANGE)}, seed 5, step {step}: .*{words}"
    with pytest.raises(EpisodeError, match=pattern) as caught:
        random_episode(strange(fault), STRANGE, 5)
    assert "\n" not in str(caught.value)
    environments = [strange(""), strange(fault)]  # also in a batch with one that does well
    with pytest.raises(EpisodeError, match=pattern):
        list(play(tiny_agent(STRANGE), environments, [4, 5], task=STRANGE))


def test_an_environment_without_wrappers_may_return_anything() -> None:
    trace = Trace(strange("outcome").unwrapped, STRANGE, 5)
    trace.step(0)
    trace.step(0)
    with pytest.raises(EpisodeError, match="step 2: the environment's step returned a tuple of 4"):
        trace.step(0)


def test_an_episode_that_fails_keeps_the_steps_before() -> None:
    trace = Trace(strange("raise"), STRANGE, 5, keep_steps=True)
    with pytest.raises(EpisodeError, match="gave up"):
        while True:
            trace.step(0)
    assert trace.steps == 2 and trace.to_episode({}).steps == 2


def test_an_environment_that_changes_its_action_changes_no_data() -> None:
    class Scales(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,))
        action_space = gymnasium.spaces.Box(-2, 2, (1,))

        def reset(self, **given: Any) -> Any:
            return np.zeros(1, np.float32), {}

        def step(self, action: np.ndarray) -> Any:
            action *= 0.5
            return np.zeros(1, np.float32), float(action[0]), False, False, {}

    trace, chosen = Trace(Scales(), STRANGE, 5, keep_steps=True), np.float32([2.0])
    trace.step(chosen)
    assert chosen[0] == trace.action[0] == trace.actions[0][0] == 2.0 and trace.rewards == [1.0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("reset", "raised ValueError: the simulator gave up"),
        ("reset outcome", "(raised ValueError|reset returned of)"),
    ],
)
def test_a_reset_that_fails_is_at_step_0(fault: str, words: str) -> None:
    with pytest.raises(EpisodeError, match=f"seed 9, step 0: the environment('s)? {words}"):
        Trace(strange(fault), STRANGE, 9)


@pytest.mark.parametrize(
    ("expert", "words"),
    [
        ("Failing", r"step 3: the expert Failing raised KeyError: 'no plan' \(strange_envs.py"),
        ("FailingAtReset", "step 0: the expert FailingAtReset raised OSError: no such model"),
    ],
)
def test_what_an_expert_does_wrong_is_said_of_the_expert(expert: str, words: str) -> None:
    env, teacher = strange(""), get_expert(STRANGE, f"tests.strange_envs:{expert}")
    labels = ExpertPolicy([teacher], [env])
    with pytest.raises(EpisodeError, match=f"seed 2, {words}"):
        collect_episode(env, STRANGE, teacher, 2)
    with pytest.raises(EpisodeError, match=f"seed 2, {words}"):
        list(play(tiny_agent(STRANGE), [env], [2], task=STRANGE, teacher=labels))


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(GeneralistError, match="cannot be made: RuntimeError: no simulator"):
        strange("make")
    with pytest.raises(UsageError, match="Unmakeable.*RuntimeError: no licence"):
        get_expert(STRANGE, "tests.strange_envs:Unmakeable")


def test_a_module_of_ones_own_that_is_no_python_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unfinished_envs.py").write_text("def best(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="cannot be imported: SyntaxError"):
        get_expert(STRANGE, "unfinished_envs:Best")
    with pytest.raises(GeneralistError, match="cannot be imported: SyntaxError"):
        generalist.make("gym/unfinished_envs:Env-v0")


def test_the_users_own_wrong_use_stays_what_it_is() -> None:
    """A planner that does not know the simulator is a wrong name, not a failing episode."""
    from generalist.planning.width_search import WidthSearch

    with pytest.raises(UsageError, match="A planner saves"):
        collect_episode(strange(""), STRANGE, WidthSearch(5), 0)


@pytest.mark.parametrize("fault", ["raise", "grows", "reward (1,)"])
def test_the_command_line_blames_the_environment(
    fault: str, tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    spec = tmp_path / "spec.yaml"
    task = {"task": STRANGE, "episodes": 1, "expert": "random", "options": {"fault": fault}}
    spec.write_text(yaml.safe_dump({"tasks": [task]}))
    out = ["--out", str(tmp_path / "data"), "--workers", "0"]
    assert main(["collect", str(spec), *out]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1 and said[0].count(STRANGE) == 2  # which task has none; why
    assert "seed 0, step" in said[0] and "fault of generalist" not in said[0]
