"""Checkpoints by the name of a repository, with the real client and a server of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from generalist.acting.hub import FOLDER_IN_CARD, checkpoint_folder, push_checkpoint
from generalist.errors import GeneralistError
from tests.bits import flipped
from tests.conftest import TinyRun
from tests.hub import LocalHub, local_hub, sha_of

NAME = "someone/tiny"
ACT = ["rollout", "gym", "CartPole-v1", "--episodes", "2", "--checkpoint"]


@pytest.fixture
def hub(tmp_path: Path):
    with local_hub() as server:
        yield server


def generalist(hub: LocalHub, cache: Path, *arguments: str, **env: str):
    """The command, in a process that takes `hub` for the Hub."""
    environment = {**os.environ, **hub.environment(cache), **env}
    return subprocess.run(
        [sys.executable, "-m", "generalist", *arguments],
        env={key: value for key, value in environment.items() if value},
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_pushed_it_is_fetched_and_acts_as_before(hub: LocalHub, tiny_run: TinyRun, tmp_path: Path):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_run.checkpoint, checkpoint)
    (checkpoint / "optimizer.pkl").write_bytes(b"not to be read by anybody")
    done = generalist(hub, tmp_path, "push", str(checkpoint), NAME, "--private")
    assert done.returncode == 0, done.stderr
    assert f"{hub.address}/{NAME}" in done.stdout
    assert hub.created[0]["visibility"] == "private"
    (files,) = hub.repositories[NAME]
    there = {str(p.relative_to(checkpoint)) for p in checkpoint.rglob("*") if p.is_file()}
    assert set(files) == there - {"optimizer.pkl"}
    card = files["README.md"].decode()
    assert f'from_pretrained("{NAME}"' in card and FOLDER_IN_CARD not in card
    for name in there - {"README.md", "optimizer.pkl"}:
        assert files[name] == (checkpoint / name).read_bytes()

    played = {}
    for where in (str(checkpoint), NAME, f"{NAME}@{sha_of(files)}"):
        done = generalist(hub, tmp_path, *ACT, where)
        assert done.returncode == 0, done.stderr
        played[where] = done.stdout.split(", 2 episodes")[0]
    assert len(set(played.values())) == 1, played
    # What is here is not asked for again.
    offline = generalist(hub, tmp_path, *ACT, NAME, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0 and played[NAME] in offline.stdout, offline.stderr
    assert not list((tmp_path / "hub").rglob("*.pkl"))


def test_a_repository_is_evaluated_and_left_as_it_is(
    hub: LocalHub, tiny_run: TinyRun, tmp_path: Path
):
    generalist(hub, tmp_path, "push", str(tiny_run.checkpoint), NAME)
    suite = tmp_path / "one.yaml"
    suite.write_text("episodes: 1\nprompted_episodes: 0\ntasks: [gym/CartPole-v1]\n")
    done = generalist(hub, tmp_path, "evaluate", str(suite), "--checkpoint", NAME, "--no-videos")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "someone-tiny" / "evaluation" / "one" / "report.html").exists()
    (card,) = (tmp_path / "hub").rglob("README.md")
    assert card.read_bytes() == hub.repositories[NAME][0]["README.md"]


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["push", "CHECKPOINT", NAME], {"HF_TOKEN": ""}, "log in with `hf auth login`"),
        (["push", "CHECKPOINT", NAME], {"HF_HUB_OFFLINE": "1"}, "cannot be reached"),
        (["push", "nowhere", NAME], {}, "no checkpoint folder nowhere"),
        (
            ["rollout", "gym", "CartPole-v1", "--checkpoint", "no/body"],
            {},
            "no/body does not exist",
        ),
        (
            ["rollout", "gym", "CartPole-v1", "--checkpoint", "no/body"],
            {"HF_HUB_OFFLINE": "1"},
            "cannot be reached",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(
    hub: LocalHub, tiny_run: TinyRun, tmp_path: Path, arguments, env, said
):
    arguments = [str(tiny_run.checkpoint) if each == "CHECKPOINT" else each for each in arguments]
    done = generalist(hub, tmp_path, *arguments, **env)
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_push_that_breaks_off_leaves_nothing_and_is_done_again(
    hub: LocalHub, tiny_run: TinyRun, tmp_path: Path
):
    hub.breaks = 100
    done = generalist(hub, tmp_path, "push", str(tiny_run.checkpoint), NAME)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert hub.repositories[NAME] == []
    hub.breaks = 0
    for _ in range(2):
        done = generalist(hub, tmp_path, "push", str(tiny_run.checkpoint), NAME)
        assert done.returncode == 0, done.stderr
    assert all(files == hub.repositories[NAME][0] for files in hub.repositories[NAME])


def test_a_damaged_checkpoint_is_not_pushed(hub: LocalHub, tiny_run: TinyRun, tmp_path: Path):
    checkpoint = Path(shutil.copytree(tiny_run.checkpoint, tmp_path / "checkpoint"))
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes(), 80_000))
    done = generalist(hub, tmp_path, "push", str(checkpoint), NAME)
    assert done.returncode == 1 and f"{weights} is damaged" in done.stderr
    assert not hub.repositories


FETCH = """
import sys
from generalist.acting.hub import checkpoint_folder
from generalist.errors import GeneralistError
for name in sys.argv[1:]:
    try:
        print(checkpoint_folder(name))
    except GeneralistError as error:
        print(error)
"""


def test_a_name_in_a_repository_leads_nowhere_else(hub: LocalHub, tmp_path: Path):
    names = ["../../../../victim.json", "/victim.json", "a\\..\\..\\b.json"]
    for number, name in enumerate(names):
        hub.repositories[f"bad/{number}"] = [{"config.json": b"{}", name: b"a stranger's"}]
    cache = tmp_path / "one" / "two"
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *hub.repositories],
        env={**os.environ, **hub.environment(cache)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    for number in range(len(names)):
        assert any(line.startswith(f"bad/{number} cannot be downloaded") for line in said)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.name.endswith("json")]
    assert not any(b"stranger" in path.read_bytes() for path in kept)


def test_a_folder_wins_over_a_repository_of_its_name(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/mine").mkdir(parents=True)
    assert checkpoint_folder("runs/mine") == Path("runs/mine")
    assert checkpoint_folder("a/b/c") == Path("a/b/c")  # no repository has such a name
    with pytest.raises(GeneralistError, match="config.json is missing"):
        push_checkpoint(Path("runs/mine"), NAME)
