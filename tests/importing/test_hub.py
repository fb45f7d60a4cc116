"""Datasets of Hugging Face's `datasets`, written by that package: saved folders and parquet."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from generalist.episode import Episode
from generalist.errors import GeneralistError, UsageError
from generalist.importing.hub import HubSource, open_table
from generalist.importing.rows import Columns
from generalist.importing.write import import_source
from generalist.shards.manifest import DatasetHeader
from generalist.shards.reader import TaskData
from tests.importing.conftest import assert_same, steps_table, write_parts
from tests.importing.recorded import CARTPOLE, PENDULUM, episode_rows, played, step_rows

OWN = Columns(observation=("seen",), action=("pushed",), reward="points", episode="number")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def saved(columns: dict[str, Any], folder: Path, form: str, **features: Any) -> str:
    """The path of the columns as a dataset of one of the forms that are read."""
    dataset = datasets.Dataset.from_dict(columns)
    for name, feature in features.items():
        dataset = dataset.cast_column(name, feature)
    if form == "disk":
        dataset.save_to_disk(folder / "disk")
        return str(folder / "disk")
    if form == "splits":
        datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(folder / "splits")
        return str(folder / "splits")
    half = len(dataset) // 2
    (folder / "parquet").mkdir()
    for part, rows in enumerate((range(half), range(half, len(dataset)))):
        dataset.select(rows).to_parquet(folder / "parquet" / f"part-{part}.parquet")
    return str(folder / "parquet")


@pytest.mark.parametrize("form", ["disk", "splits", "parquet"])
def test_round_trip_of_the_jat_datasets_columns(tmp_path: Path, processor: str, form: str) -> None:
    recorded = played(PENDULUM, 11)
    source = HubSource(saved(episode_rows(recorded), tmp_path, form))
    report = import_source(source, "jat/pendulum", tmp_path / "out", processor=processor)
    assert (report.added, report.spaces) == (11, "inferred")
    data = assert_same(tmp_path / "out/jat/pendulum", processor, recorded)
    assert {record["source"] for record in data.records} == {"import"}


@pytest.mark.parametrize("form", ["disk", "parquet"])
def test_round_trip_of_rows_that_are_steps(tmp_path: Path, processor: str, form: str) -> None:
    """Into the environment's own spaces, with columns of other names."""
    recorded = played(CARTPOLE, 9)
    source = HubSource(saved(step_rows(recorded), tmp_path, form), OWN)
    report = import_source(source, CARTPOLE, tmp_path / "out", processor=processor)
    assert report.spaces.startswith("the environment's")
    assert_same(tmp_path / "out" / CARTPOLE, processor, recorded)


def test_several_columns_and_an_instruction(tmp_path: Path, processor: str) -> None:
    recorded = played(CARTPOLE, 3)
    grids = [np.arange(e.steps * 6).reshape(e.steps, 6) % 5 for e in recorded]
    columns = episode_rows(recorded, "discrete_actions")
    columns["discrete_observations"] = [grid.tolist() for grid in grids]
    columns["text_observations"] = [["go left"] * e.steps for e in recorded]
    source = HubSource(saved(columns, tmp_path, "disk"))
    import_source(source, "jat/mixed", tmp_path / "out", processor=processor)
    both = [
        Episode("jat/mixed", {"continuous_observations": e.observations,
                              "discrete_observations": grid}, e.actions, e.rewards, False, True)
        for e, grid in zip(recorded, grids, strict=True)
    ]  # fmt: skip
    data = assert_same(tmp_path / "out/jat/mixed", processor, both)
    assert {record["instruction"] for record in data.records} == {"go left"}


def test_spaces_are_those_of_the_data(tmp_path: Path, processor: str) -> None:
    """Integers of the range that occurs; bounds only where the mu-law would not tell apart."""
    columns = {
        "observations": [[[0.5, 900.0], [-0.5, 300.0]], [[0.1, 5000.0], [0.2, 0.0]]],
        "actions": [[3, 1], [4, 0]],
        "rewards": [[0.0, 1.0], [0.0, 1.0]],
    }
    source = HubSource(saved(columns, tmp_path, "disk"))
    import_source(source, "own/Thing", tmp_path / "out", processor=processor)
    spaces = DatasetHeader.read(tmp_path / "out/own/Thing").spaces
    assert spaces["action"] == {"type": "Discrete", "shape": [], "dtype": "int64", "n": 5,
                                "start": 0}  # fmt: skip
    assert spaces["observation"]["low"] == ["-inf", 0.0]
    assert spaces["observation"]["high"] == ["inf", 5000.0]
    episodes = [
        Episode("own/Thing", np.array(o), np.array(a), np.array(r), False, True)
        for o, a, r in zip(*columns.values(), strict=True)
    ]
    assert_same(tmp_path / "out/own/Thing", processor, episodes)


