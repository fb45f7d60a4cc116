"""Environments dealt by learning progress, in a fleet that keeps its numbers and seeds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.training.loop import train
from generalist.training.ranks import Ranks
from generalist.training.reinforcement.crew import Outcome
from generalist.training.reinforcement.curriculum import Curriculum, shares
from generalist.training.reinforcement.recipe import CurriculumRecipe
from tests.training.reinforcement.conftest import CARTPOLE, PENDULUM
from tests.training.reinforcement.test_fleet import GOTO, fleet_of, play, seen
from tests.training.runs import assert_bitwise_equal


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.floats(0, 5)), min_size=1, max_size=6),
    st.floats(0.1, 1),
)
def test_all_are_dealt_and_every_task_keeps_its_floor(tasks, floor):
    counts = [count for count, _ in tasks]
    floors = [max(1, int(floor * count)) for count in counts]
    dealt = shares(counts, floors, np.array([progress for _, progress in tasks]))
    assert sum(dealt) == sum(counts)
    assert all(has >= least for has, least in zip(dealt, floors, strict=True))


def returns(curriculum: Curriculum, *means: float) -> list[int] | None:
    """One unroll in which every task has four episodes around its mean."""
    ended = [
        Outcome(task, mean + off, 5, None)
        for task, mean in enumerate(means)
        for off in (-1, 0, 0, 1)
    ]
    curriculum.add(ended)
    return curriculum.deal()


def test_what_improves_gets_more_and_gives_it_back():
    curriculum = Curriculum(
        CurriculumRecipe(every=2, floor=0.25), [8, 8], least=2, ranks=Ranks(Accelerator())
    )
    assert returns(curriculum, 1.0, 100.0) is None  # not yet
    assert returns(curriculum, 1.0, 100.0) == [8, 8]  # nothing to compare with
    for mean in (3.0, 5.0):
        returns(curriculum, mean, 100.0)
        dealt = returns(curriculum, mean, 100.0)
        assert sum(dealt) == 16 and dealt[0] >= 12
    other = Curriculum(
        CurriculumRecipe(every=2, floor=0.25), [8, 8], least=2, ranks=Ranks(Accelerator())
    )
    other.restore(curriculum.state())
    for each in (curriculum, other):
        returns(each, 5.0, 104.0)
        last = returns(each, 5.0, 104.0)
        assert last[1] > dealt[1] and sum(last) == 16  # the other task improves too
        for _ in range(80):
            last = returns(each, 5.0, 104.0) or last
        assert abs(last[0] - 8) <= 1  # nothing moves any more


def test_a_single_episode_says_nothing_of_the_spread():
    """Of returns 0 and 2 the variance is 2, whatever single episodes come between."""
    curriculum = Curriculum(CurriculumRecipe(every=1), [8, 8], least=2, ranks=Ranks(Accelerator()))
    for means in ([0.0, 2.0], [1.0], [1.0], [0.0, 2.0], [4.0]):
        curriculum.add([Outcome(0, mean, 5, None) for mean in means])
        curriculum.deal()
    fast, slow, variance = curriculum.state()["averages"][0]
    assert variance == pytest.approx(2.0)
    assert curriculum.progress[0] == pytest.approx((fast - slow) / 2**0.5) and fast > slow


def test_a_fleet_that_is_dealt_anew_goes_on_and_is_found_again():
    fleet = fleet_of(CARTPOLE, GOTO, count=3, most=6)
    play(fleet, 9)
    before = fleet.observe()
    fleet.deal([5, 1])
    cart, goto = fleet.observe()
    np.testing.assert_array_equal(cart.ids[:3], before[0].ids)  # in the midst of their episodes
    np.testing.assert_array_equal(goto.ids, before[1].ids[:1])
    play(fleet, 20, seed=1)
    other = fleet_of(CARTPOLE, GOTO, count=3, most=6, begin=False)
    other.shower.know(fleet.shower.known())
    other.restore(fleet.state())
    assert other.counts == [5, 1] and seen(other) == seen(fleet)
    for each in (fleet, other):
        each.deal([3, 3])
        play(each, 5, seed=2)
    assert seen(other) == seen(fleet)
    seeds = {place.running.seed for place in fleet._crews[0]._crew._places}
    assert len(seeds) == 6
    # An environment that comes back begins an episode that nobody has played.
    assert fleet._episodes[6 + 1 : 6 + 3].tolist() == [1, 1]


def test_a_run_deals_and_is_resumed(make_run, tmp_path):
    tasks = {
        CARTPOLE: {"environments": 6, "options": {"max_steps": 5}},
        PENDULUM: {"environments": 6, "options": {"max_steps": 5}},
    }
    wanted = {"tasks": tasks, "curriculum": {"every": 1, "floor": 0.34}}
    sections = {"schedule": {"steps": 20, "warmup_steps": 2}, "log_every": 1}
    sections["checkpoint"] = {"every_steps": 7, "every_minutes": None, "keep": 4}
    train(make_run(wanted, output_dir=tmp_path / "whole", **sections))
    rows = [
        json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    ]
    dealt = [(row[f"environments/{CARTPOLE}"], row[f"environments/{PENDULUM}"]) for row in rows]
    assert all(one + two == 12 and min(one, two) >= 3 for one, two in dealt)
    assert len(set(dealt)) > 1
    source = tmp_path / "whole" / "checkpoints" / "step-00000014"
    train(make_run(wanted, output_dir=tmp_path / "again", **sections), resume_from=source)
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "again")
