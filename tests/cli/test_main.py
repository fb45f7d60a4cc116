"""Exit codes, one sentence on stderr, help: what every subcommand owes its user."""

from __future__ import annotations

import errno
import json

import pytest
import typer

from generalist.cli import main as cli
from generalist.cli.common import duration, jsonable, write_json
from generalist.errors import GeneralistError, UsageError

COMMANDS = [
    ["quickstart"], ["tasks"], ["collect"], ["inspect"], ["validate"], ["train"],
    ["reinforce"], ["recipe"],
    ["evaluate"],
    ["dagger"], ["rollout"], ["rollout", "gym"], ["rollout", "dmc"], ["rollout", "babyai"],
    ["rollout", "atari"], ["rollout", "metaworld"], ["rollout", "doom"],
    ["rollout", "doomworld"], ["rollout", "miniworld"],
    ["rollout", "minatar"], ["rollout", "board"], ["rollout", "caption"], ["rollout", "vqa"],
    ["rollout", "text"], ["import"], ["import", "minari"], ["import", "hub"],
    ["import", "lerobot"], ["import", "text"], ["import", "pairs"], ["expert"],
    ["expert", "train"], ["tokenizer"], ["tokenizer", "adopt"], ["tokenizer", "extend"],
    ["tokenizer", "train"],
    ["tokenizer", "train", "text"], ["tokenizer", "train", "frames"],
    ["push"], ["info"], ["export"], ["watch"], ["play"],
    ["selfplay"], ["arena"], ["analyze"], ["analyze", "zipf"], ["analyze", "scaling"],
    ["analyze", "quanta"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_subcommand_has_help(command, capsys):
    assert cli.main([*command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert "Usage: generalist " + " ".join(command) in printed
    assert "Options" in printed


def commands_of(app: typer.Typer) -> list[list[str]]:
    """The words of every subcommand and of every group of them."""
    found = [[command.name] for command in app.registered_commands]
    for group in app.registered_groups:
        within = commands_of(group.typer_instance)
        found += [[group.name], *([group.name, *words] for words in within)]
    return found


def test_the_list_above_is_complete():
    assert sorted(commands_of(cli.app)) == sorted(COMMANDS)


@pytest.mark.parametrize(
    "family",
    [
        *("gym", "dmc", "babyai", "atari", "metaworld", "doom", "doomworld", "miniworld"),
        *("minatar", "board"),
    ],
)
def test_every_family_has_the_common_options(family, capsys):
    cli.main(["rollout", family, "--help"])
    printed = capsys.readouterr().out
    for option in ("--checkpoint", "--episodes", "--seed", "--envs", "--prompt-episodes",
                   "--temperature", "--video", "--json"):  # fmt: skip
        assert option in printed


def test_the_home_folder_of_an_option_is_no_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "sizes/1m", "--plan", "--json=~/plan.json"]) == 0
    assert (tmp_path / "home" / "plan.json").is_file() and not (tmp_path / "~").exists()


def test_no_command_shows_the_help(capsys):
    assert cli.main([]) == 2
    assert "quickstart" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("generalist ")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["trian"], ["trian", "train"]),
        (["collect"], ["spec", "collect --help"]),
        (["train", "quickstart", "--steps", "3"], ["--steps", "train --help"]),
        (["rollout", "gym", "CartPole-v1", "--episodes", "many"], ["--episodes", "valid integer"]),
        (["rollout", "gym", "CartPole-v1", "--episodes", "0"], ["--episodes"]),
        (["rollout", "gym", "CartPool-v1"], ["gym/CartPool-v1", "gym/CartPole-v1"]),
        (["rollout", "vizdoom", "Basic"], ["vizdoom"]),
        (["tasks", "gmy"], ["gmy", "gym"]),
        (["train", "quickstrat"], ["quickstrat", "quickstart"]),
        (["train", "quickstart", "optimizer.lrr=1"], ["optimizer.lrr", "'lr'"]),
        (["train", "quickstart", "optimizer.lr=fast"], ["optimizer.lr", "fast"]),
        (["train", "quickstart", "steps"], ["'steps'", "optimizer.lr=0.001"]),
        (["collect", "quickstrat"], ["quickstrat", "quickstart"]),
        (["evaluate", "quickstrat"], ["quickstrat", "quickstart"]),
        (["quickstart", "schedule.minuets=3"], ["schedule.minuets", "minutes"]),
        (["quickstart", "output_dir=x"], ["--output"]),
        (["dagger", "gym/CartPool-v1"], ["gym/CartPool-v1", "gym/CartPole-v1"]),
    ],
)
def test_wrong_use_is_2_and_one_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    _is_one_line(capsys.readouterr().err, *words)
    assert list(tmp_path.iterdir()) == [], "a mistake must show before anything is written"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["rollout", "gym", "CartPole-v1", "--checkpoint", "nowhere"], ["nowhere"]),
        (["rollout", "text", "--checkpoint", "nowhere"], ["nowhere"]),
        (["evaluate", "--checkpoint", "nowhere"], ["nowhere", "generalist train"]),
        (["dagger", "gym/CartPole-v1", "--checkpoint", "nowhere"], ["nowhere"]),
        (["inspect", "nowhere"], ["nowhere", "generalist collect"]),
        (["validate", "nowhere"], ["nowhere", "generalist collect"]),
        (["train", "quickstart", "data.root=nowhere"], ["nowhere", "generalist collect"]),
    ],
)
def test_what_is_missing_is_1_and_one_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    _is_one_line(capsys.readouterr().err, *words)