def test_pictures_are_decoded_one_episode_at_a_time(tmp_path: Path) -> None:
    """As `datasets` embeds them; four channels are four grey frames, of which the last counts."""
    from generalist.importing.spaces import infer_spaces

    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 3, 40, 40, 4), np.uint8)
    for channels, expected in ((3, frames[..., :3]), (4, frames[..., 3:])):
        pictures = datasets.List(datasets.Image())
        columns = {
            "image_observations": [[frame[..., :channels] for frame in e] for e in frames],
            "discrete_actions": [[0, 1, 2]] * 2,
            "rewards": [[0.0] * 3] * 2,
        }
        features = datasets.Features({
            "image_observations": pictures,
            "discrete_actions": datasets.List(datasets.Value("int64")),
            "rewards": datasets.List(datasets.Value("float32")),
        })  # fmt: skip
        path = tmp_path / f"{channels}.parquet"
        datasets.Dataset.from_dict(columns, features).to_parquet(path)
        loads = list(HubSource(str(path)).recordings(0))
        observation, _ = infer_spaces(enumerate(loads))
        assert observation.shape == expected.shape[2:] and observation.dtype == np.uint8
        for load, wanted in zip(loads, expected, strict=True):
            np.testing.assert_array_equal(load().episode("a/b").observations, wanted)


def test_frames_become_codes_of_the_frame_tokenizer(tmp_path: Path) -> None:
    """Of a task that nobody can play, the recordings show what stands still."""
    from generalist.tokenization.processor import GeneralistProcessor

    processor = GeneralistProcessor.default()
    assert processor.frames is not None
    still = np.random.default_rng(0).integers(0, 256, (84, 84, 3), np.uint8)
    frames = np.repeat(still[None], 20, axis=0)
    for step in range(20):
        frames[step, :14, 14 * (step % 5) : 14 * (step % 5 + 1)] = 255  # one patch, on its way
    columns = {
        "frame": [datasets.Image().encode_example(frame) for frame in frames],
        "action": [0, 1] * 10,
        "reward": [0.0] * 20,
        "episode": [0] * 10 + [1] * 10,
    }
    path = saved(columns, tmp_path, "disk", frame=datasets.Image())
    source = HubSource(path, Columns(observation=("frame",)))
    import_source(source, "own/Frames", tmp_path / "out", episodes=1)
    first = TaskData(tmp_path / "out/own/Frames").layout
    import_source(source, "own/Frames", tmp_path / "out")
    data = TaskData(tmp_path / "out/own/Frames", processor)
    assert [record["steps"] for record in data.records] == [10, 10]
    assert data.layout == first, "more episodes have the background of the first"
    part = data.layout.fields[0]
    codes = data.tokens(0).reshape(10, -1)[:, :36].astype(int) - part.start
    assert ((codes != processor.frames.still_code).sum(axis=1) == 1).all()
    seen = processor.decode(data.tokens(0), data.layout).observations
    np.testing.assert_array_equal(seen[:, 14:], frames[:10, 14:])


def test_columns_that_are_missing(tmp_path: Path) -> None:
    path = saved(step_rows(played(CARTPOLE, 1)), tmp_path, "disk")
    words = "no column is known to be the observation; there are seen, pushed, points, number"
    with pytest.raises(UsageError, match=words):
        HubSource(path)
    with pytest.raises(UsageError, match="no column 'saw' for the observation; there are seen"):
        HubSource(path, Columns(observation=("saw",)))
    columns = Columns(observation=("seen",), action=("pushed",), reward="points")
    with pytest.raises(UsageError, match="number the episodes.*--episode-column"):
        HubSource(path, columns)


