"""`collect` on real environments, and on one that misbehaves."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generalist.collecting.collect import collect
from generalist.errors import GeneralistError, UsageError
from generalist.shards.manifest import DatasetHeader
from generalist.shards.reader import TaskData, dataset_folders
from generalist.tokenization.processor import GeneralistProcessor
from generalist.windows.spec import DatasetSpec, dataset_spec

TOY = "gym/tests.collecting.toy_env:Toy-v0"
EXPERT = "tests.collecting.toy_env:ToyExpert"


@pytest.fixture(scope="module")
def processor(without_frames: GeneralistProcessor, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("processor")
    without_frames.save_pretrained(folder)
    return str(folder)


def toy(episodes: int = 12, seed: int = 0, **task: Any) -> DatasetSpec:
    entry = {"task": TOY, "episodes": episodes, "expert": EXPERT, **task}
    return dataset_spec({"seed": seed, "tasks": [entry]})


def classic(episodes: int = 6) -> DatasetSpec:
    names = ["gym/CartPole-v1", "gym/Pendulum-v1"]
    return dataset_spec({"tasks": [{"task": name, "episodes": episodes} for name in names]})


def bytes_below(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path, processor: str) -> None:
    for workers in (0, 2):
        root = tmp_path / str(workers)
        report = collect(classic(), root, workers, progress=False, processor=processor)
        assert not report.failures
    assert bytes_below(tmp_path / "0") == bytes_below(tmp_path / "2")


def test_tokens_are_those_of_the_episodes(tmp_path: Path, processor: str) -> None:
    """Noise disturbs what is executed and leaves the labels: both come back from the shards."""
    from generalist.envs import make
    from generalist.experts.collect import collect_episode
    from generalist.experts.registry import get_expert

    collect(classic(4), tmp_path, 0, progress=False, processor=processor)
    loaded = GeneralistProcessor.from_pretrained(processor)
    for name in ("gym/CartPole-v1", "gym/Pendulum-v1"):
        data, env = TaskData(tmp_path / name, loaded), make(name)
        layout = loaded.layout(env.observation_space, env.action_space, task=name)
        assert data.layout == layout
        for seed in range(4):
            episode = collect_episode(env, name, get_expert(name), seed, noise=0.2)
            np.testing.assert_array_equal(data.tokens(seed), loaded.encode(episode, layout))
            np.testing.assert_array_equal(data.labels(seed), loaded.encode_labels(episode, layout))
            np.testing.assert_array_equal(data.rewards(seed), episode.rewards)
            record = data.record(seed)
            assert record["seed"] == seed and record["source"] == "expert"
            assert record["return"] == pytest.approx(episode.return_)
        assert any(record["relabelled"] for record in data.records)


def test_a_second_call_adds_nothing_and_more_episodes_are_added(
    tmp_path: Path, processor: str
) -> None:
    collect(toy(5), tmp_path, 0, progress=False, processor=processor)
    before = bytes_below(tmp_path)
    report = collect(toy(5), tmp_path, 0, progress=False, processor=processor)
    assert bytes_below(tmp_path) == before
    assert report.tasks[TOY].added == 0 and report.tasks[TOY].episodes == 5
    report = collect(toy(9), tmp_path, 0, progress=False, processor=processor)
    assert report.tasks[TOY].added == 4 and report.tasks[TOY].episodes == 9
    data = TaskData(tmp_path / TOY)
    assert [r["seed"] for r in data.records] == list(range(9))
    assert {r["instruction"] for r in data.records} == {"reach 0", "reach 1", "reach 2"}


def test_an_episode_that_fails_is_reported_and_tried_again(tmp_path: Path, processor: str) -> None:
    spec = toy(6, options={"raises_at": 2, "nan_at": 4})
    report = collect(spec, tmp_path, 0, progress=False, processor=processor)
    assert report.tasks[TOY].episodes == 4 and len(report.failures) == 2
    raised, nan = report.failures
    assert f"{TOY}, seed 2" in raised and "the simulator gave up" in raised
    assert "seed 4" in nan and "nan" in nan and "step 4" in nan
    assert json.loads((tmp_path / TOY / "failures.json").read_text()) == report.failures
    again = collect(spec, tmp_path, 0, progress=False, processor=processor)
    assert len(again.failures) == 2 and again.tasks[TOY].added == 0


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("fault", "place", "words"),
    [
        ("exception", "step 3", "KeyError: 'the simulator gave up'"),
        ("exit", "", "SystemExit: the simulator had enough"),
        ("reward", "step 3", "reward is an array of shape (1,)"),
        ("growth", "step 4", "observation has shape (3,)"),
        ("instruction", "", "instruction is a list"),
        ("half a character", "", "surrogates"),
    ],
)
def test_what_an_environment_does_wrong_is_named_and_costs_one_episode(
    tmp_path: Path, processor: str, workers: int, fault: str, place: str, words: str
) -> None:
    spec = toy(4, options={"fault": fault})
    report = collect(spec, tmp_path, workers, progress=False, processor=processor)
    (failure,) = report.failures
    assert TOY in failure and "seed 1" in failure and place in failure and words in failure
    assert "fault of generalist" not in failure and "\n" not in failure
    data = TaskData(tmp_path / TOY)
    assert [record["seed"] for record in data.records] == [0, 2, 3]
    # Mended, it is played: the seed was not left out for good.
    header = DatasetHeader.read(tmp_path / TOY)
    header.collection["options"] = {"fault": ""}
    header.write(tmp_path / TOY, {})
    spec = toy(4, options={"fault": ""})
    assert not collect(spec, tmp_path, 0, progress=False, processor=processor).failures
    assert [record["seed"] for record in TaskData(tmp_path / TOY).records] == [0, 2, 3, 1]


def test_a_task_of_which_no_episode_can_be_kept_is_an_error(tmp_path: Path, processor: str) -> None:
    """Said at the end: the tasks after it are collected."""
    fails = toy(1, options={"raises_at": 0}).tasks
    spec = dataset_spec({"tasks": [t.model_dump() for t in (*fails, *classic(1).tasks)]})
    with pytest.raises(GeneralistError, match="the simulator gave up"):
        collect(spec, tmp_path, 0, progress=False, processor=processor)
    assert [len(TaskData(tmp_path / task.task)) for task in classic().tasks] == [1, 1]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"task": "gym/CartPole-v9"}, "CartPole"),
        ({"task": "gym/CartPole-v1", "expert": "lqrr"}, "lqr"),
        ({"task": "gym/CartPole-v1", "options": {"wheels": 3}}, "wheels"),
    ],
)
def test_mistakes_show_before_anything_is_played(
    tmp_path: Path, processor: str, task: dict, message: str
) -> None:
    spec = dataset_spec({"tasks": [{"task": TOY, "episodes": 3, "expert": EXPERT}]})
    spec = dataset_spec({"tasks": [*spec.model_dump()["tasks"], {"episodes": 3, **task}]})
    with pytest.raises(UsageError, match=message):
        collect(spec, tmp_path, 0, progress=False, processor=processor)
    with pytest.raises(GeneralistError, match="no dataset"):
        dataset_folders(tmp_path)
    assert not list(tmp_path.iterdir())


def test_low_returns_are_left_out_and_not_tried_again(tmp_path: Path, processor: str) -> None:
    spec = toy(20, min_return=0.0)
    report = collect(spec, tmp_path, 0, progress=False, processor=processor)
    outcome = report.tasks[TOY]
    assert 0 < outcome.rejected < 20 and outcome.episodes + outcome.rejected == 20
    assert min(r["return"] for r in TaskData(tmp_path / TOY).records) >= 0
    again = collect(spec, tmp_path, 0, progress=False, processor=processor).tasks[TOY]
    assert (again.added, again.rejected) == (0, 0)


def test_two_ways_of_collecting_do_not_mix(tmp_path: Path, processor: str) -> None:
    collect(toy(2), tmp_path, 0, progress=False, processor=processor)
    with pytest.raises(GeneralistError, match="noise 0.2.* now says 0.5"):
        collect(toy(2, noise=0.5), tmp_path, 0, progress=False, processor=processor)
    late, how = tmp_path / "late", {"progress": False, "processor": processor}
    collect(toy(2, delay_steps=3), late, 0, **how)
    with pytest.raises(GeneralistError, match="delay_steps 3.* now says None"):
        collect(toy(4), late, 0, **how)


def test_seeds_follow_the_spec(tmp_path: Path, processor: str) -> None:
    collect(toy(3, seed=2), tmp_path, 0, progress=False, processor=processor)
    assert [r["seed"] for r in TaskData(tmp_path / TOY).records] == [200_000, 200_001, 200_002]


def test_the_random_policy_can_demonstrate(tmp_path: Path, processor: str) -> None:
    task = {"task": "gym/CartPole-v1", "episodes": 5, "expert": "random", "noise": 0.0}
    collect(dataset_spec({"tasks": [task]}), tmp_path, 0, progress=False, processor=processor)
    returns = [r["return"] for r in TaskData(tmp_path / "gym/CartPole-v1").records]
    assert 9 <= np.mean(returns) < 60


def test_a_task_can_be_cut(tmp_path: Path, processor: str) -> None:
    task = {"task": "gym/Pendulum-v1", "episodes": 2, "max_steps": 30}
    seen: list[tuple[str, int, int]] = []
    collect(
        dataset_spec({"tasks": [task]}),
        tmp_path,
        0,
        progress=False,
        on_progress=lambda *a: seen.append(a),
        processor=processor,
    )
    records = TaskData(tmp_path / "gym/Pendulum-v1").records
    assert [(r["steps"], r["truncated"]) for r in records] == [(30, True)] * 2
    assert seen == [("gym/Pendulum-v1", 1, 2), ("gym/Pendulum-v1", 2, 2)]


def test_bins_are_fitted_alike_in_every_process(tmp_path: Path, processor: str) -> None:
    from generalist.envs import make
    from generalist.experts.collect import collect_episode
    from generalist.experts.registry import get_expert

    name = "gym/LunarLander-v3"
    entry = {"task": name, "episodes": 4, "max_steps": 60, "noise": 0.0, "bins": "quantiles"}
    spec = dataset_spec({"tasks": [entry]})
    for workers in (0, 2):
        collect(spec, tmp_path / str(workers), workers, progress=False, processor=processor)
    assert bytes_below(tmp_path / "0") == bytes_below(tmp_path / "2")
    data = TaskData(tmp_path / "0" / name, GeneralistProcessor.from_pretrained(processor))
    assert [field.codec.kind for field in data.layout.fields] == ["quantile", "discrete"]
    episode = collect_episode(make(name), name, get_expert(name), seed=2, max_steps=60)
    ids = (
        data.tokens(2).reshape(60, -1)[:, data.layout.positions.of_role("observation")].astype(int)
    )
    seen = data.layout.decode("observation", ids, None)
    np.testing.assert_allclose(seen, episode.observations, atol=0.02)
    assert collect(spec, tmp_path / "0", 0, progress=False, processor=processor).failures == []
    with pytest.raises(GeneralistError, match="bins"):
        other = dataset_spec({"tasks": [{**entry, "bins": None}]})
        collect(other, tmp_path / "0", 0, progress=False, processor=processor)


def test_bins_of_what_are_no_real_numbers_are_refused(tmp_path: Path, processor: str) -> None:
    entry = {"task": "gym/Blackjack-v1", "episodes": 2, "expert": "random", "bins": "quantiles"}
    with pytest.raises(UsageError, match="gym/Blackjack-v1 cannot have bins quantiles"):
        spec = dataset_spec({"tasks": [entry]})
        collect(spec, tmp_path, 0, progress=False, processor=processor)


def test_spaces_are_described_in_json(tmp_path: Path, processor: str) -> None:
    collect(classic(1), tmp_path, 0, progress=False, processor=processor)
    spaces = DatasetHeader.read(tmp_path / "gym/CartPole-v1").spaces
    assert spaces["action"] == {
        "type": "Discrete",
        "shape": [],
        "dtype": "int64",
        "n": 2,
        "start": 0,
    }
    assert spaces["observation"]["type"] == "Box" and "inf" in spaces["observation"]["high"]


def test_a_process_that_dies_is_an_error_that_keeps_what_was_played(
    tmp_path: Path, processor: str
) -> None:
    spec = toy(60, options={"dies_at": 50})
    with pytest.raises(GeneralistError, match="A collecting process ended while playing"):
        collect(spec, tmp_path, 1, progress=False, processor=processor)
    seeds = [r["seed"] for r in TaskData(tmp_path / TOY).records]
    assert seeds == list(range(len(seeds))) and 0 < len(seeds) <= 50


def test_a_process_that_dies_before_the_first_episode_is_an_error(
    tmp_path: Path, processor: str
) -> None:
    spec = toy(2, options={"dies_when_made": True})
    with pytest.raises(GeneralistError, match="ended while opening.*fewer workers"):
        collect(spec, tmp_path, 1, progress=False, processor=processor)


def test_a_processor_that_cannot_be_loaded_is_said_before_any_process_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("concurrent.futures.ProcessPoolExecutor")
    with pytest.raises(GeneralistError, match="holds no processor"):
        collect(toy(2), tmp_path / "data", 2, progress=False, processor=str(tmp_path))


def test_processes_encode_with_the_processor_that_was_loaded(
    tmp_path: Path, processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of its folder while they start."""

    def load_and_remove(folder: str) -> GeneralistProcessor:
        loaded = GeneralistProcessor.from_pretrained(folder)
        shutil.rmtree(folder)
        return loaded

    copy = str(shutil.copytree(processor, tmp_path / "copy"))
    monkeypatch.setattr("generalist.tokenization.processor.load_processor", load_and_remove)
    report = collect(toy(2), tmp_path / "data", 1, progress=False, processor=copy)
    assert report.tasks[TOY].episodes == 2 and not report.failures


