"""What is woven into timesteps stands where it should, is learned where it should, and unpacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.shards.reader import TaskData
from generalist.tokenization.continuous import ContinuousCodec
from generalist.tokenization.layout import Layout, Part
from generalist.windows.batch import IGNORE
from generalist.windows.palette import ROW_ROLES
from generalist.windows.views import View, Woven
from tests.dataset_folders import VOCABULARY, control_layout, grid_layout, write_task
from tests.windows.segments import BEGIN, DEMONSTRATION_END, END, INSTRUCTIONS, row_of, sampler

WIDEST = 8.0  # of rewards and their sums in these episodes
SCALAR = ContinuousCodec((), "float32", (-WIDEST,), (WIDEST,), 256)
REWARD = Part("reward", (), SCALAR, VOCABULARY["return"].start)
RETURN = Part("return", (), SCALAR, VOCABULARY["return"].start)
BIN = 2 * WIDEST / 256


def rewards_before(rewards: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], rewards[:-1]]).astype(np.float32)


def returns_to_go(rewards: np.ndarray) -> np.ndarray:
    sums = np.cumsum(rewards[::-1].astype(np.float64))[::-1]
    return np.clip(sums, -WIDEST, WIDEST).astype(np.float32)


def woven(part: Part, values) -> Woven:
    return Woven(part, lambda rewards: part.codec.encode(values(rewards), None) + part.start)


def with_rewards(layout: Layout, **losses: float) -> View:
    """Reward of the step before, observation, separator, return, action."""
    *given, chosen = layout.parts
    parts = [woven(REWARD, rewards_before), *given, woven(RETURN, returns_to_go), chosen]
    return View(layout, parts, losses or {"return": 0.5, "action": 1.0})


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    """Episodes with labels, rewards and instructions."""
    root = tmp_path_factory.mktemp("data")
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 40, 30)]
    return TaskData(write_task(root, "gym/Toy-v0", control_layout(), lengths, True, INSTRUCTIONS))


def test_what_is_woven_in_unpacks_again(task: TaskData) -> None:
    view, layout = with_rewards(task.layout), task.layout
    assert view.tokens_per_timestep == layout.tokens_per_timestep + 2
    roles = [ROW_ROLES[role] for role in view.positions.role]
    assert roles == ["reward"] + ["observation"] * 3 + ["separator", "return"] + ["action"] * 2
    for number in range(len(task)):
        rewards = task.rewards(number)
        for first in range(0, len(rewards), 7):
            size = layout.tokens_per_timestep
            stored = task.tokens(number)[first * size : (first + 5) * size]
            shown = view.show(stored, rewards, first)
            np.testing.assert_array_equal(view.unpack(shown), stored)
            steps = slice(first, first + 5)
            for place, part, values in ((0, REWARD, rewards_before), (3, RETURN, returns_to_go)):
                ids = view.part_of(shown, place)
                assert ids.min() >= VOCABULARY["return"].start
                assert ids.max() < VOCABULARY["return"].stop
                wanted = values(rewards)[steps]
                assert np.abs(part.decode(ids, None) - wanted).max() <= BIN / 2 + 1e-6


@pytest.mark.parametrize("action_dropout", [0.0, 1.0])
def test_rows_are_built_of_what_a_view_shows(task: TaskData, action_dropout: float) -> None:
    """Read back by positions alone, against the episodes that are stored."""
    packed = sampler(
        [task],
        128,
        seed=3,
        prompt_fraction=0.5,
        action_dropout=action_dropout,
        view_of=with_rewards,
    )
    view = with_rewards(task.layout)
    size, demonstrations, hidden = view.tokens_per_timestep, 0, 0
    for number in range(100):
        row = row_of(packed, number)
        used = int((row.task_index >= 0).sum())
        starts = [j for j in range(used) if row.position_ids[j] == 0]
        assert (row.input_ids[starts] == BEGIN).all()
        for start, stop in zip(starts, [*starts[1:], used], strict=True):
            ids, role = row.input_ids[start:stop], row.role[start:stop]
            body = 4  # begin, task, instruction and its id
            ends = np.flatnonzero(ids == DEMONSTRATION_END)
            if len(ends):
                own(task, view, ids[body : ends[0]])
                np.testing.assert_array_equal(role[body : ends[0]].reshape(-1, size)[0],
                                              view.positions.role)  # fmt: skip
                demonstrations, body = demonstrations + 1, int(ends[0]) + 1
            shown = ids[body:].reshape(-1, size)
            if action_dropout:  # the context hides them; the labels are still to be learned
                hidden += len(shown)
                first, episode = own(task, view, ids[body:], actions=False)
            else:
                first, episode = own(task, view, ids[body:])
            np.testing.assert_array_equal(role[body:].reshape(shown.shape)[0], view.positions.role)
            targets = row.targets[start + body : stop].reshape(shown.shape)
            labels = task.labels(episode).reshape(-1, 2)[first : first + len(shown)]
            np.testing.assert_array_equal(targets[:, -2:], labels)
            np.testing.assert_array_equal(targets[:, 5], shown[:, 5])  # the return
            assert (targets[:, :5] == IGNORE).all()
            for array in (row.weight, row.count):
                assert (array[start : start + body] == 0).all()
                expected = [0, 0, 0, 0, 0, 0.5, 1, 1]
                assert (array[start + body : stop].reshape(shown.shape) == expected).all()
            ordinal = row.ordinal[start + body : stop].reshape(shown.shape)
            assert (ordinal == [False] * 5 + [True] * 3).all()
    assert demonstrations > 20 and (hidden > 100) == bool(action_dropout)


def own(task: TaskData, view: View, shown: np.ndarray, actions: bool = True) -> tuple[int, int]:
    """(first step, episode) of timesteps, which must be that episode's, rewards and all."""
    stored, layout = view.unpack(shown), task.layout
    timesteps = stored.reshape(-1, layout.tokens_per_timestep)
    first, episode = (int(x) for x in timesteps[0, :2] - layout.parts[0].start)
    size = layout.tokens_per_timestep
    there = task.tokens(episode)[first * size : (first + len(timesteps)) * size]
    expected = view.show(there, task.rewards(episode), first).reshape(len(timesteps), -1)
    count = expected.shape[1] - (0 if actions else len(layout.legal))
    np.testing.assert_array_equal(shown.reshape(expected.shape)[:, :count], expected[:, :count])
    return first, episode