def test_shapes_that_differ_name_the_episode(tmp_path: Path, processor: str) -> None:
    columns = {
        "observations": [[[0.0, 1.0]] * 2, [[0.0, 1.0, 2.0]] * 2],
        "actions": [[0, 1], [0, 1]],
        "rewards": [[0.0, 0.0]] * 2,
    }
    source = HubSource(saved(columns, tmp_path, "disk"))
    with pytest.raises(GeneralistError, match=r"episode 1: observation has shape \(3,\)"):
        import_source(source, "own/Thing", tmp_path / "out", processor=processor)
    columns["observations"] = [[[0.0, 1.0]] * 2, [[0.0, 1.0], [0.0]]]
    path = tmp_path / "ragged.parquet"
    datasets.Dataset.from_dict(columns).to_parquet(path)
    words = "episode 1: observations has 1 elements at step 1, 2 before it"
    with pytest.raises(GeneralistError, match=words):
        import_source(HubSource(str(path)), "own/Thing", tmp_path / "out", processor=processor)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("observations", [[0.0, 1.0], [0.0, float("nan")]],
         "episode 1: observation is nan at step 1, element 1"),
        ("rewards", [0.0, float("inf")], "episode 1: reward is inf at step 1"),
        ("rewards", [0.0], "episode 1"),
        ("actions", [None, 1], "episode 1: actions has no value at step 0"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_kept(
    tmp_path: Path, processor: str, column: str, value: list, words: str
) -> None:
    columns = {
        "observations": [[[0.0, 1.0]] * 2] * 3,
        "actions": [[0, 1]] * 3,
        "rewards": [[0.0, 0.0]] * 3,
    }
    columns[column][1] = value
    source = HubSource(saved(columns, tmp_path, "disk"))
    with pytest.raises(GeneralistError, match=words):
        import_source(source, "own/Thing", tmp_path / "out", processor=processor)
    report = import_source(
        source, "own/Thing", tmp_path / "out", skip_bad=True, processor=processor
    )
    assert (report.episodes, report.left_out) == (2, 1)


def test_what_is_left_out_is_counted_named_and_does_not_shape_the_rest(
    tmp_path: Path, processor: str
) -> None:
    """The first recording is the odd one: the spaces are those of most."""
    columns = {
        "observations": [[[1e9] * 3] * 2, [[0.0, 1.0]] * 2, [], [[0.0, 1.0]] * 2, [[0.0, 1.0]] * 2],
        "actions": [[0, 1], [0, 1], [], [0, 1], [0, 300]],
        "rewards": [[0.0, 0.0], [0.0, 0.0], [], [0.0, 0.0], [0.0, float("nan")]],
    }
    path = saved(columns, tmp_path, "disk")
    words = "episode 1: observation has shape .2,.* It stands in row 1 of .*disk.*--skip-bad"
    with pytest.raises(GeneralistError, match=words):
        import_source(HubSource(path), "own/Thing", tmp_path / "out", processor=processor)
    assert not (tmp_path / "out/own/Thing").exists()
    report = import_source(
        HubSource(path), "own/Thing", tmp_path / "out", skip_bad=True, processor=processor
    )
    assert (report.episodes, report.left_out) == (2, 3)
    starts = ["episode 0: own/Thing: observation", "episode 2: it has no steps",
              "episode 4: reward is nan at step 1"]  # fmt: skip
    for reason, start in zip(report.reasons, starts, strict=True):
        assert reason.startswith(start) and "row" in reason
    spaces = DatasetHeader.read(tmp_path / "out/own/Thing").spaces
    assert spaces["observation"]["shape"] == [2] and spaces["action"]["n"] == 2
    again = import_source(
        HubSource(path), "own/Thing", tmp_path / "out", skip_bad=True, processor=processor
    )
    assert (again.episodes, again.added, again.left_out) == (2, 0, 0)


def test_if_nothing_can_be_kept_the_first_reason_is_said(tmp_path: Path, processor: str) -> None:
    columns = {"observations": [[]] * 2, "actions": [[]] * 2, "rewards": [[]] * 2}
    features = datasets.Features({
        "observations": datasets.List(datasets.List(datasets.Value("float32"))),
        "actions": datasets.List(datasets.Value("int64")),
        "rewards": datasets.List(datasets.Value("float32")),
    })  # fmt: skip
    datasets.Dataset.from_dict(columns, features).save_to_disk(tmp_path / "disk")
    source = HubSource(str(tmp_path / "disk"))
    for task in ("own/Thing", CARTPOLE):
        with pytest.raises(GeneralistError, match="no episode .*episode 0: it has no steps"):
            import_source(source, task, tmp_path / "out", skip_bad=True, processor=processor)


def picture(frame: np.ndarray, form: str = "PNG") -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize("bad", ["cut", "no picture", "deep", "size", "none", "broken"])
def test_bad_pictures_can_be_left_out(tmp_path: Path, bad: str) -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (40, 40, 3), np.uint8)
    good = picture(frame)
    content, words = {
        "cut": (good[: len(good) // 2], "the picture at step . cannot be read"),
        "no picture": (b"nothing", "the picture at step . cannot be read"),
        "deep": (picture(np.full((40, 40), 40_000, np.uint16)), "has more than 8 bits a pixel"),
        "size": (picture(frame[:20]), "has shape"),
        "none": (None, "names a file in place of its picture at step ."),
        "broken": (good[:40] + bytes(20) + good[60:], "the picture at step . cannot be read"),
    }[bad]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = [[good, good], [good, content], [content, content], [good, good]]
    table = pa.table({
        "image_observations": pa.array(
            [[{"bytes": each, "path": "x.png"} for each in episode] for episode in pictures],
            pa.list_(kind),
        ),
        "actions": [[0, 1]] * 4,
        "rewards": [[0.0, 0.0]] * 4,
    })  # fmt: skip
    source = HubSource(str(write_parts(tmp_path / "data", [table])))
    with pytest.raises(GeneralistError, match=f"episode [12]: .*{words}.*row [12] of"):
        import_source(source, "own/T", tmp_path / "out")
    report = import_source(source, "own/T", tmp_path / "out", skip_bad=True)
    assert (report.episodes, report.left_out) == (2, 2)
    assert "row 1 of" in report.reasons[0] and "row 2 of" in report.reasons[1]


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("reward", pa.array([[0.0, 1.0]] * 2), "reward holds values of shape"),
        ("reward", pa.array(["a", "b"]), "reward holds text"),
        ("done", pa.array(["a", "b"]), "done holds text"),
        ("instruction", pa.array([1, 2]), "instruction holds values of type int64"),
        ("instruction", pa.array([["a"], ["b"]]), "instruction holds values of type list"),
        ("instruction", pa.array(["a", "b"]), "instruction changes within the episode"),
        ("observation", pa.array([{"x": None}, {"x": 1.0}]), "observation/x has no value"),
        ("observation", pa.array([[1.0, 2.0], [3.0, None]]), "observation has no value at step 1"),
        ("observation", pa.array([datetime.date(2026, 1, 1)] * 2), "observation holds values of"),
        ("action", pa.array([None, None]), "action has no value at step 0"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind_are_named(
    tmp_path: Path, processor: str, column: str, values: pa.Array, words: str
) -> None:
    table = steps_table([0, 0])
    if column in table.column_names:
        table = table.drop_columns(column)
    folder = write_parts(tmp_path / "data", [table.append_column(column, values)])
    with pytest.raises(GeneralistError, match=f"episode 0: {words}.*rows 0 to 1 of"):
        import_source(HubSource(str(folder)), "own/T", tmp_path / "out", processor=processor)


def test_lists_of_one_number_a_step_are_steps(tmp_path: Path, processor: str) -> None:
    """As LeRobot's files look when they are read by their parquet alone."""
    one = pa.FixedSizeListArray.from_arrays(pa.array([0.5, 1.5, 2.5]), 1)
    table = steps_table([0, 0, 1]).drop_columns("reward").append_column("reward", one)
    first, second = HubSource(str(write_parts(tmp_path / "data", [table]))).recordings(0)
    assert first().rewards.tolist() == [0.5, 1.5] and second().rewards.tolist() == [2.5]


def test_a_saved_dataset_whose_file_is_a_pointer(tmp_path: Path) -> None:
    path = Path(saved(episode_rows(played(CARTPOLE, 1)), tmp_path, "disk"))
    (data,) = path.glob("*.arrow")
    data.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(GeneralistError, match=f"{data.name} is a Git LFS pointer"):
        HubSource(str(path))
    state = json.loads((path / "state.json").read_text())
    state["_data_files"] = [{"filename": "../elsewhere.arrow"}]
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(GeneralistError, match="no name of a file within it"):
        HubSource(str(path))


def test_pickled_columns_stay_closed(tmp_path: Path, processor: str) -> None:
    import pickle

    columns = {
        "observations": [pickle.dumps(np.zeros(3))] * 2,
        "action": [0, 1],
        "reward": [0.0, 0.0],
        "episode": [0, 0],
    }
    source = HubSource(saved(columns, tmp_path, "disk"))
    with pytest.raises(GeneralistError, match="observations holds raw bytes, which may be pickled"):
        import_source(source, "own/Thing", tmp_path / "out", processor=processor)


def test_rows_of_an_episode_stand_together(tmp_path: Path, processor: str) -> None:
    columns = step_rows(played(CARTPOLE, 2))
    columns["number"][-1] = 10
    source = HubSource(saved(columns, tmp_path, "disk"), OWN)
    with pytest.raises(GeneralistError, match="episode 10 do not stand together"):
        import_source(source, CARTPOLE, tmp_path / "out", processor=processor)


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    path = saved(episode_rows(played(CARTPOLE, 1)), tmp_path / "data", "splits")
    with pytest.raises(UsageError, match="no split 'dev'; it has train, test"):
        open_table(path, split="dev")
    with pytest.raises(UsageError, match="neither a folder of `save_to_disk` nor"):
        open_table(str(tmp_path))


def test_without_a_network_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own switch for machines without one: the same error, without its retries."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(GeneralistError, match="server cannot be reached; go online"):
        open_table("jat-project/jat-dataset", config="mujoco-ant", split="train")