INTERRUPTED = """
import sys
from generalist.collecting.collect import collect
from tests.collecting.test_collect import toy

if __name__ == "__main__":
    spec = toy(40, options={"seconds": 0.1})
    try:
        report = collect(spec, sys.argv[1], 2, progress=False, processor=sys.argv[2],
                         on_progress=lambda *a: print(*a, flush=True))
    except KeyboardInterrupt:
        sys.exit(130)
    print("added", report.tasks[spec.tasks[0].task].added)
"""


def children_of(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_ended_in_the_middle_it_continues(tmp_path: Path, processor: str, number: int) -> None:
    """Ctrl-C keeps every episode that was played; nothing is there twice; no process stays."""
    import psutil

    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    command = [sys.executable, str(script), str(tmp_path / "data"), processor]
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    played = 0
    for line in process.stdout:
        played = int(line.split()[1])
        if played == 10:
            break
    children = children_of(process.pid)
    assert len(children) >= 3  # two players and the server they come from
    process.send_signal(number)
    process.wait(60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(map(psutil.pid_exists, children)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(psutil.pid_exists, children))
    if number == signal.SIGINT:
        assert len(TaskData(tmp_path / "data" / TOY)) >= 10
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert [r["seed"] for r in TaskData(tmp_path / "data" / TOY).records] == list(range(40))
