"""Rows of a world model: executed actions shown at their place, and all that came of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from generalist.shards.reader import TaskData
from generalist.tokenization.compact import CompactForm, signatures_of
from generalist.tokenization.returns import returns_to_go
from generalist.training.data import _target_density
from generalist.training.forms import outcome_ids
from generalist.training.tensors import to_tensors
from generalist.windows.outcomes import Worlds, fit_worlds
from generalist.windows.returns import Returns, fit_returns
from generalist.windows.windows import WindowSampler
from tests.dataset_folders import VOCABULARY
from tests.windows.segments import sampler
from tests.windows.test_compact import given_at

DISCOUNT = 0.9
IDS = outcome_ids(VOCABULARY)


def foreseeing(tasks: list[TaskData], *, returns: bool, world: bool = True) -> WindowSampler:
    own = [data for data in tasks if not data.layout.is_document]
    asked = VOCABULARY["return"] if returns else None
    form = CompactForm(positions=1, width=4)
    layouts = {data.task: data.layout for data in own}
    form = form.extended(layouts, asked, IDS if world else None)
    options = {"form": form, "prompt_fraction": 0.3, "seed": 2}
    if world:
        options["worlds"] = Worlds(fit_worlds(tasks, DISCOUNT, IDS.bins), 2.0, 0.5)
    if returns:
        options["returns"] = Returns(fit_returns(tasks, DISCOUNT, IDS.bins), 0.5, 0.5)
    return sampler(tasks, 96, **options)


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize("world", [False, True])
def test_balanced_tasks_share_the_loss_as_they_share_the_tokens(
    tasks: list[TaskData], returns: bool, world: bool
) -> None:
    """However many targets a timestep has, and whatever these and its outcomes weigh."""
    packed = foreseeing(tasks, returns=returns, world=world)
    names = [data.task for data in tasks]
    density = _target_density(packed.usage(100), names, packed.window_tokens)
    batch = packed.batch(0, 100)
    given = to_tensors(batch, (1 / density).astype(np.float32), segments=False).targets
    shares = np.bincount(given.task.numpy(), given.weight.numpy(), len(tasks))
    tokens = np.array([(batch.task_index == number).sum() for number in range(len(tasks))])
    np.testing.assert_allclose(shares / shares.sum(), tokens / tokens.sum(), rtol=1e-5)


@pytest.mark.parametrize("returns", [False, True])
def test_outcomes_are_those_of_the_step(tasks: list[TaskData], returns: bool) -> None:
    fitted = fit_worlds(tasks, DISCOUNT, IDS.bins)
    batch = foreseeing(tasks, returns=returns).batch(0, 60)
    owner = batch.task_index.ravel()
    seen: Counter[tuple[int, bool]] = Counter()
    for foreseen in batch.foreseen:
        assert (np.diff(foreseen.index) > 0).all()
        parts = foreseen.index, foreseen.before, foreseen.ids, foreseen.weight
        for place, before, ids, weight in zip(*parts, strict=True):
            data = tasks[owner[place]]
            layout, (observation, action) = data.layout, signatures_of(data.layout)
            assert foreseen.name == observation.name
            step, episode = (int(before[i] - layout.fields[0].start) for i in range(2))
            stored = data.tokens(episode).reshape(-1, layout.tokens_per_timestep)
            columns, chosen = (layout.positions.of_role(r) for r in ("observation", "action"))
            np.testing.assert_array_equal(before, stored[step, columns])
            np.testing.assert_array_equal(given_at(batch, observation.name)[place], before)
            np.testing.assert_array_equal(given_at(batch, action.name)[place], stored[step, chosen])
            assert batch.targets.ravel()[place] == -100
            record, rewards = data.record(episode), data.rewards(episode)
            cut = bool(record.get("truncated")) and not record.get("terminated")
            to_go = returns_to_go(rewards, DISCOUNT, truncated=cut)
            over, earned, after = fitted[data.task].encode(rewards, to_go, is_over=not cut)[step]
            assert ids[0] == (IDS.is_over if over else IDS.goes_on)
            assert ids[1:3].tolist() == [IDS.first + earned, IDS.first + after]
            is_last = step + 1 == len(stored)
            if not is_last:
                np.testing.assert_array_equal(ids[3:], stored[step + 1, columns])
            tokens = len(columns)
            expected = [0.5] * 3 + [0.0 if is_last else 2.0 / tokens] * tokens
            np.testing.assert_allclose(weight, expected)
            seen[int(owner[place]), is_last] += 1
    assert {task for task, _ in seen} == {0, 1, 2}, seen
    assert sum(count for (_, is_last), count in seen.items() if is_last) > 10, seen


def test_each_timestep_has_an_outcome_and_rows_are_split_with_theirs(
    tasks: list[TaskData],
) -> None:
    packed = foreseeing(tasks, returns=False)
    whole = packed.batch(3, 7)
    labels = (whole.targets.ravel() >= 0) & ~np.isin(whole.task_index.ravel(), [3])
    actions = {0: 2, 1: 3, 2: 1}  # tokens of an action
    steps = sum((labels & (whole.task_index.ravel() == t)).sum() / k for t, k in actions.items())
    assert sum(len(each.index) for each in whole.foreseen) == steps
    for part, expected in zip(
        whole.split(3), (packed.batch(3, 3), packed.batch(6, 3)), strict=False
    ):
        mine = {each.name: each for each in part.foreseen if len(each.index)}
        assert sorted(mine) == [each.name for each in expected.foreseen]
        for each in expected.foreseen:
            for key in ("index", "before", "ids", "weight"):
                np.testing.assert_array_equal(getattr(mine[each.name], key), getattr(each, key))
