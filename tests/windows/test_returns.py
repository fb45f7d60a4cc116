"""Rows with returns: values at their place, shown returns behind them, executed actions then."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from generalist.shards.reader import TaskData
from generalist.shards.shards import ShardWriter
from generalist.tokenization.compact import CompactForm, signatures_of
from generalist.tokenization.layout import ROLES
from generalist.tokenization.returns import returns_to_go
from generalist.vocabulary import TokenRange
from generalist.windows.batch import IGNORE
from generalist.windows.returns import Returns, fit_returns
from generalist.windows.windows import WindowSampler
from tests.dataset_folders import VOCABULARY, grid_layout, make_episode, make_header
from tests.windows.segments import sampler
from tests.windows.test_compact import given_at

DISCOUNT = 0.9
IDS = VOCABULARY["return"]
RETURN, ACTION = ROLES.index("return"), ROLES.index("action")


def with_returns(tasks: list[TaskData], *, show: float, positions: int = 1) -> WindowSampler:
    own = [data for data in tasks if not data.layout.is_document]
    form = CompactForm(positions=positions, width=4)
    form = form.extended({data.task: data.layout for data in own}, IDS)
    returns = Returns(fit_returns(tasks, DISCOUNT, IDS.size), show, 0.5)
    options = {"form": form, "returns": returns, "prompt_fraction": 0.3, "seed": 2}
    return sampler(tasks, 96, **options)


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("show", [0.0, 0.5, 1.0])
def test_values_and_returns_are_those_of_the_step(
    tasks: list[TaskData], positions: int, show: float
) -> None:
    fitted = fit_returns(tasks, DISCOUNT, IDS.size)
    batch = with_returns(tasks, show=show, positions=positions).batch(0, 60)
    shown = {place: int(ids[0]) for place, ids in given_at(batch, "return-bins1x256").items()}
    targets, role = batch.targets.ravel(), batch.role.ravel()
    owner, segment = batch.task_index.ravel(), np.cumsum(batch.position_ids.ravel() == 0)
    labels: Counter[tuple[int, bool]] = Counter()
    kinds: dict[int, set[bool]] = {}
    for place in np.flatnonzero((role == RETURN) & (targets != IGNORE)):
        data = tasks[owner[place]]
        observation = signatures_of(data.layout)[0].name
        ids = given_at(batch, observation)[place - positions + 1]
        step, episode = (int(ids[i] - data.layout.fields[0].start) for i in range(2))
        record = data.record(episode)
        rewards = data.rewards(episode)
        truncated = bool(record.get("truncated")) and not record.get("terminated")
        to_go = returns_to_go(rewards, DISCOUNT, truncated=truncated)
        expected = IDS.start + int(fitted[data.task].encode(to_go)[step])
        assert targets[place] == expected and batch.query.ravel()[place]
        assert batch.weight.ravel()[place] == batch.count.ravel()[place] == 0.5
        is_shown = place + 1 in shown
        assert not is_shown or shown[place + 1] == expected
        kinds.setdefault(int(segment[place]), set()).add(is_shown)
        k = len(data.layout.legal)
        asked = targets[place + 1 : place + 1 + k]
        assert (role[place + 1 : place + 1 + k] == ACTION).all()
        executed = data.tokens(episode).reshape(-1, data.layout.tokens_per_timestep)[step, -k:]
        own = data.labels(episode)
        label = executed if own is None or is_shown else own.reshape(-1, k)[step]
        np.testing.assert_array_equal(asked, label)
        labels[owner[place], is_shown] += 1
    assert all(len(each) == 1 for each in kinds.values()), "a segment shows all or nothing"
    share = np.mean([each == {True} for each in kinds.values()])
    assert share == pytest.approx(show, abs=0.1) and len(kinds) > 80
    assert {task for task, _ in labels} == {0, 1, 2}


def test_labels_may_be_left_aside(tasks: list[TaskData]) -> None:
    form = CompactForm(positions=1, width=4).extended({tasks[0].task: tasks[0].layout})
    options = {"form": form, "prompt_fraction": 0.0, "seed": 2}
    taught, copied = (sampler(tasks[:1], 96, labels=each, **options) for each in (True, False))
    one, two = taught.batch(0, 4), copied.batch(0, 4)
    assert (one.input_ids == two.input_ids).all() and (one.targets != two.targets).any()
    flat = sampler(tasks[:1], 96, labels=False, prompt_fraction=0.0, seed=2).batch(0, 4)
    is_target = (flat.targets != IGNORE) & (flat.role == ACTION)
    assert (flat.targets[is_target] == flat.input_ids[is_target]).all() and is_target.any()


def test_a_task_without_returns_keeps_its_labels(tmp_path: Path) -> None:
    """No return can be shown where all are the same, so nothing takes the place of the labels."""
    layout = grid_layout()
    with ShardWriter(tmp_path / "same", make_header("gym/Same-v0", layout)) as writer:
        for seed in range(4):
            episode = make_episode(layout, 20, seed, labelled=True)
            writer.add(replace(episode, rewards=np.zeros(20)))
    tasks = [TaskData(tmp_path / "same")]
    assert not fit_returns(tasks, DISCOUNT, IDS.size)
    form = CompactForm(positions=1, width=4)
    form = form.extended({"gym/Same-v0": layout}, IDS)
    options = {"form": form, "prompt_fraction": 0.0}
    plain, asked = (
        sampler(tasks, 96, returns=each, **options).batch(0, 8).targets
        for each in (None, Returns({}, 1.0, 0.5))
    )
    np.testing.assert_array_equal(plain, asked)


def test_ids_of_returns_may_lie_behind_a_large_vocabulary(tasks: list[TaskData]) -> None:
    """Such as that of a pretrained model's tokenizer."""
    own, far = tasks[:1], TokenRange("return", 150_000, IDS.size)
    batches = []
    for ids in (IDS, far):
        form = CompactForm(positions=1, width=4).extended({own[0].task: own[0].layout}, ids)
        fitted = Returns(fit_returns(own, DISCOUNT, IDS.size), 1.0, 0.5)
        batches.append(sampler(own, 96, form=form, returns=fitted).batch(0, 4))
    near, away = (each.targets[each.role == RETURN] for each in batches)
    np.testing.assert_array_equal(
        np.where(near == IGNORE, IGNORE, near + 150_000 - IDS.start), away
    )
    shown = [given_at(each, "return-bins1x256") for each in batches]
    for place, (one,) in shown[0].items():
        assert shown[1][place] == [one + 150_000 - IDS.start]


def test_rows_without_returns_are_what_they_were(tasks: list[TaskData]) -> None:
    """Which segments show returns takes no random number from what is drawn."""
    own = [data for data in tasks if not data.layout.is_document]
    form = CompactForm(positions=1, width=4)
    form = form.extended({data.task: data.layout for data in own}, IDS)
    rows = [
        sampler(own, 96, form=form, returns=Returns(fit_returns(own, 1.0, 256), show, 1.0))
        for show in (0.0, 1.0)
    ]
    one, two = (each.batch(0, 10) for each in rows)
    assert (one.input_ids == two.input_ids).all() and (one.role == two.role).all()
