"""Minari datasets, recorded by Minari's own DataCollector."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces

from generalist.episode import Episode
from generalist.errors import GeneralistError, UsageError
from generalist.importing.minari import MinariSource
from generalist.importing.write import import_source
from generalist.shards.manifest import DatasetHeader
from tests.importing.conftest import assert_same
from tests.importing.recorded import minari_dataset, moved

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def recorded_by_minari(folder: Path, task: str) -> list[Episode]:
    """What Minari itself gives back, without the observation after the last step."""
    return [
        Episode(task, e.observations[: len(e)], e.actions, e.rewards,
                bool(e.terminations[-1]), bool(e.truncations[-1]))
        for e in minari.MinariDataset(str(folder / "data"))
    ]  # fmt: skip


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_round_trip(tmp_path: Path, processor: str, env_id: str, data_format: str) -> None:
    folder = minari_dataset(tmp_path, 5, env_id, data_format=data_format)
    source = MinariSource(str(folder))
    assert source.task == f"gym/{env_id}" and source.total == 5
    report = import_source(source, source.task, tmp_path / "out", processor=processor)
    assert (report.episodes, report.added, report.left_out) == (5, 5, 0)
    recorded = recorded_by_minari(folder, source.task)
    data = assert_same(tmp_path / "out" / source.task, processor, recorded)
    for record, episode in zip(data.records, recorded, strict=True):
        assert record["source"] == "import"
        assert record["terminated"] == episode.terminated
        assert record["return"] == pytest.approx(episode.return_)


def test_what_minaris_data_collector_recorded(tmp_path: Path, processor: str) -> None:
    pytest.importorskip("jax", reason="Minari's DataCollector needs it")
    env = minari.DataCollector(gymnasium.make("CartPole-v1", max_episode_steps=40))
    for seed in range(3):
        env.reset(seed=seed)
        ended = False
        while not ended:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            ended = terminated or truncated
    folder = moved(env.create_dataset("test/collected-v0"), tmp_path / "collected")
    source = MinariSource(str(folder))
    import_source(source, "gym/CartPole-v1", tmp_path / "out", processor=processor)
    recorded = recorded_by_minari(folder, "gym/CartPole-v1")
    assert_same(tmp_path / "out/gym/CartPole-v1", processor, recorded)


def test_a_task_unknown_here_gets_the_spaces_of_the_dataset(tmp_path: Path, processor: str) -> None:
    folder = minari_dataset(tmp_path, 2)
    report = import_source(MinariSource(str(folder)), "mine/Cart", tmp_path, processor=processor)
    assert report.spaces == "the dataset's own"
    spaces = DatasetHeader.read(tmp_path / "mine/Cart").spaces
    assert spaces["action"]["n"] == 2 and spaces["observation"]["shape"] == [4]
    assert_same(tmp_path / "mine/Cart", processor, recorded_by_minari(folder, "mine/Cart"))


def test_by_its_id(tmp_path: Path, processor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = minari_dataset(tmp_path, 2)
    home = tmp_path / "minari" / "test"
    home.mkdir(parents=True, exist_ok=True)
    folder.rename(home / "random-v0")
    assert MinariSource("test/random-v0").total == 2


def test_a_mission_becomes_the_instruction(tmp_path: Path, processor: str) -> None:
    """Recorded in minigrid, whose observations repeat the mission at every step."""
    import minigrid  # noqa: F401 - registers the environment

    env = gymnasium.make("BabyAI-GoToLocal-v0")
    # minigrid's own space of missions cannot be stored; Minari's published datasets have a Text.
    space = spaces.Dict({**env.observation_space.spaces, "mission": spaces.Text(200)})
    folder = minari_dataset(tmp_path, 3, "BabyAI-GoToLocal-v0", observation_space=space)
    source = MinariSource(str(folder))
    import_source(source, "mine/GoTo", tmp_path / "out", processor=processor)
    recorded = []
    for e in minari.MinariDataset(str(folder / "data")):
        observations = {key: e.observations[key][: len(e)] for key in ("direction", "image")}
        recorded.append(Episode("mine/GoTo", observations, e.actions, e.rewards, False, True))
    data = assert_same(tmp_path / "out/mine/GoTo", processor, recorded)
    missions = [e.observations["mission"][0] for e in minari.MinariDataset(str(folder / "data"))]
    assert [record["instruction"] for record in data.records] == missions


def test_spaces_other_than_the_environments_name_episode_and_field(
    tmp_path: Path, processor: str
) -> None:
    source = MinariSource(str(minari_dataset(tmp_path, 2)))
    words = r"random, episode 0: gym/Acrobot-v1: observation has shape \(4,\) a step.*\(6,\)"
    with pytest.raises(GeneralistError, match=words):
        import_source(source, "gym/Acrobot-v1", tmp_path, processor=processor)


def test_not_a_number_is_named_and_can_be_left_out(tmp_path: Path, processor: str) -> None:
    import h5py

    folder = minari_dataset(tmp_path, 3)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/observations"][4, 2] = np.nan
    source = MinariSource(str(folder))
    words = "episode 1: gym/CartPole-v1: observation is nan at step 4, element 2"
    with pytest.raises(GeneralistError, match=words):
        import_source(source, source.task, tmp_path, processor=processor)
    report = import_source(source, source.task, tmp_path, processor=processor, skip_bad=True)
    assert (report.episodes, report.left_out) == (2, 1)
    again = import_source(source, source.task, tmp_path, processor=processor, skip_bad=True)
    assert (again.episodes, again.added, again.left_out) == (2, 0, 0)


def test_what_is_no_dataset_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="is not a Minari dataset"):
        MinariSource(str(tmp_path))
    for name in ("no version", "no-version", "a/folder/elsewhere", "./one", "", "x-v", "/x-v0"):
        with pytest.raises(UsageError, match="name-vN|is not a Minari dataset"):
            MinariSource(name)
