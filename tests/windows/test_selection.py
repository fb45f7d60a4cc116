"""Episodes below the expert's share are not trained on; a selection survives being sent away."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.shards.reader import TaskData
from generalist.shards.shards import ShardWriter
from generalist.windows.mixture import open_mixture
from generalist.windows.selection import Selection
from tests.dataset_folders import control_layout, make_episode, make_header, write_task

RETURNS = [-1183.0, -400.0, -157.0, -300.0, -500.0]  # Pendulum: random -1183, expert -157


def write_returns(root: Path, task: str, returns: list[float], **collection: object) -> TaskData:
    layout = control_layout()
    with ShardWriter(root / task, make_header(task, layout, **collection)) as writer:
        for seed, value in enumerate(returns):
            episode = make_episode(layout, 5, seed)
            episode.rewards[:] = value / 5
            writer.add(episode)
    return TaskData(root / task)


def seeds(data: TaskData) -> list[int]:
    return [data.record(i)["seed"] for i in range(len(data))]


def kept(selection: Selection, data: TaskData) -> list[int]:
    (chosen,) = selection.of([data])
    return seeds(chosen)


def test_the_registry_says_what_the_expert_scores(tmp_path: Path) -> None:
    data = write_returns(tmp_path, "gym/Pendulum-v1", RETURNS)
    assert kept(Selection(0.8), data) == [2, 3]  # above -362
    assert kept(Selection(0.6), data) == [1, 2, 3, 4]
    assert kept(Selection({"gym": 0.8}, {"gym/Pendulum-v1": 1}), data) == [2]
    assert kept(Selection({"dmc": 0.8}), data) == [0, 1, 2, 3, 4]


def test_cut_episodes_and_unknown_tasks_are_compared_with_the_best_there_is(tmp_path: Path) -> None:
    cut = write_returns(tmp_path, "gym/Pendulum-v1", [-100.0, -20.0, -10.0], max_steps=5)
    assert kept(Selection(0.8), cut) == [1, 2]
    unknown = write_returns(tmp_path, "elsewhere/Task", [0.0, 7.9, 8.0, 10.0])
    assert kept(Selection(0.8), unknown) == [2, 3]


def test_the_best_share_of_a_task_in_all_its_folders(tmp_path: Path) -> None:
    one = write_returns(tmp_path / "one", "gym/Pendulum-v1", RETURNS)
    two = write_returns(tmp_path / "two", "gym/Pendulum-v1", [-200.0, -1000.0, -300.0])
    assert [seeds(data) for data in Selection(best_share=0.25).of([one, two])] == [[2], [0]]
    assert [seeds(data) for data in Selection(best_share=0.01).of([one, two])] == [[2], []]
    # Of equal ones the first; and of what another condition leaves.
    assert [seeds(data) for data in Selection(best_share=0.375).of([one, two])] == [[2, 3], [0]]
    assert kept(Selection(0.6, best_share=0.5), one) == [2, 3]
    assert kept(Selection(episodes=1, best_share=0.5), one) == [2]
    solved = write_returns(tmp_path, "babyai/GoToLocal", [0.5, 0.0, 0.9, 0.7])
    assert kept(Selection(best_share=0.5), solved) == [2, 3]  # all but one are successes


def test_success_is_what_counts_where_it_is_the_metric(tmp_path: Path) -> None:
    data = write_returns(tmp_path, "babyai/GoToLocal", [0.0, 0.2, 0.9])
    assert kept(Selection(0.8), data) == [1, 2]
    layout = control_layout()
    with ShardWriter(tmp_path / "said", make_header("babyai/GoToLocal", layout)) as writer:
        for seed, success in enumerate((True, False, True)):
            writer.add(make_episode(layout, 5, seed, success=success))
    assert kept(Selection(0.8), TaskData(tmp_path / "said")) == [0, 2]


def test_none_good_enough_is_an_error_that_names_the_best(tmp_path: Path) -> None:
    data = write_returns(tmp_path, "gym/Pendulum-v1", [-1183.0, -900.0])
    with pytest.raises(GeneralistError, match=r"none reaches 0\.8.*-361\.8.*best has -900"):
        Selection(0.8).of([data])


def test_what_is_selected_is_the_same_episodes(folder: Path) -> None:
    whole = TaskData(folder)
    chosen = whole.select(np.array([1, 5, 9])).select(np.array([0, 2]))
    assert len(chosen) == 2 and len(whole) == 16
    for one in (chosen, pickle.loads(pickle.dumps(chosen))):
        for number, before in enumerate((1, 9)):
            assert one.record(number) == whole.record(before)
            np.testing.assert_array_equal(one.tokens(number), whole.tokens(before))
            np.testing.assert_array_equal(one.rewards(number), whole.rewards(before))
            np.testing.assert_array_equal(one.labels(number), whole.labels(before))
    other = whole.select(np.array([1]))
    assert len({each.fingerprint for each in (whole, chosen, other)}) == 3


def test_a_mixture_takes_what_is_selected_and_weighs_by_its_tokens(tmp_path: Path) -> None:
    write_task(tmp_path, "gym/A-v0", control_layout(), [10] * 8)
    write_task(tmp_path, "gym/B-v0", control_layout(), [40] * 8)
    mixture = open_mixture(
        tmp_path, {"gym": 3.0}, selection=Selection(episodes={"gym/A-v0": 4}), task_temperature=1
    )
    assert [len(data) for data in mixture.tasks] == [4, 8]
    assert mixture.weights == pytest.approx([3 / 9, 3 * 8 / 9])


def test_settings_are_of_a_task_and_not_of_each_of_its_folders(tmp_path: Path) -> None:
    one = write_returns(tmp_path / "one", "elsewhere/Task", [1.0, 10.0])
    other = write_returns(tmp_path / "other", "elsewhere/Task", [9.0, 2.0, 9.5])
    both = [one, other]
    assert [len(data) for data in Selection(episodes=3).of(both)] == [2, 1]
    assert [len(data) for data in Selection(episodes=1).of(both)] == [1, 0]
    # Worst and best are those of the task: 1 and 10.
    assert [seeds(data) for data in Selection(0.8).of(both)] == [[1], [0, 2]]
    assert [seeds(data) for data in Selection(0.8, 2).of(both)] == [[1], [0]]
    assert [len(data) for data in Selection(0.99).of(both)] == [1, 0]
    mixture = open_mixture([tmp_path / "one", tmp_path / "other"], selection=Selection(0.99))
    assert [data.folder for data in mixture.tasks] == [one.folder]
    assert mixture.available == {"elsewhere/Task": 5}