def _is_one_line(printed: str, *words: str) -> None:
    assert printed.startswith("Error: ") and len(printed.strip().splitlines()) == 1, printed
    assert "Traceback" not in printed
    for word in words:  # typer 0.24 writes an argument's name in capitals
        assert word.lower() in printed.lower(), printed


def _disk_full() -> Exception:
    return OSError(errno.ENOSPC, "No space left on device", "model.safetensors")


def _disk_full_in_rust() -> Exception:
    return RuntimeError("I/O error: No space left on device (os error 28)")


def _disk_full_behind() -> Exception:
    error = RuntimeError("could not save")
    error.__cause__ = _disk_full()
    return error


@pytest.mark.parametrize(
    "error, code, words",
    [
        (GeneralistError("The shard is damaged."), 1, ["The shard is damaged."]),
        (UsageError("There is no such task."), 2, ["There is no such task."]),
        (_disk_full(), 1, ["No space is left", "model.safetensors", "same command"]),
        (_disk_full_in_rust(), 1, ["No space is left", "same command"]),
        (_disk_full_behind(), 1, ["No space is left"]),
        (PermissionError(errno.EACCES, "Permission denied", "/data"), 1, ["/data", "denied"]),
        (ModuleNotFoundError("no", name="vizdoom"), 1, ["vizdoom", "pip install"]),
        (ZeroDivisionError("division by zero"), 1, ["ZeroDivisionError", "--debug"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_become_a_sentence_and_debug_shows_the_rest(error, code, words, capsys, monkeypatch):
    monkeypatch.setattr(cli, "app", _raising(error))
    assert cli.main(["anything"]) == code
    _is_one_line(capsys.readouterr().err, *words)
    assert cli.main(["anything", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def _raising(error: BaseException, name: str = "anything") -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command(name)
    def anything() -> None:
        raise error

    @app.callback()
    def callback() -> None:
        """Make `anything` a subcommand."""

    return app


@pytest.mark.parametrize(
    ("command", "words"),
    [("collect", "same command again to continue"), ("rollout", "The same command begins anew")],
)
def test_ctrl_c_is_130_and_says_how_to_go_on(capsys, monkeypatch, command: str, words: str):
    monkeypatch.setattr(cli, "app", _raising(KeyboardInterrupt(), command))
    assert cli.main([command]) == 130
    assert words in capsys.readouterr().err


def test_tasks_lists_and_writes_json(capsys, tmp_path):
    path = tmp_path / "deep" / "tasks.json"
    assert cli.main(["tasks", "gym", "--json", str(path)]) == 0
    listed = json.loads(path.read_text())
    assert "gym/CartPole-v1" in {task["task"] for task in listed}
    assert "gym/CartPole-v1" in capsys.readouterr().out
    assert {task["family"] for task in listed} == {"gym"}


def test_json_is_written_in_one_piece(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]


def test_values_become_plain_json():
    import numpy as np

    value = {"a": np.float32(1.5), "b": (1, np.arange(2)), "c": float("nan")}
    assert jsonable(value) == {"a": 1.5, "b": [1, [0, 1]], "c": None}


@pytest.mark.parametrize(
    "seconds, text", [(3.2, "3 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3720, "1 h 02 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
