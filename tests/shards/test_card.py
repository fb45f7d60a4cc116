"""The card of a folder of shards: true, written with them, and never over somebody's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import DatasetCard

from generalist.shards.card import CARD
from generalist.shards.reader import TaskData
from generalist.shards.shards import EncodedEpisode, append_episodes
from generalist.shards.validate import validate
from tests.conftest import TinyRun

TASK = "gym/CartPole-v1"


def copied(run: TinyRun, folder: Path) -> Path:
    shutil.copytree(run.data / TASK, folder)
    return folder


def first_episode(folder: Path) -> EncodedEpisode:
    data = TaskData(folder)
    return EncodedEpisode(data.tokens(0), data.rewards(0), None, {"seed": 700_000, "expert": "me"})


def test_it_says_what_is_there_and_follows_what_is_added(tiny_run: TinyRun, tmp_path: Path):
    folder = copied(tiny_run, tmp_path / "task")
    before = len(TaskData(folder).records)
    card = (folder / CARD).read_text()
    assert f"{before:,} episodes" in card and f"# {TASK}\n" in card
    assert "`observation`: float32 4, 4 tokens" in card and "| vocabulary | `" in card
    assert "generalist" in DatasetCard(card).data.tags
    append_episodes(folder, [first_episode(folder)])
    assert f"{before + 1:,} episodes" in (folder / CARD).read_text()
    assert validate(folder).ok


def test_a_card_of_somebodys_own_stays(tiny_run: TinyRun, tmp_path: Path):
    folder = copied(tiny_run, tmp_path / "task")
    (folder / CARD).write_text("# My data\n")
    append_episodes(folder, [first_episode(folder)])
    assert (folder / CARD).read_text() == "# My data\n"
