"""Rows in the compact form: every stored token embedded where it belongs, every label asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.shards.reader import TaskData
from generalist.tokenization.compact import (
    QUERIES,
    TASKS,
    UNKNOWN_TASK,
    CompactForm,
    signatures_of,
)
from generalist.windows.batch import IGNORE, UNKNOWN_SHARE, Batch
from generalist.windows.palette import ROW_ROLES
from generalist.windows.views import View
from tests.dataset_folders import VOCABULARY
from tests.windows.segments import DEMONSTRATION_END, sampler

SEPARATOR = VOCABULARY.special("separator")


def form_for(tasks: list[TaskData], positions: int = 1) -> CompactForm:
    form = CompactForm(positions=positions, width=4)
    return form.extended({data.task: data.layout for data in tasks})


def given_at(batch: Batch, name: str) -> dict[int, np.ndarray]:
    """Ids by flat place."""
    for each in batch.given:
        if each.name == name:
            assert (np.diff(each.index) > 0).all()
            return dict(zip(each.index.tolist(), each.ids, strict=True))
    return {}


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("prompt_fraction", [0.0, 1.0])
def test_every_position_is_what_the_dataset_holds(
    tasks: list[TaskData], positions: int, prompt_fraction: float
) -> None:
    form = form_for(tasks, positions)
    packed = sampler(tasks, 96, form=form, prompt_fraction=prompt_fraction, seed=5)
    batch = packed.batch(0, 40)
    ids, targets = batch.input_ids.ravel(), batch.targets.ravel()
    owner, position_ids = batch.task_index.ravel(), batch.position_ids.ravel()
    told, asked = given_at(batch, TASKS), given_at(batch, QUERIES)
    seen: Counter[int] = Counter()
    prompted: Counter[int] = Counter()
    named: Counter[bool] = Counter()
    used = set()
    starts = [*np.flatnonzero(position_ids == 0), len(ids)]
    for start, stop in zip(starts, starts[1:], strict=False):
        number = int(owner[start])
        if number < 0 or tasks[number].layout.is_document:
            assert start not in told and not batch.query.ravel()[start:stop].any()
            continue
        data, layout = tasks[number], tasks[number].layout
        observations, actions = (given_at(batch, each.name) for each in signatures_of(layout))
        k = len(layout.legal)
        named[told[start].item() == form.number_of(data.task)] += 1
        assert told[start].item() in (form.number_of(data.task), UNKNOWN_TASK)
        ends = np.flatnonzero(ids[start:stop] == DEMONSTRATION_END)
        body = start + int(np.flatnonzero(ids[start:stop] == SEPARATOR)[0])
        if len(ends):
            end = start + int(ends[0])
            prompted[number] += 1
            for place in range(body, end, positions):
                shown = np.concatenate([observations[place], actions[place + positions - 1]])
                assert_stored(shown[None], data)
                used |= {place}
            assert (targets[body : end + 1] == IGNORE).all()
            body = end + 1
        size = positions + k - 1
        assert (stop - body) % size == 0 and stop > body
        assert (ids[body:stop] == SEPARATOR).all()
        stored, labels = [], []
        for place in range(body, stop, size):
            stored.append(observations[place])
            used |= {place}
            last = place + positions - 1
            labels.append(targets[last : last + k])
            assert (targets[place:last] == IGNORE).all()
            assert batch.query.ravel()[last : last + k].all()
            for query in range(k - 1):
                assert asked[last + 1 + query].tolist() == [query]
        seen[number] += len(stored)
        assert_labels(np.stack(stored), np.stack(labels), data)
    assert named[True] > 0.75 * named.total()
    environments = {i for i, data in enumerate(tasks) if not data.layout.is_document}
    assert set(seen) == environments
    assert not prompted if prompt_fraction == 0 else set(prompted) == environments
    kinds = {each.name for data in tasks for each in signatures_of(data.layout)[:1]}
    assert used == {place for name in kinds for place in given_at(batch, name)}


def assert_stored(timesteps: np.ndarray, data: TaskData) -> None:
    """(n, K) ids without separators are neighbouring timesteps of an episode."""
    first, episode = (int(timesteps[0, i] - data.layout.fields[0].start) for i in range(2))
    size = data.layout.tokens_per_timestep
    stored = data.tokens(episode).reshape(-1, size)[first : first + len(timesteps)]
    without = np.delete(stored, data.layout.positions.of_role("separator"), axis=1)
    np.testing.assert_array_equal(timesteps, without[:, : timesteps.shape[1]])


def assert_labels(observed: np.ndarray, labels: np.ndarray, data: TaskData) -> None:
    assert_stored(observed, data)
    first, episode = (int(observed[0, i] - data.layout.fields[0].start) for i in range(2))
    stored = data.tokens(episode).reshape(-1, data.layout.tokens_per_timestep)
    k, own = labels.shape[1], data.labels(episode)
    actions = stored[:, -k:] if own is None else own.reshape(-1, k)
    np.testing.assert_array_equal(labels, actions[first : first + len(observed)])


def test_some_segments_do_not_say_their_task(tasks: list[TaskData]) -> None:
    batch = sampler(tasks[:3], 96, form=form_for(tasks), seed=2).batch(0, 400)
    told = np.array([ids.item() for ids in given_at(batch, TASKS).values()])
    share = float((told == UNKNOWN_TASK).mean())
    assert len(told) > 400 and abs(share - UNKNOWN_SHARE) < 0.03


def test_rows_are_split_as_they_are_built(tasks: list[TaskData]) -> None:
    packed = sampler(tasks, 96, form=form_for(tasks, 2), prompt_fraction=0.5, seed=1)
    whole = packed.batch(3, 7)
    parts = [*whole.split(3)]
    alone = [packed.batch(3, 3), packed.batch(6, 3), packed.batch(9, 1)]
    for part, expected in zip(parts, alone, strict=True):
        for name, array in vars(expected).items():
            if name != "given":
                np.testing.assert_array_equal(getattr(part, name), array)
        mine = {each.name: each for each in part.given if len(each.index)}
        assert sorted(mine) == [each.name for each in expected.given]
        for each in expected.given:
            np.testing.assert_array_equal(mine[each.name].ids, each.ids)
            np.testing.assert_array_equal(mine[each.name].index, each.index)


def test_roles_say_what_positions_are_for(tasks: list[TaskData]) -> None:
    batch = sampler(tasks, 96, form=form_for(tasks, 2), seed=1).batch(0, 20)
    names = np.array(ROW_ROLES)[batch.role]
    assert set(names[batch.targets != IGNORE]) == {"action"}
    assert (batch.weight == (batch.targets != IGNORE)).all()
    assert ((batch.task_index < 0) == (names == "padding")).all()


def test_most_positions_of_the_compact_form_are_labels(tasks: list[TaskData]) -> None:
    flat, compact = (
        sampler(tasks[:2], 96, form=form, prompt_fraction=0.0).usage(50).targets_per_row
        for form in (None, form_for(tasks))
    )
    assert compact > 2 * flat


def test_woven_views_have_no_compact_form_yet(tasks: list[TaskData]) -> None:
    def fewer(layout):
        return View(layout, [part for part in layout.parts if part.role != "separator"])

    with pytest.raises(GeneralistError, match="as they are stored"):
        sampler(tasks[:1], 96, form=form_for(tasks), view_of=fewer)
