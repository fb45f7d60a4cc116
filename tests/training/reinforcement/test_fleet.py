"""Environments in step: seeds of their own, limits and failures, and finding them again."""

from __future__ import annotations

import os
import signal
from functools import partial

import gymnasium
import numpy as np
import pytest

from generalist.envs import make
from generalist.errors import GeneralistError, UsageError
from generalist.seeds import EVALUATION_SEED, reinforcement_seed
from generalist.tokenization.compact import CompactForm
from generalist.training.reinforcement.fleet import Fleet
from generalist.training.reinforcement.timesteps import Shower
from tests.decoding.models import text_only_processor

CARTPOLE, GOTO, BOARD = "gym/CartPole-v1", "babyai/GoToLocal", "board/TicTacToe"


class Spoiled(gymnasium.Wrapper):
    """CartPole that gives a reward that is no number in step `at` of its first episode."""

    def __init__(self, env: gymnasium.Env, at: int) -> None:
        super().__init__(env)
        self.at, self.steps = at, 0

    def step(self, action):
        self.steps += 1
        observation, reward, *rest = self.env.step(action)
        return observation, float("nan") if self.steps == self.at else reward, *rest


def seed_of(number: int, episode: int) -> int:
    return 1000 * number + episode


def fleet_of(*tasks: str, makers=None, count: int = 2, begin: bool = True, **options) -> Fleet:
    processor = text_only_processor()
    layouts = {}
    for task in tasks:
        env = make(task)
        layouts[task] = processor.layout(env.observation_space, env.action_space, task=task)
        env.close()
    form = CompactForm(positions=1, width=4).extended(layouts)
    fleet = Fleet(
        Shower(processor, form, layouts),
        processor,
        makers=makers or [partial(make, task) for task in tasks],
        counts=[count] * len(tasks),
        seed_of=seed_of,
        **options,
    )
    if begin:
        fleet.begin()
    return fleet


def play(fleet: Fleet, steps: int, seed: int = 0) -> list:
    """What random actions bring."""
    random = np.random.default_rng(seed)
    outcomes = []
    for _ in range(steps):
        ids = np.zeros((len(fleet), 8), np.int64)
        for part, layout in zip(fleet.of_task, fleet.shower.layouts, strict=True):
            for place, (start, stop) in enumerate(layout.legal):
                ids[part, place] = random.integers(start, stop, size=part.stop - part.start)
        outcomes.append(fleet.step(ids))
    return outcomes


def seen(fleet: Fleet) -> list[bytes]:
    return [each.ids.tobytes() + each.headers.tobytes() for each in fleet.observe()]


def test_is_found_again_where_it_was():
    fleet = fleet_of(CARTPOLE, GOTO)
    play(fleet, 70)
    state = fleet.state()
    other = fleet_of(CARTPOLE, GOTO, begin=False)
    other.shower.know(fleet.shower.known())
    other.restore(state)
    assert seen(other) == seen(fleet)
    for one, two in zip(play(fleet, 30, 1), play(other, 30, 1), strict=True):
        np.testing.assert_array_equal(one.rewards, two.rewards)
        assert one.finished == two.finished
    assert seen(other) == seen(fleet)


def test_every_episode_has_a_seed_of_its_own():
    fleet = fleet_of(CARTPOLE)
    seeds = set()
    finished = 0
    for _ in range(120):
        seeds |= {place.running.seed for place in fleet._crews[0]._crew._places}
        finished += len(play(fleet, 1)[0].finished)
    assert finished > 4 and len(seeds) == finished + 2


def test_seeds_of_learning_are_none_of_evaluation_and_fit_into_31_bits():
    seeds = [reinforcement_seed(run, e) for run in (0, 1, 49) for e in (0, 1, 19_999_999)]
    assert len(set(seeds)) == 9
    assert min(seeds) > 2 * EVALUATION_SEED and max(seeds) < 2**31


def test_an_episode_that_is_cut_gives_the_state_behind():
    fleet = fleet_of(CARTPOLE, makers=[partial(make, CARTPOLE, max_steps=5)])
    *before, last = play(fleet, 5)
    assert not any(each.cut for each in before)
    assert sorted(last.cut) == [0, 1]
    assert not last.going_on.any() and [each.steps for each in last.finished] == [5, 5]
    assert last.cut[0].ids.tobytes() != fleet.observe()[0].ids[:1].tobytes()


def test_a_reward_that_is_no_number_is_left_out_and_said():
    fleet = fleet_of(CARTPOLE, makers=[lambda: Spoiled(make(CARTPOLE), at=3)])
    first, second, third = play(fleet, 3)
    assert not first.failed.any() and not second.failed.any() and third.failed.all()
    assert third.rewards.tolist() == [0, 0] and not third.finished
    assert "gym/CartPole-v1, seed 0, step 2" in fleet.failures[0] and "nan" in fleet.failures[0]
    play(fleet, 2)  # with an environment made anew


