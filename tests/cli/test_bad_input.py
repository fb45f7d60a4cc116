"""Bad input, on real data and checkpoints: a sentence, the right code, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from generalist.cli.main import main
from tests.conftest import TinyRun

ENVS = "tests.cli.bad_envs"


@pytest.fixture
def copied(tiny_run: TinyRun, tmp_path: Path) -> TinyRun:
    """The tiny run, to be damaged."""
    shutil.copytree(tiny_run.data, tmp_path / "data")
    shutil.copytree(tiny_run.checkpoint, tmp_path / "checkpoint")
    return TinyRun(tmp_path, tiny_run.dataset, tmp_path / "data", tiny_run.recipe,
                   tmp_path / "checkpoint")  # fmt: skip


def sentence(capsys: pytest.CaptureFixture, *words: str) -> str:
    """The one sentence on stderr, without the progress bars before it."""
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    said = [line for line in printed.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1, printed
    for word in words:
        assert word in said[0], said[0]
    return said[0]


def spec_of(folder: Path, *tasks: dict, **keys) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**keys, "tasks": list(tasks)}))
    return path


def train(run: TinyRun, out: Path, *keys: str) -> int:
    return main(["train", str(run.recipe), f"data.root={run.data}", f"output_dir={out}",
                 "schedule.steps=3", *keys])  # fmt: skip


def shard_of(run: TinyRun, task: str = "gym/Pendulum-v1") -> Path:
    return run.data / task / "shard-00000.tar"


# Shards


def flip(path: Path) -> None:
    """Change one bit in the middle of a member's payload."""
    data = bytearray(path.read_bytes())
    manifest = json.loads((path.parent / "manifest.json").read_text())
    member = next(m for m in manifest["shards"][0]["members"] if m["name"].endswith("tokens.npy"))
    data[member["offset"] + member["size"] // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    """Truncate at a member boundary, where tar itself notices nothing."""
    manifest = json.loads((path.parent / "manifest.json").read_text())
    path.write_bytes(path.read_bytes()[: manifest["shards"][0]["members"][1]["offset"] - 512])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_shard_is_named(damage, copied, capsys, tmp_path):
    damage(shard_of(copied))
    assert main(["validate", str(copied.data), "--json", str(tmp_path / "report.json")]) == 1
    assert str(shard_of(copied)) in capsys.readouterr().err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"] is False
    assert {t["task"]: bool(t["problems"]) for t in report["tasks"]} == {
        "gym/CartPole-v1": False, "gym/Pendulum-v1": True,
    }  # fmt: skip
    assert train(copied, tmp_path / "run") == 1
    sentence(capsys, str(shard_of(copied)), "damaged")


def test_undamaged_shards_are_valid(tiny_run, capsys, tmp_path):
    assert main(["validate", str(tiny_run.data), "--json", str(tmp_path / "report.json")]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is True
    assert "gym/CartPole-v1" in capsys.readouterr().out


# Vocabularies


def other_processor(folder: Path) -> Path:
    """A processor like the shipped one, with another range in place of the last."""
    from generalist.tokenization.processor import GeneralistProcessor
    from generalist.vocabulary import Vocabulary

    shipped = GeneralistProcessor.default()
    ranges = [(each.name, each.size) for each in shipped.vocabulary]
    vocabulary = Vocabulary([*ranges[:-1], ("sound", 64)])
    GeneralistProcessor(vocabulary, shipped.text, shipped.frames).save_pretrained(folder)
    return folder


def test_a_checkpoint_of_another_vocabulary_is_refused(copied, capsys, tmp_path):
    other_processor(tmp_path / "other")
    for path in (tmp_path / "other").iterdir():
        if path.is_file():
            shutil.copy(path, copied.checkpoint / "generalist")
    assert main(["rollout", "gym", "CartPole-v1", "--checkpoint", str(copied.checkpoint)]) == 1
    sentence(capsys, str(copied.checkpoint), "vocabulary")


def test_shards_of_another_vocabulary_are_refused(copied, capsys, tmp_path):
    other = other_processor(tmp_path / "other")
    assert train(copied, tmp_path / "run", f"data.processor={other}") == 1
    sentence(capsys, "gym", "vocabulary")
    assert main(["inspect", str(copied.data), "--task", "gym/CartPole-v1",
                 "--processor", str(other)]) == 1  # fmt: skip
    sentence(capsys, "vocabulary")


def test_a_checkpoint_with_half_its_weights_is_refused(copied, capsys):
    weights = copied.checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main(["rollout", "gym", "CartPole-v1", "--checkpoint", str(copied.checkpoint)]) == 1
    sentence(capsys, "weights", "damaged")


# Environments


def test_a_space_without_a_layout_is_refused_with_the_reason(capsys, tmp_path):
    spec = spec_of(tmp_path, {"task": f"gym/{ENVS}:Graph-v0", "episodes": 2, "expert": "random"})
    assert main(["collect", str(spec), "--out", str(tmp_path / "data"), "--workers", "0"]) != 0
    sentence(capsys, "Graph")


def test_not_a_number_in_an_observation_names_field_and_step(capsys, tmp_path):
    spec = spec_of(
        tmp_path, {"task": f"gym/{ENVS}:NotANumber-v0", "episodes": 2, "expert": "random"}
    )
    assert main(["collect", str(spec), "--out", str(tmp_path / "data"), "--workers", "0"]) == 1
    sentence(capsys, "NotANumber-v0", "observation", "step 4")


def test_acting_stops_at_not_a_number(tiny_run, capsys):
    arguments = ["rollout", "gym", f"{ENVS}:NotANumber-v0", "--episodes", "1"]
    assert main([*arguments, "--checkpoint", str(tiny_run.checkpoint)]) == 1
    sentence(capsys, "observation", "nan")


def test_one_bad_task_does_not_cost_the_others(capsys, tmp_path):
    """What was finished is kept, and the corrected spec goes on from there."""
    good = {"task": f"gym/{ENVS}:Fine-v0", "episodes": 3, "expert": "random"}
    bad = {"task": f"gym/{ENVS}:NotANumber-v0", "episodes": 1, "expert": "random"}
    out = ["--out", str(tmp_path / "data"), "--workers", "0"]
    assert main(["collect", str(spec_of(tmp_path, good, bad)), *out]) == 1
    report = tmp_path / "report.json"
    assert main(["collect", str(spec_of(tmp_path, good)), *out, "--json", str(report)]) == 0
    (outcome,) = json.loads(report.read_text())["tasks"].values()
    assert (outcome["episodes"], outcome["added"]) == (3, 0)


# Disk


def test_a_full_disk_loses_nothing_and_the_same_command_continues(capsys, tmp_path, monkeypatch):
    tasks = [
        {"task": f"gym/{ENVS}:Fine-v0", "episodes": 4, "expert": "random"},
        {"task": "gym/CartPole-v1", "episodes": 4, "max_steps": 20},
    ]
    command = ["collect", str(spec_of(tmp_path, *tasks)), "--out", str(tmp_path / "data"),
               "--workers", "0"]  # fmt: skip
    fsync, calls = os.fsync, []

    def full_in_the_end(descriptor: int) -> None:
        calls.append(descriptor)
        if "CartPole" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_in_the_end)
    assert main(command) == 1
    assert calls
    sentence(capsys, "space", "same command")
    monkeypatch.undo()
    assert main([*command, "--json", str(tmp_path / "report.json")]) == 0
    outcomes = json.loads((tmp_path / "report.json").read_text())["tasks"]
    assert [(o["episodes"], o["added"]) for o in outcomes.values()] == [(4, 0), (4, 4)]
    assert main(["validate", str(tmp_path / "data")]) == 0


def test_a_disk_that_fills_up_in_training_keeps_the_last_checkpoint(
    tiny_run, capsys, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    keys = ["schedule.steps=6", "checkpoint.every_steps=2"]
    fsync = os.fsync

    def full_at_step_4(descriptor: int) -> None:
        if "step-00000004" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_step_4)
    assert train(tiny_run, run, *keys) == 1
    sentence(capsys, "space", "same command")
    assert not (run / "checkpoint").exists()
    monkeypatch.undo()
    assert train(tiny_run, run, *keys) == 0
    assert "Continuing from" in capsys.readouterr().out
    assert (run / "checkpoint" / "model.safetensors").exists()


# Results


def test_rollout_writes_its_result(tiny_run, capsys, tmp_path):
    path = tmp_path / "result.json"
    assert main(["rollout", "gym", "CartPole-v1", "--checkpoint", str(tiny_run.checkpoint),
                 "--episodes", "3", "--seed", "77", "--envs", "2", "--prompt-episodes", "1",
                 "--json", str(path)]) == 0  # fmt: skip
    result = json.loads(path.read_text())
    promised = "task checkpoint episodes seeds returns mean stderr lengths random expert"
    assert {*promised.split(), "normalized", "prompted", "steps_per_second"} <= set(result)
    assert result["task"] == "gym/CartPole-v1" and result["seeds"] == [77, 78, 79]
    assert result["returns"] == [float(steps) for steps in result["lengths"]]
    assert result["prompted"] is True
    assert "gym/CartPole-v1" in capsys.readouterr().out


def test_rollout_in_bfloat16(tiny_run, capsys):
    assert main(["rollout", "--device", "cpu", "--dtype", "bfloat16", "gym", "CartPole-v1",
                 "--episodes", "2", "--checkpoint", str(tiny_run.checkpoint)]) == 0  # fmt: skip
    assert "gym/CartPole-v1" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there(tiny_run, capsys, device):
    assert main(["rollout", "--device", device, "gym", "CartPole-v1",
                 "--checkpoint", str(tiny_run.checkpoint)]) == 2  # fmt: skip
    assert f"--device {device}: " in capsys.readouterr().err


def test_rollout_text_writes_on(tiny_run, capsys, tmp_path):
    path = tmp_path / "text.json"
    assert main(["rollout", "text", "--prompt", "def f(", "--tokens", "5", "--checkpoint",
                 str(tiny_run.checkpoint), "--json", str(path)]) == 0  # fmt: skip
    (text,) = json.loads(path.read_text())["texts"]
    assert text and ("def f(" + text) in capsys.readouterr().out


def test_inspect_explains_every_token(tiny_run, capsys, tmp_path):
    path = tmp_path / "tokens.json"
    assert main(["inspect", str(tiny_run.data), "--task", "gym/Pendulum-v1", "--episode", "1",
                 "--start", "5", "--steps", "2", "--json", str(path)]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    tokens = json.loads(path.read_text())["tokens"]
    assert tokens[0]["value"] == "begin" and tokens[0]["timestep"] == -1
    steps = [token for token in tokens if token["timestep"] >= 0]
    assert [token["field"] for token in steps[:5]] == [
        "observation[0]", "observation[1]", "observation[2]", "separator", "action",
    ]  # fmt: skip
    assert [token["timestep"] for token in steps] == [5] * 5 + [6] * 5
    assert all(str(token["id"]) in shown for token in tokens)
    assert [token["target"] for token in steps[:5]] == [False] * 4 + [True]
    assert "reward" in steps[4]
    cosine, sine = float(steps[0]["value"]), float(steps[1]["value"])
    assert cosine**2 + sine**2 == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("positions", [1, 3])
def test_inspect_shows_the_positions_of_the_compact_form(tiny_run, tmp_path, positions):
    path = tmp_path / "tokens.json"
    assert main(["inspect", str(tiny_run.data), "--task", "gym/Pendulum-v1", "--steps", "2",
                 "--form", "compact", "--positions", str(positions),
                 "--json", str(path)]) == 0  # fmt: skip
    tokens = json.loads(path.read_text())["tokens"]
    header = {token["position"] for token in tokens if token["timestep"] < 0}
    assert header == {"0"}, "a vector stands for the name of the task"
    first, second = ([t["position"] for t in tokens if t["timestep"] == step] for step in (0, 1))
    expected = ["1"] * 5 if positions == 1 else ["1-3"] * 4 + ["3"]
    assert first == expected
    assert second[-1] == str(2 * positions)


def test_inspect_says_what_is_not_there(tiny_run, capsys):
    for arguments in ("--task gym/Pendulun-v1", "--task gym/Pendulum-v1 --episode 9"):
        assert main(["inspect", str(tiny_run.data), *arguments.split()]) == 2
        sentence(capsys, "gym/Pendulum-v1")
    assert main(["inspect", str(tiny_run.data)]) == 0
    assert "gym/Pendulum-v1" in capsys.readouterr().out
