from __future__ import annotations

from pathlib import Path

import pytest

from generalist.errors import GeneralistError, UsageError
from generalist.shards.shards import EVALUATION_SEEDS_FROM
from generalist.windows.mixture import open_mixture
from generalist.windows.spec import DatasetSpec, dataset_spec
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


def test_no_spec_reaches_the_seeds_of_evaluation() -> None:
    last = max(range(10), key=lambda seed: dataset_spec({"tasks": [CARTPOLE], "seed": seed}).seed)
    spec = dataset_spec({"tasks": [{**CARTPOLE, "episodes": 100_000}], "seed": last})
    assert spec.first_seed + spec.tasks[0].episodes <= EVALUATION_SEEDS_FROM
    with pytest.raises(UsageError):
        dataset_spec({"tasks": [{**CARTPOLE, "episodes": 100_001}]})


def test_noise_levels_take_turns() -> None:
    levels = {**CARTPOLE, "noise": [0.0, 0.1, 0.3]}
    spec = dataset_spec({"noise": 0.5, "tasks": [levels, {"task": "gym/X-v0", "episodes": 2}]})
    assert [spec.noise_of(spec.tasks[0], i) for i in range(5)] == [0.0, 0.1, 0.3, 0.0, 0.1]
    assert spec.noise_of(spec.tasks[1], 7) == 0.5


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
