from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from generalist.errors import GeneralistError, UsageError
from generalist.shards.validate import validate
from generalist.windows.mixture import corrections_below, earlier_corrections, open_mixture
from generalist.windows.spec import DatasetSpec, dataset_spec
from tests.bits import every_bit
from tests.dataset_folders import control_layout, grid_layout, write_task

CARTPOLE = {"task": "gym/CartPole-v1", "episodes": 3}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"tasks": [{**CARTPOLE, "weigth": 2}]}, ["tasks.0.weigth", "did you mean 'weight'"]),
        ({"tasks": [{"task": "gym/CartPole-v1"}]}, ["gym/CartPole-v1", "how many episodes"]),
        ({"tasks": [CARTPOLE, CARTPOLE]}, ["listed twice"]),
        ({"tasks": [{**CARTPOLE, "task": "CartPole"}]}, ["tasks.0.task", "family/Name"]),
        ({"tasks": [{**CARTPOLE, "task": "gym/../x"}]}, ["tasks.0.task"]),
        ({"tasks": [{**CARTPOLE, "noise": 1.5}]}, ["tasks.0.noise", "from 0 to 1"]),
        ({"tasks": [{**CARTPOLE, "noise": []}]}, ["tasks.0.noise", "empty"]),
        ({"tasks": [CARTPOLE], "noise": -0.1}, ["noise", "from 0 to 1"]),
        ({"tasks": [CARTPOLE], "weights": {"dmc": 1}}, ["weights names 'dmc'", "(gym)"]),
        ({"tasks": [CARTPOLE], "weights": {"gym": -1}}, ["weight of gym is -1"]),
        ({"tasks": []}, ["tasks"]),
        ({"tasks": [CARTPOLE], "seed": 10}, ["seed is 10"]),
        ({}, ["tasks is missing"]),
    ],
)
def test_a_wrong_spec_is_one_sentence(data: dict, expected: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        dataset_spec(data, "my.yaml")
    message = str(error.value)
    assert message.startswith("my.yaml: ") and "\n" not in message
    for part in expected:
        assert part in message


def test_noise_levels_take_turns() -> None:
    levels = {**CARTPOLE, "noise": [0.0, 0.1, 0.3]}
    spec = dataset_spec({"noise": 0.5, "tasks": [levels, {"task": "gym/X-v0", "episodes": 2}]})
    assert [spec.noise_of(spec.tasks[0], i) for i in range(5)] == [0.0, 0.1, 0.3, 0.0, 0.1]
    assert spec.noise_of(spec.tasks[1], 7) == 0.5
    late = dataset_spec({"tasks": [{**CARTPOLE, "delay_steps": [0, 4]}]}).tasks[0]
    assert [late.delay_of(i) for i in range(3)] == [0, 4, 0]
    with pytest.raises(UsageError, match="the list of delays is empty"):
        dataset_spec({"tasks": [{**CARTPOLE, "delay_steps": []}]})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_task(tmp_path, "gym/A-v0", control_layout(), [10] * 3)
    write_task(tmp_path, "babyai/B", grid_layout(), [10] * 3)
    spec = {"tasks": [{"task": "gym/A-v0", "episodes": 3, "weight": 3.0}]}
    dataset_spec(spec).write(tmp_path)
    return tmp_path


def test_the_spec_beside_the_data_round_trips(root: Path) -> None:
    from generalist.specs import load_yaml

    spec = load_yaml(root / "spec.yaml", DatasetSpec)
    assert spec.tasks[0].weight == 3.0 and spec.noise == 0.2


def test_weights_come_from_the_caller_then_the_spec_then_one(root: Path) -> None:
    def weights(**given: float) -> dict[str, float]:
        mixture = open_mixture(root, {k.replace("_", "/", 1): v for k, v in given.items()})
        return {d.task: w for d, w in zip(mixture.tasks, mixture.weights, strict=True)}

    assert weights() == {"gym/A-v0": 3.0, "babyai/B": 1.0}
    assert weights(babyai_B=5.0) == {"gym/A-v0": 3.0, "babyai/B": 5.0}
    assert weights(babyai_B=0.0) == {"gym/A-v0": 3.0}


def test_families_are_weighed_by_the_caller_and_by_the_spec(tmp_path: Path) -> None:
    names = ["gym/A-v0", "gym/B-v0", "gym/C-v0", "dmc/d"]
    for name in names:
        write_task(tmp_path, name, control_layout(), [10])
    tasks = [{"task": name, "episodes": 1} for name in names]
    tasks[0]["weight"] = 1.0
    dataset_spec({"weights": {"gym": 6.0}, "tasks": tasks}).write(tmp_path)

    def weights(given: dict[str, float]) -> list[float]:
        mixture = open_mixture(tmp_path, given)
        return [dict(zip([d.task for d in mixture.tasks], mixture.weights, strict=True))[name]
                for name in names]  # fmt: skip

    assert weights({}) == [1.0, 3.0, 3.0, 1.0]
    assert weights({"gym": 14.0}) == [2.0, 6.0, 6.0, 1.0]
    assert weights({"gym": 14.0, "gym/C-v0": 5.0}) == [3.5, 10.5, 5.0, 1.0]


def test_a_weight_for_a_task_that_is_not_there(root: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'babyai/B'"):
        open_mixture(root, {"babyai/Bb": 1.0})
    with pytest.raises(GeneralistError, match="no episode is left"):
        open_mixture(root, {"babyai/B": 0, "gym/A-v0": 0})


def test_several_roots_are_one_mixture(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("more")
    write_task(other, "gym/C-v0", control_layout(), [10])
    mixture = open_mixture([root, other])
    assert [data.task for data in mixture.tasks] == ["babyai/B", "gym/A-v0", "gym/C-v0"]
    assert not mixture.damaged


def test_a_task_in_two_roots_has_its_weight_once(root: Path, tmp_path_factory) -> None:
    more = tmp_path_factory.mktemp("more")
    write_task(more, "babyai/B", grid_layout(), [10] * 9)
    mixture = open_mixture([root, more])
    weights = dict.fromkeys((data.task for data in mixture.tasks), 0.0)
    for data, weight in zip(mixture.tasks, mixture.weights, strict=True):
        weights[data.task] += weight
    assert weights == {"babyai/B": pytest.approx(1.0), "gym/A-v0": 3.0}
    parts = {data.folder: w for data, w in zip(mixture.tasks, mixture.weights, strict=True)}
    assert parts[more / "babyai/B"] == pytest.approx(3 * parts[root / "babyai/B"])  # by steps
    for given, whole in (({"babyai/B": 8.0}, 8.0), ({"babyai": 4.0}, 4.0)):
        mixture = open_mixture([root, more], given)
        found = [w for d, w in zip(mixture.tasks, mixture.weights, strict=True) if "B" in d.task]
        assert found == pytest.approx([whole / 4, 3 * whole / 4])
    mixture = open_mixture([root, more], task_temperature=1)
    found = {data.folder: w for data, w in zip(mixture.tasks, mixture.weights, strict=True)}
    assert found[more / "babyai/B"] == pytest.approx(3 * found[root / "babyai/B"])
    whole = sum(w for folder, w in found.items() if folder.name == "B")
    assert whole / found[root / "gym/A-v0"] == pytest.approx(120 * 51 / (30 * 6))


def test_specs_that_disagree_count_by_the_timesteps_collected_with_each(tmp_path: Path) -> None:
    for name, lengths, weight in (("one", [10] * 3, 2.0), ("two", [10], 6.0), ("none", [10], 0.0)):
        write_task(tmp_path / name, "gym/A-v0", control_layout(), lengths)
        entry = {"task": "gym/A-v0", "episodes": 3, "weight": weight}
        dataset_spec({"tasks": [entry]}).write(tmp_path / name)
    mixture = open_mixture([tmp_path / name for name in ("one", "two", "none")])
    assert mixture.weights == pytest.approx([3 * 0.75, 3 * 0.25])  # 3/4 of 2 and 1/4 of 6
    mixture = open_mixture([tmp_path / name for name in ("one", "two", "none")], {"gym/A-v0": 5.0})
    assert mixture.weights == pytest.approx([3.0, 1.0, 1.0])


def test_a_folder_that_two_roots_lead_to_is_taken_once(root: Path, tmp_path_factory) -> None:
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(root)
    for roots in ([root, root], [root, root / "gym"], [root, link]):
        assert open_mixture(roots).weights == open_mixture(root).weights


def test_two_layouts_of_a_task_are_refused_by_name_and_folders(root: Path) -> None:
    write_task(root / "more", "gym/A-v0", control_layout(4), [10])
    with pytest.raises(GeneralistError, match="two layouts") as error:
        open_mixture(root)
    for part in ("gym/A-v0", str(root / "gym/A-v0"), str(root / "more/gym/A-v0")):
        assert part in str(error.value)


def test_rounds_without_episodes_take_no_weight(root: Path, tmp_path: Path) -> None:
    write_task(tmp_path / "round", "gym/A-v0", control_layout(), [])
    write_task(tmp_path / "round", "gym/Gone-v0", control_layout(), [10])
    mixture = open_mixture([root / "gym", root / "babyai"])
    before = list(mixture.weights)
    mixture.add_corrections(corrections_below([tmp_path / "round"]), 0.5)
    assert mixture.weights == before and len(mixture.tasks) == 2


def test_corrections_that_two_roots_lead_to_are_taken_once(root: Path, tmp_path: Path) -> None:
    tasks, run = open_mixture([root / "gym", root / "babyai"]).tasks, tmp_path / "run"
    for name in ("round-1", "round-2"):
        write_task(run / name, "gym/A-v0", control_layout(), [10])
    (tmp_path / "link").symlink_to(run / "round-2")
    found = earlier_corrections([run, run / "round-1", tmp_path / "link"], tasks)
    folders = [data.folder for data in found]
    assert folders == [run / "round-1" / "gym/A-v0", run / "round-2" / "gym/A-v0"]


def test_corrections_in_another_layout_are_refused(root: Path, tmp_path: Path) -> None:
    write_task(tmp_path / "round", "gym/A-v0", control_layout(4), [10])
    mixture = open_mixture([root / "gym", root / "babyai"])
    with pytest.raises(GeneralistError, match="two layouts.*another shape"):
        mixture.add_corrections(corrections_below([tmp_path / "round"]), 0.5)


ROWS = """
import sys, hashlib, numpy as np
import os
import subprocess
import sys
from pathlib import Path
from generalist.windows.mixture import corrections_below, open_mixture
from generalist.windows.windows import WindowSampler
mixture = open_mixture(sys.argv[1])
mixture.add_corrections(corrections_below([Path(sys.argv[2])]), 0.5)
header = lambda data, instruction: np.array([8193, 100 + len(data.task)])
batch = WindowSampler(mixture.tasks, mixture.weights, header, window_tokens=256).batch(0, 50)
print([data.task for data in mixture.tasks], hashlib.sha256(batch.input_ids.tobytes()).hexdigest())
"""


def test_rows_do_not_depend_on_the_hash_seed_of_the_process(tmp_path: Path) -> None:
    for name in ("gym/A-v0", "gym/Bb-v0", "gym/Ccc-v0"):
        write_task(tmp_path / "data", name, control_layout(), [30] * 3)
        write_task(tmp_path / "round", name, control_layout(), [20] * 3)
    found = set()
    for seed in (1, 2, 5):
        # Three tasks stand in another order in a set under each of these three seeds.
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", ROWS, str(tmp_path / "data"), str(tmp_path / "round")]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        found.add(result.stdout)
    assert len(found) == 1, found


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_the_stored_spec_is_named(tmp_path: Path, every: int) -> None:
    """Else a weight would be another one without a word."""
    write_task(tmp_path, "gym/CartPole-v1", control_layout(), [25] * 2)
    write_task(tmp_path, "gym/Pendulum-v1", control_layout(), [25] * 2)
    tasks = [{**CARTPOLE, "weight": 3.0}, {"task": "gym/Pendulum-v1", "episodes": 2}]
    dataset_spec({"tasks": tasks}).write(tmp_path)
    path, expected = tmp_path / "spec.yaml", open_mixture(tmp_path).weights
    written = path.read_bytes()
    for damaged in every_bit(written, every):
        path.write_bytes(damaged)
        try:
            assert open_mixture(tmp_path).weights == expected
            assert damaged.split(b"\n", 1)[1] == written.split(b"\n", 1)[1]
        except GeneralistError as error:
            assert str(path) in str(error)
            problem = validate(tmp_path).spec_problem
            assert problem is None or str(path) in problem
    by_hand = written.split(b"\n", 1)[1].replace(b"3.0", b"4.0")
    path.write_bytes(by_hand)
    assert open_mixture(tmp_path).weights[0] == 4.0 and validate(tmp_path).ok
