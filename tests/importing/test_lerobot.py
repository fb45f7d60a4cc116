"""LeRobot folders of version 3, written with pyarrow after their published layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from generalist.episode import Episode
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


def extras(steps: int) -> dict[str, np.ndarray]:
    """A gripper, a flag, a mode and a discrete action, and names with a slash."""
    rng = np.random.default_rng(0)
    return {
        "observation.gripper": rng.uniform(-1, 1, steps).astype(np.float32),
        "observation.flag": rng.integers(0, 2, steps).astype(bool),
        "observation.state/mode": rng.integers(0, 5, steps),
        "action.button": rng.integers(0, 3, steps),
    }


@pytest.mark.parametrize("stats", [True, False])
def test_features_of_shape_1_with_and_without_statistics(
    tmp_path: Path, processor: str, stats: bool
) -> None:
    """Stored as single values, they come back as such, among names with a slash in them."""
    recorded = played(PENDULUM, 3)
    extra = extras(sum(e.steps for e in recorded))
    folder = lerobot_folder(tmp_path / "robot", recorded, extra=extra)
    if not stats:
        (folder / "meta" / "stats.json").unlink()
    source = LeRobotSource(folder, Columns(action=("action", "action.button")))
    report = import_source(source, "robot/all", tmp_path / "out", processor=processor)
    assert report.spaces == ("the dataset's own" if stats else "inferred")
    starts = np.cumsum([0] + [e.steps for e in recorded])
    whole = []
    for episode, start in zip(recorded, starts, strict=False):
        part = {name: values[start : start + episode.steps] for name, values in extra.items()}
        actions = {"action": episode.actions, "action.button": part.pop("action.button")}
        part["observation.flag"] = part["observation.flag"].astype(np.int64)
        observations = {"observation.state": episode.observations, **part}
        whole.append(Episode("robot/all", observations, actions, episode.rewards, True, False))
    assert_same(tmp_path / "out/robot/all", processor, whole)
    spaces = DatasetHeader.read(tmp_path / "out/robot/all").spaces
    assert spaces["action"]["spaces"]["action.button"]["n"] == 3
    button = LeRobotSource(folder, Columns(action=("action.button",)))
    import_source(button, "robot/button", tmp_path / "out", processor=processor)
    assert DatasetHeader.read(tmp_path / "out/robot/button").spaces["action"]["type"] == "Discrete"


def test_text_is_left_out_and_said(tmp_path: Path) -> None:
    recorded = played(PENDULUM, 1)
    words = {"observation.words": {"dtype": "string", "shape": [1], "names": None}}
    folder = lerobot_folder(tmp_path / "robot", recorded, features=words)
    source = LeRobotSource(folder)
    assert source.notes == ["What is text is left out: observation.words."]
    with pytest.raises(UsageError, match="observation.words is text, which is not imported"):
        LeRobotSource(folder, Columns(observation=("observation.words",)))


def test_a_damaged_file_costs_its_episodes(tmp_path: Path, processor: str) -> None:
    """Seven episodes in three files; the second is cut short, an episode of the third is empty."""
    import pyarrow.parquet as pq

    recorded = played(PENDULUM, 7)
    folder = lerobot_folder(tmp_path / "robot", recorded)
    second, third = (folder / f"data/chunk-000/file-00{i}.parquet" for i in (1, 2))
    second.write_bytes(second.read_bytes()[:-10])
    pq.write_table(pq.read_table(third).slice(3), third)
    words = (
        "episode 3: .*file-001.parquet cannot be read as parquet: it is .* cut short.*--skip-bad"
    )
    with pytest.raises(GeneralistError, match=words):
        import_source(LeRobotSource(folder), "robot/p", tmp_path / "a", processor=processor)
    report = import_source(
        LeRobotSource(folder), "robot/p", tmp_path / "b", skip_bad=True, processor=processor
    )
    assert (report.episodes, report.left_out) == (3, 4)
    assert "file-001.parquet" in report.reasons[2] and "episode 5" in report.reasons[2]
    steps = recorded[6].steps
    assert f"it has {steps - 3} rows, where meta/episodes says {steps}" in report.reasons[3]


def test_episodes_that_are_not_in_their_file(tmp_path: Path, processor: str) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    recorded = played(PENDULUM, 3)
    folder = lerobot_folder(tmp_path / "robot", recorded)
    path = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.filter(pc.not_equal(table["episode_index"], 1)), path)
    report = import_source(
        LeRobotSource(folder), "robot/p", tmp_path / "out", skip_bad=True, processor=processor
    )
    assert (report.episodes, report.left_out) == (2, 1)
    assert report.reasons[0].startswith("episode 1: ") and "has no rows of it" in report.reasons[0]


def test_steps_out_of_order_are_named(tmp_path: Path, processor: str) -> None:
    import pyarrow.parquet as pq

    recorded = played(PENDULUM, 2)
    folder = lerobot_folder(tmp_path / "robot", recorded)
    path = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    first = recorded[0].steps
    rows = [*range(first), first + 1, first, *range(first + 2, len(table))]
    pq.write_table(table.take(rows), path)
    words = f"episode 1: frame_index does not rise at step 1, row {first + 1} of .*file-000.parquet"
    with pytest.raises(GeneralistError, match=words):
        import_source(LeRobotSource(folder), "robot/p", tmp_path / "out", processor=processor)


@pytest.mark.parametrize("path", ["../../{chunk_index}/x.parquet", "/etc/{chunk_index}", "{other}"])
def test_files_lie_within_the_folder(tmp_path: Path, path: str) -> None:
    folder = lerobot_folder(tmp_path / "robot", played(PENDULUM, 1))
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps({**info, "data_path": path}))
    with pytest.raises(GeneralistError, match="data_path .* names no file of the dataset"):
        list(LeRobotSource(folder).recordings(0))


def test_incomplete_descriptions_are_said(tmp_path: Path) -> None:
    folder = lerobot_folder(tmp_path / "robot", played(PENDULUM, 1))
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    for broken in ({"codebase_version": "v3.0"}, {**info, "features": []}, {**info, "data_path": 3},
                   {**info, "features": {"action": {"shape": [1]}}}):  # fmt: skip
        path.write_text(json.dumps(broken))
        with pytest.raises(GeneralistError, match="info.json is incomplete"):
            LeRobotSource(folder)
    path.write_text("[1]")
    with pytest.raises(GeneralistError, match="version unknown; v3 is read"):
        LeRobotSource(folder)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(GeneralistError, match="info.json is a Git LFS pointer"):
        LeRobotSource(folder)
    path.write_text(json.dumps(info))
    stats = folder / "meta/stats.json"
    stats.write_text(json.dumps({"action": {"min": [0, 1]}, "observation.state": {}}))
    with pytest.raises(GeneralistError, match="stats.json has no least and greatest value"):
        LeRobotSource(folder).spaces()
