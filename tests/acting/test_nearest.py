"""The nearest demonstrated timesteps: against their definition, written out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from generalist.acting.nearest import DemonstratedSteps
from generalist.errors import GeneralistError, UsageError
from generalist.tokenization.continuous import ContinuousCodec
from generalist.tokenization.layout import Layout, Part, stored_layout
from tests.dataset_folders import VOCABULARY, control_layout, grid_layout, write_task

TASK = "gym/Toy-v0"
# What reading and comparing need of a processor; these layouts decode without trained parts.
PROCESSOR: Any = SimpleNamespace(vocabulary=VOCABULARY, fingerprint="processor-1", toolbox=None)


def random_ids(layout: Layout, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, K) ids of observations and (count, k) of actions."""
    rng, positions = np.random.default_rng(seed), layout.positions
    ids = rng.integers(positions.first, positions.stop, (count, len(positions)))
    return ids[:, positions.of_role("observation")], ids[:, positions.of_role("action")]


def steps_of(
    layout: Layout, lengths: list[int], instructions: list[str | None], seed: int = 0
) -> DemonstratedSteps:
    observed, actions = random_ids(layout, sum(lengths), seed)
    return DemonstratedSteps(
        observed,
        actions,
        episode=np.repeat(np.arange(len(lengths)), lengths),
        instructions=instructions,
        layout=layout,
        processor=PROCESSOR,
    )


def scaled(layout: Layout, steps: DemonstratedSteps, seen: np.ndarray) -> np.ndarray:
    """Values of `seen` in standard deviations of all the timesteps."""
    every, own = (layout.decode("observation", ids, None) for ids in (steps._observed, seen))
    return np.float64(own) / np.float64(every).std(axis=0)


def test_real_numbers_are_compared_in_their_standard_deviations() -> None:
    layout = control_layout()
    steps = steps_of(layout, [20, 30], [None, None])
    seen, _ = random_ids(layout, 7, seed=1)
    known, asked = scaled(layout, steps, steps._observed), scaled(layout, steps, seen)
    for row, found in zip(asked, steps.nearest(seen, [None] * 7, 6), strict=True):
        distances = np.linalg.norm(known - row, axis=1)
        np.testing.assert_array_equal(found.numbers, np.argsort(distances)[:6])
        np.testing.assert_allclose(found.distances, np.sort(distances)[:6])


@pytest.mark.parametrize("bound", [1.0, 0.7])
def test_what_never_changes_counts_nothing(bound: float) -> None:
    """By rounding the deviation of 99 equal numbers is tiny, not 0."""
    start, sizes = VOCABULARY["continuous"].start, ((-bound,) * 3, (bound,) * 3)
    part = Part("observation", (), ContinuousCodec((3,), "float64", *sizes, 1024), start)
    own = control_layout()
    layout = stored_layout((part, *own.parts_of("action")), VOCABULARY.special("separator"))
    observed, actions = random_ids(layout, 99, seed=0)
    observed[:, 1] = observed[0, 1]
    given = {"episode": np.zeros(99, int), "instructions": [None], "layout": layout}
    steps = DemonstratedSteps(observed, actions, processor=PROCESSOR, **given)
    seen = observed[4:5].copy()
    seen[0, 1] += 1
    (found,) = steps.nearest(seen, [None], 1)
    assert found.numbers.tolist() == [4] and found.distances.tolist() == [0.0]


def test_codes_differ_or_are_the_same() -> None:
    layout = grid_layout()
    steps = steps_of(layout, [12], [None])
    seen = steps._observed[[5, 5]].copy()
    seen[1, :4] = layout.positions.first[0] + (seen[1, :4] - layout.positions.first[0] + 1) % 9
    exact, off = steps.nearest(seen, [None, None], 1)
    assert exact.numbers.tolist() == off.numbers.tolist() == [5]
    assert exact.distances.tolist() == [0.0] and off.distances.tolist() == [2.0]  # sqrt of 4 cells