def test_masks_are_seen_and_found_again():
    fleet = fleet_of(BOARD, CARTPOLE)
    (board, plain) = fleet.observe()
    assert board.masked and not plain.masked and len(board.masks) == len(plain.masks) == 2
    ids = np.zeros((len(fleet), 1), np.int64)
    ids[:2, 0] = [fleet.shower.layouts[0].legal[0][0] + np.flatnonzero(m)[0] for m in board.masks]
    ids[2:] = fleet.shower.layouts[1].legal[0][0]
    fleet.step(ids)
    after = np.stack(fleet.observe()[0].masks)
    assert (after.sum(axis=1) == np.stack(board.masks).sum(axis=1) - 2).all()  # and the answer
    other = fleet_of(BOARD, CARTPOLE, begin=False)
    other.shower.know(fleet.shower.known())
    other.restore(fleet.state())
    np.testing.assert_array_equal(np.stack(other.observe()[0].masks), after)


def test_an_illegal_move_is_a_failure_of_that_environment_alone():
    fleet = fleet_of(BOARD)
    start = fleet.shower.layouts[0].legal[0][0]
    fleet.step(start + np.array([[np.flatnonzero(m)[0]] for m in fleet.observe()[0].masks]))
    assert not fleet.failures
    first, second = np.stack(fleet.observe()[0].masks)
    ids = start + np.array([[np.flatnonzero(first == 0)[0]], [np.flatnonzero(second)[0]]])
    stepped = fleet.step(ids)
    assert stepped.failed.tolist() == [True, False] and "board/TicTacToe" in fleet.failures[0]


def test_a_state_of_other_environments_is_refused():
    state = fleet_of(CARTPOLE).state()
    with pytest.raises(GeneralistError, match="saved with 2 environments, and there are 3"):
        fleet_of(CARTPOLE, count=3).restore(state)


def test_actors_see_and_earn_the_same_and_are_found_again():
    alone, with_actors = fleet_of(CARTPOLE, GOTO, count=3), fleet_of(CARTPOLE, GOTO, count=3,
                                                                     actors=2)  # fmt: skip
    try:
        assert seen(with_actors) == seen(alone)
        for one, two in zip(play(alone, 40), play(with_actors, 40), strict=True):
            np.testing.assert_array_equal(one.rewards, two.rewards)
            np.testing.assert_array_equal(one.going_on, two.going_on)
        assert seen(with_actors) == seen(alone)
        state = with_actors.state()
        other = fleet_of(CARTPOLE, GOTO, count=3, begin=False)
        other.shower.know(with_actors.shower.known())
        other.restore(state)
        assert seen(other) == seen(with_actors)
        # One is killed, one hangs: both lose their step, and play on.
        with_actors._patience = 20
        os.kill(with_actors._crews[0].process.pid, signal.SIGKILL)
        os.kill(with_actors._crews[1].process.pid, signal.SIGSTOP)
        with_actors._crews[1]._patience = 0.5
        before = with_actors._episodes.copy()
        (lost,) = play(with_actors, 1)
        assert lost.failed.all()
        assert "ended with exit code -9" in lost.failures[0]
        assert "gave no answer in 0.5 seconds" in lost.failures[1]
        assert (with_actors._episodes == before + 1).all()
        (after,) = play(with_actors, 1)
        assert not after.failed.any()
        # One that is lost while the run is saved is replaced too.
        os.kill(with_actors._crews[0].process.pid, signal.SIGKILL)
        state = with_actors.state()
        assert "ended with exit code -9" in with_actors.failures[-1]
        again = fleet_of(CARTPOLE, GOTO, count=3, begin=False)
        again.shower.know(with_actors.shower.known())
        again.restore(state)
        assert seen(again) == seen(with_actors)
    finally:
        with_actors.close()


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_an_actor_that_is_lost_while_a_run_is_resumed_is_replaced(signal_: signal.Signals):
    """As one that is lost while the run plays: the others are where they were."""
    fleet = fleet_of(CARTPOLE, GOTO, count=3)
    play(fleet, 15)
    other = fleet_of(CARTPOLE, GOTO, count=3, actors=2, begin=False)
    begin, patience = other.begin, 0.3

    def begin_and_lose_one(episodes: np.ndarray) -> None:
        begin(episodes)
        other._crews[0]._patience = patience
        os.kill(other._crews[0].process.pid, signal_)

    other.begin = begin_and_lose_one
    try:
        other.shower.know(fleet.shower.known())
        other.restore(fleet.state())
        why = "ended with exit code -9" if signal_ == signal.SIGKILL else "gave no answer in 0.3"
        assert len(other.failures) == 1 and f"Actor 0 {why}" in other.failures[0]
        lost = np.isin(np.arange(6), other._crewed[0].numbers)
        assert lost.sum() == 4
        np.testing.assert_array_equal(other.episodes, fleet.episodes + lost)
        for (one, two), part in zip(
            zip(fleet.observe(), other.observe(), strict=True), fleet.of_task, strict=True
        ):
            np.testing.assert_array_equal(one.ids[~lost[part]], two.ids[~lost[part]])
        (after,) = play(other, 1)
        assert not after.failed.any() and len(other.failures) == 1
    finally:
        other.close()


def test_a_fault_in_an_actor_is_told_like_one_here():
    fleet = fleet_of(CARTPOLE, makers=[partial(make, "gym/CartPol-v1")], actors=1, begin=False)
    try:
        with pytest.raises(UsageError, match="There is no task 'gym/CartPol-v1'"):
            fleet.begin()
    finally:
        fleet.close()