def test_a_view_of_everything_stored_is_what_is_stored(task: TaskData) -> None:
    view = View(task.layout)
    assert view.is_stored and view.parts == task.layout.parts
    stored = task.tokens(0)
    assert view.show(stored, task.rewards(0), 0) is stored
    assert view.loss.tolist() == [0, 0, 0, 0, 1, 1]


def test_losses_on_observations_are_of_what_was_observed(task: TaskData) -> None:
    """As planning needs them: weighted by role, so that many tokens do not drown one action."""

    def view_of(layout: Layout) -> View:
        return View(layout, losses={"observation": 0.25, "action": 1.0})

    batch = sampler([task], 128, view_of=view_of, prompt_fraction=0.3).batch(0, 20)
    plain = sampler([task], 128, prompt_fraction=0.3).batch(0, 20)
    np.testing.assert_array_equal(batch.input_ids, plain.input_ids)
    observed = batch.role == ROW_ROLES.index("observation")
    learned = batch.weight > 0
    assert (batch.targets[observed & learned] == batch.input_ids[observed & learned]).all()
    assert (batch.weight[observed & learned] == 0.25).all()
    ends = (batch.input_ids == DEMONSTRATION_END).sum()
    assert ends and not learned[observed].all()  # what a demonstration shows is not learned
    chosen = batch.role == ROW_ROLES.index("action")
    np.testing.assert_array_equal(batch.targets[chosen], plain.targets[chosen])


def test_roles_of_rows(tasks: list[TaskData]) -> None:
    batch = sampler(tasks, 256).batch(0, 100)
    name = np.array(ROW_ROLES)[batch.role]
    assert set(np.unique(name)) == {"observation", "separator", "action", "header", "padding"}
    np.testing.assert_array_equal(name == "padding", batch.task_index < 0)
    assert (batch.input_ids[name == "separator"] == VOCABULARY.special("separator")).all()
    assert (name[batch.targets != IGNORE] == "action").all()
    assert (name[(batch.input_ids == BEGIN) | (batch.input_ids == DEMONSTRATION_END)]
            == "header").all()  # fmt: skip
    assert (name[batch.input_ids == END] == "action").all()
    np.testing.assert_array_equal(batch.weight, (batch.targets != IGNORE).astype(np.float32))
    np.testing.assert_array_equal(batch.count, batch.weight)


def test_what_is_no_view_is_refused(task: TaskData) -> None:
    layout = task.layout
    observed, separator, chosen = layout.parts
    with pytest.raises(GeneralistError, match="not a part of the layout"):
        View(layout, [REWARD, *layout.parts])
    with pytest.raises(GeneralistError, match="shows all actions"):
        View(layout, [observed, separator])
    with pytest.raises(GeneralistError, match="after all else"):
        View(layout, [chosen, separator, observed])
    with pytest.raises(GeneralistError, match="without a loss on its actions"):
        View(layout, losses={"observation": 1.0})
    with pytest.raises(GeneralistError, match="must not be negative"):
        View(layout, losses={"observation": -1.0, "action": 1.0})
    blind = View(layout, [separator, chosen])
    with pytest.raises(GeneralistError, match="observation is stored but not shown"):
        blind.unpack(blind.show(task.tokens(0), task.rewards(0), 0))


def test_grids_are_shown_as_stored(tmp_path: Path) -> None:
    data = TaskData(write_task(tmp_path, "babyai/Grid", grid_layout(), [5, 9]))
    view = with_rewards(data.layout)
    shown = view.show(data.tokens(1), data.rewards(1), 0)
    np.testing.assert_array_equal(view.unpack(shown), data.tokens(1))