def test_its_own_instruction_comes_first_and_any_other_where_it_was_not_demonstrated() -> None:
    layout = control_layout()
    steps = steps_of(layout, [4, 5, 6], ["left", "right", "left"])
    seen, _ = random_ids(layout, 1, seed=2)
    found = {
        told: steps.nearest(seen, [told], 20)[0].numbers for told in ("left", "right", "up", None)
    }
    assert sorted(found["left"]) == [0, 1, 2, 3, *range(9, 15)]
    assert sorted(found["right"]) == [4, 5, 6, 7, 8]
    assert sorted(found["up"]) == sorted(found[None]) == list(range(15))


def test_the_normal_distance_is_regents() -> None:
    """Each timestep is looked up among other episodes, of its own instruction where there are."""
    layout = control_layout()
    steps = steps_of(layout, [4, 5, 6, 3], ["left", "right", "left", "up"])
    among = [range(9, 15)] * 4 + [[*range(4), *range(9, 18)]] * 5 + [range(4)] * 6 + [range(15)] * 3
    known = scaled(layout, steps, steps._observed)
    distances = []
    for own, others in zip(known, among, strict=True):
        nearest = sorted(others, key=lambda i: np.linalg.norm(known[i] - own))[:3]
        first = known[nearest[0]]
        distances += [np.linalg.norm(known[i] - first) for i in nearest]
        distances.append(np.linalg.norm(own - first))
    assert steps.normal_distance(3) == pytest.approx(np.percentile(distances, 95))
    assert steps_of(layout, [1], [None]).normal_distance(3) == 1.0, "nothing to compare with"
    assert steps_of(layout, [5], [None]).normal_distance(3) > 0, "one episode alone"


def test_the_experts_own_actions_are_read(tmp_path: Path) -> None:
    layout = control_layout()
    folder = write_task(tmp_path, TASK, layout, [5, 7], labelled=True, instructions=("go", None))
    steps = DemonstratedSteps.read(tmp_path, TASK, processor=PROCESSOR)
    assert len(steps) == 12 and steps.layout == layout
    from generalist.shards.reader import TaskData

    data = TaskData(folder)
    labels = np.concatenate([data.labels(i) for i in range(2)]).reshape(12, -1)
    np.testing.assert_array_equal(steps.actions, labels)
    shown = steps.shown(np.array([8, 2])).reshape(2, -1)
    stored = np.concatenate([data.tokens(i) for i in range(2)]).reshape(12, -1)[[8, 2]]
    observed, action = (layout.positions.of_role(role) for role in ("observation", "action"))
    np.testing.assert_array_equal(shown[:, observed], stored[:, observed])
    np.testing.assert_array_equal(shown[:, action], labels[[8, 2]])
    assert len(steps.nearest(shown[:1, observed], ["go"], 99)[0].numbers) == 5


def test_the_episodes_that_are_played_are_left_out(tmp_path: Path) -> None:
    layout = control_layout()
    write_task(tmp_path, TASK, layout, [5, 7, 4])  # of seeds 0, 1 and 2
    every, some = (
        DemonstratedSteps.read(tmp_path, TASK, processor=PROCESSOR, without=without)
        for without in ((), range(1, 2))
    )
    assert (len(every), len(some)) == (16, 9)
    np.testing.assert_array_equal(some.actions, np.delete(every.actions, range(5, 12), axis=0))
    with pytest.raises(UsageError, match="the very episodes that are to be played, and no others"):
        DemonstratedSteps.read(tmp_path, TASK, processor=PROCESSOR, without=range(3))


def test_the_wrong_data_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, TASK, control_layout(), [5])
    with pytest.raises(UsageError, match="holds no demonstrations of gym/Other-v0, but of gym/Toy"):
        DemonstratedSteps.read(tmp_path, "gym/Other-v0", processor=PROCESSOR)
    with pytest.raises(UsageError, match="codes gym/Toy-v0 otherwise"):
        given = {"processor": PROCESSOR, "layout": control_layout(4)}
        DemonstratedSteps.read(tmp_path, TASK, **given)
    with pytest.raises(GeneralistError, match="no dataset"):
        DemonstratedSteps.read(tmp_path / "nowhere", TASK, processor=PROCESSOR)
    other = SimpleNamespace(vocabulary=VOCABULARY, fingerprint="processor-2", toolbox=None)
    with pytest.raises(GeneralistError, match="processor-1"):
        DemonstratedSteps.read(tmp_path, TASK, processor=other)
