"""LeRobot folders of version 3, written with pyarrow after their published layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from generalist.errors import GeneralistError, UsageError
from generalist.importing.lerobot import LeRobotSource
from generalist.importing.rows import Columns
from generalist.importing.write import import_source
from generalist.shards.manifest import DatasetHeader
from tests.importing.conftest import assert_same
from tests.importing.recorded import PENDULUM, WORDS, lerobot_folder, played

VIDEO = {"observation.images.top": {"dtype": "video", "shape": [3, 96, 96], "names": None}}


def test_round_trip(tmp_path: Path, processor: str) -> None:
    """Seven episodes in three files, each with its task in words."""
    recorded = played(PENDULUM, 7)
    source = LeRobotSource(lerobot_folder(tmp_path / "robot", recorded))
    assert source.total == 7 and not source.notes
    import_source(source, "robot/pendulum", tmp_path / "out", processor=processor)
    data = assert_same(tmp_path / "out/robot/pendulum", processor, recorded)
    assert [record["instruction"] for record in data.records] == [WORDS[i % 2] for i in range(7)]
    assert all(record["terminated"] for record in data.records)


def test_statistics_give_the_bounds(tmp_path: Path, processor: str) -> None:
    recorded = played(PENDULUM, 2)
    source = LeRobotSource(lerobot_folder(tmp_path / "robot", recorded))
    import_source(source, "robot/pendulum", tmp_path / "out", processor=processor)
    space = DatasetHeader.read(tmp_path / "out/robot/pendulum").spaces["observation"]
    seen = np.concatenate([e.observations for e in recorded])
    np.testing.assert_allclose(space["low"], seen.min(axis=0), rtol=1e-6)
    np.testing.assert_allclose(space["high"], seen.max(axis=0), rtol=1e-6)


def test_it_continues_in_the_file_where_it_is(tmp_path: Path, processor: str) -> None:
    recorded = played(PENDULUM, 7)
    folder = lerobot_folder(tmp_path / "robot", recorded)
    for episodes in (2, 5, None):
        import_source(LeRobotSource(folder), "robot/p", tmp_path / "out", episodes=episodes,
                      processor=processor)  # fmt: skip
    assert_same(tmp_path / "out/robot/p", processor, recorded)


def test_videos_are_left_out_and_said(tmp_path: Path, processor: str) -> None:
    recorded = played(PENDULUM, 2)
    folder = lerobot_folder(tmp_path / "robot", recorded, features=VIDEO)
    source = LeRobotSource(folder)
    assert source.notes == ["What is a video is left out: observation.images.top."]
    import_source(source, "robot/p", tmp_path / "out", processor=processor)
    assert_same(tmp_path / "out/robot/p", processor, recorded)
    with pytest.raises(UsageError, match="observation.images.top is a video"):
        LeRobotSource(folder, Columns(observation=("observation.images.top",)))


def test_bad_folders(tmp_path: Path, processor: str) -> None:
    recorded = played(PENDULUM, 4)
    with pytest.raises(UsageError, match="no meta/info.json"):
        LeRobotSource(tmp_path)
    old = lerobot_folder(tmp_path / "old", recorded, version="v2.1")
    with pytest.raises(GeneralistError, match="version v2.1; v3 is read"):
        LeRobotSource(old)
    folder = lerobot_folder(tmp_path / "robot", recorded)
    with pytest.raises(UsageError, match="no column 'effort' for the action; there are"):
        LeRobotSource(folder, Columns(action=("effort",)))
    (folder / "data/chunk-000/file-001.parquet").unlink()
    with pytest.raises(GeneralistError, match="file-001.parquet cannot be read"):
        import_source(LeRobotSource(folder), "robot/p", tmp_path / "out", processor=processor)


def test_without_rewards_they_are_zero_and_that_is_said(tmp_path: Path, processor: str) -> None:
    recorded = played(PENDULUM, 2)
    folder = lerobot_folder(tmp_path / "robot", recorded)
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text())
    del info["features"]["next.reward"]
    path.write_text(json.dumps(info))
    source = LeRobotSource(folder)
    assert "all are 0" in source.notes[0]
    for episode in recorded:
        episode.rewards = np.zeros_like(episode.rewards)
    import_source(source, "robot/p", tmp_path / "out", processor=processor)
    assert_same(tmp_path / "out/robot/p", processor, recorded)
