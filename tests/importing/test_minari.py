"""Minari datasets, recorded by Minari's own DataCollector."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces, wrappers

import generalist
from generalist.cli.main import main
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


def collection_of(folder: Path) -> dict:
    return DatasetHeader.read(folder).collection


def test_what_the_environment_was_made_with_comes_along(tmp_path: Path, processor: str) -> None:
    """Lunar Lander with throttled thrusters and wind: other actions than those of its id."""
    env = gymnasium.make(
        "LunarLander-v3", continuous=True, gravity=-5.0, render_mode="rgb_array",
        max_episode_steps=60,
    )  # fmt: skip
    folder = minari_dataset(tmp_path, 2, env=env)
    source = MinariSource(str(folder))
    report = import_source(source, source.task, tmp_path / "out", processor=processor)
    assert report.spaces == "the environment's, gym/LunarLander-v3" and not report.notes
    assert_same(tmp_path / "out" / source.task, processor, recorded_by_minari(folder, source.task))
    collection = collection_of(tmp_path / "out" / source.task)
    assert collection["options"] == {"continuous": True, "gravity": -5.0, "max_steps": 60}
    assert collection["wrappers_lost"] == []
    assert collection["environment"]["id"] == "LunarLander-v3"
    again = generalist.make(source.task, **collection["options"])
    assert again.action_space.shape == (2,) and again.unwrapped.gravity == -5.0


def test_the_options_belong_to_the_recorded_environment(tmp_path: Path, processor: str) -> None:
    env = gymnasium.make("CartPole-v1", sutton_barto_reward=True, max_episode_steps=40)
    source = MinariSource(str(minari_dataset(tmp_path, 2, env=env)))
    import_source(source, "mine/Cart", tmp_path / "out", processor=processor)
    collection = collection_of(tmp_path / "out/mine/Cart")
    assert "options" not in collection and collection["environment"]["id"] == "CartPole-v1"
    assert collection["environment"]["kwargs"] == {"sutton_barto_reward": True}


def test_gymnasiums_own_wrappers_are_made_again(tmp_path: Path, processor: str) -> None:
    env = wrappers.RescaleAction(gymnasium.make("Pendulum-v1", max_episode_steps=40), -1.0, 1.0)
    env = wrappers.RecordEpisodeStatistics(wrappers.TimeAwareObservation(env))
    folder = minari_dataset(tmp_path, 2, env=env)
    source = MinariSource(str(folder))
    report = import_source(source, source.task, tmp_path / "out", processor=processor)
    assert report.spaces == "the environment's, gym/Pendulum-v1" and not report.notes
    assert_same(tmp_path / "out" / source.task, processor, recorded_by_minari(folder, source.task))
    options = collection_of(tmp_path / "out" / source.task)["options"]
    again = generalist.make(source.task, **options)
    assert again.observation_space == env.observation_space
    assert again.action_space == env.action_space
    again.reset(seed=0), env.reset(seed=0)
    for action in (-1.0, 0.5, 1.0):
        (seen, reward, *_), (wanted, other, *_) = (
            each.step(np.array([action], np.float32)) for each in (again, env)
        )
        np.testing.assert_allclose(seen, wanted), np.testing.assert_allclose(reward, other)


class Doubled(gymnasium.ActionWrapper, gymnasium.utils.RecordConstructorArgs):
    """A wrapper of somebody's own."""

    def __init__(self, env: gymnasium.Env, times: float = 2.0) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, times=times)
        super().__init__(env)

    def action(self, action: np.ndarray) -> np.ndarray:
        return action * 2


def test_wrappers_of_others_are_named_and_never_imported(tmp_path: Path, processor: str) -> None:
    env = Doubled(gymnasium.make("Pendulum-v1", max_episode_steps=40))
    source = MinariSource(str(minari_dataset(tmp_path, 2, env=wrappers.FlattenObservation(env))))
    report = import_source(source, source.task, tmp_path / "out", processor=processor)
    assert report.spaces == "the dataset's own"
    (note,) = report.notes
    assert note.startswith("Doubled wrapped the environment and cannot be made again")
    collection = collection_of(tmp_path / "out" / source.task)
    assert collection["wrappers_lost"] == ["Doubled"] and "wrappers" not in collection["options"]
    with pytest.raises(UsageError, match="no wrapper 'Doubled'; there are"):
        generalist.make(source.task, wrappers=[{"name": "Doubled", "kwargs": {}}])
    with pytest.raises(UsageError, match="RescaleAction cannot be made of"):
        generalist.make(source.task, wrappers=[{"name": "RescaleAction", "kwargs": {"x": 1}}])


def edit_metadata(folder: Path, **changes) -> None:
    path = folder / "data" / "metadata.json"
    metadata = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in metadata.items() if value}))


def test_a_dataset_names_no_module_that_is_imported(tmp_path: Path, capsys) -> None:
    folder = minari_dataset(tmp_path, 1)
    spec = json.loads(json.loads((folder / "data/metadata.json").read_text())["env_spec"])
    edit_metadata(folder, env_spec=json.dumps({**spec, "id": "this:Cart-v1"}))
    assert main(["import", "minari", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "would import a module" in capsys.readouterr().err and "this" not in sys.modules
    edit_metadata(folder, env_spec=json.dumps({**spec, "entry_point": "this:Cart"}),
                  observation_space=None)  # fmt: skip
    with pytest.raises(GeneralistError, match="metadata.json does not state the spaces"):
        MinariSource(str(folder))
    assert "this" not in sys.modules
    edit_metadata(folder, env_spec=None)


def test_an_environment_that_is_not_said(tmp_path: Path, capsys) -> None:
    folder = minari_dataset(tmp_path, 1)
    edit_metadata(folder, env_spec=None)
    assert main(["import", "minari", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "does not say which environment it is of: add --task NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("main_data.hdf5", None, "main_data.hdf5 cannot be read as HDF5"),
        ("main_data.hdf5", b"version https://git-lfs", "main_data.hdf5 is a Git LFS pointer"),
        ("main_data.hdf5", b"", "main_data.hdf5 is empty"),
        ("metadata.json", b"version https://git-lfs", "metadata.json is a Git LFS pointer"),
        ("metadata.json", b"{", "metadata.json cannot be read as JSON"),
        ("metadata.json", b"{}", "metadata.json does not state the spaces"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, file: str, content, words: str) -> None:
    folder = minari_dataset(tmp_path, 2)
    path = folder / "data" / file
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(GeneralistError, match=words):
        MinariSource(str(folder))


def test_an_id_without_its_version_names_those_that_are_there(tmp_path: Path) -> None:
    for version in (0, 3):
        (tmp_path / "minari" / "test" / f"random-v{version}").mkdir(parents=True)
    with pytest.raises(UsageError, match="Here there are test/random-v0, test/random-v3"):
        MinariSource("test/random")
    with pytest.raises(UsageError, match="Say which, as in test/other-v0"):
        MinariSource("test/other")
    folder = minari_dataset(tmp_path, 1)
    edit_metadata(folder, dataset_id="test/random")
    with pytest.raises(GeneralistError, match="cannot be opened"):
        MinariSource(str(folder))
