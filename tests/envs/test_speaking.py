"""Pictures and what is said of them: the truth is what the simulator's state says."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from generalist.envs import get_task, list_tasks, make
from generalist.envs.babyai import VIEW_CELLS
from generalist.envs.babyai_pictures import TILE_PIXELS, BabyAICamera
from generalist.envs.galleries import GALLERIES
from generalist.envs.seen import Seen
from generalist.envs.statements import QUESTIONS, question, said_of
from generalist.errors import GeneralistError, UsageError
from generalist.tokenization.processor import load_processor

TASKS = [f"{family}/{name}" for family in ("caption", "vqa") for name in GALLERIES]
PAIRS = [(colour, kind) for colour in ("red", "blue", "grey") for kind in ("ball", "key")]


@pytest.mark.parametrize("task", TASKS)
def test_the_truth_is_what_the_simulators_state_says(task: str) -> None:
    env: Any = make(task)
    base = env.unwrapped
    for seed in range(30):
        picture, info = env.reset(seed=seed)
        statement, seen = base.statement, base.camera.seen()
        assert picture.shape == (84, 84, 3) and picture.dtype == np.uint8
        assert statement.truth(seen) == base.truth
        assert statement.wanted in (None, base.truth)
        assert info.get("instruction") == statement.question
        assert np.diff([each.away for each in seen]).min(initial=1.0) > 0.05
        *_, reward, terminated, truncated, said = env.step(base.truth)
        assert (reward, terminated, truncated, said["success"]) == (1.0, True, False, True)
        assert said["truth"] == said["said"] == base.truth
    env.close()


def test_minigrid_sees_what_was_put_into_the_room() -> None:
    env: Any = make("caption/BabyAI")
    env.reset(seed=3)
    put = [env.unwrapped.camera._env.grid.get(*cell) for cell in env.unwrapped.camera._spots]
    seen = env.unwrapped.camera.seen()
    assert [each.name for each in seen] == [f"{each.color} {each.type}" for each in put]


def test_another_seed_draws_another_picture_and_the_same_seed_the_same() -> None:
    one, other = make("vqa/BabyAI"), make("vqa/BabyAI")
    first, info = one.reset(seed=1)
    second, _ = one.reset(seed=2)
    again, info_again = other.reset(seed=1)
    assert np.array_equal(first, again) and info == info_again
    assert not np.array_equal(first, second)


def test_the_picture_of_another_episode_leaves_question_and_truth() -> None:
    own, other = make("vqa/BabyAI"), make("vqa/BabyAI", picture="other")
    for seed in range(5):
        (picture, info), (shown, told) = own.reset(seed=seed), other.reset(seed=seed)
        assert info == told and own.unwrapped.truth == other.unwrapped.truth
        assert not np.array_equal(picture, shown)
    with pytest.raises(UsageError, match="own, other; got 'no'"):
        make("vqa/BabyAI", picture="no")


@pytest.mark.parametrize("form", QUESTIONS)
def test_no_answer_to_a_question_is_right_much_more_often_than_another(form: str) -> None:
    """Given its words, all answers are equally frequent: the words do not tell the answer."""
    rng = np.random.default_rng(0)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for _ in range(6000):
        statement = QUESTIONS[form](PAIRS, rng)
        assert statement.question is not None and statement.wanted is not None
        answers[statement.question][statement.wanted] += 1
    for counts in answers.values():
        total = counts.total()
        error = 5 * np.sqrt(total) / total
        assert max(counts.values()) / total < 1 / len(counts) + error


def test_things_are_counted_in_the_plural() -> None:
    rng = np.random.default_rng(0)
    pairs = [("red", kind) for kind in ("ball", "box", "torch")]
    asked = {QUESTIONS["count"](pairs, rng).question for _ in range(100)}
    things = {f"how many {thing} are there?" for thing in ("balls", "boxes", "torches")}
    assert asked == things | {"how many red things are there?"}


def test_questions_have_all_forms_equally_often() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(question(PAIRS, rng).form for _ in range(3000))
    assert set(counts) == set(QUESTIONS) and min(counts.values()) > 400


@pytest.mark.parametrize(
    ("things", "caption"),
    [
        ([], "nothing"),
        ([("red", "key", 0)], "a red key"),
        ([("red", "key", 0), ("blue", "ball", 2)], "a red key left of a blue ball"),
        ([("red", "key", 3), ("blue", "ball", 2)], "a red key right of a blue ball"),
        ([("red", "key", 2), ("blue", "ball", 2)], "a red key in front of a blue ball"),
    ],
)
def test_captions_say_what_is_nearest_and_where(things: list[Any], caption: str) -> None:
    seen = [Seen(colour, kind, side, away) for away, (colour, kind, side) in enumerate(things)]
    assert said_of(seen) == caption


def test_who_never_looks_is_right_as_often_as_the_most_frequent_answer() -> None:
    env: Any = make("vqa/BabyAI")
    frequent = env.unwrapped.frequent
    assert set(frequent) == set(QUESTIONS)
    assert frequent["side"] in ("left", "right") and frequent["there"] in ("yes", "no")


def test_registered_tasks_are_found_and_unknown_ones_are_not() -> None:
    assert {task.name for family in ("caption", "vqa") for task in list_tasks(family)} == {*TASKS}
    with pytest.raises(UsageError, match="There is no task 'caption/Paris'"):
        get_task("caption/Paris")
    with pytest.raises(GeneralistError, match="call reset"):
        make("caption/BabyAI").step("a key")


def test_codes_of_a_picture_tell_what_stands_in_a_cell() -> None:
    """Else answers about BabyAI would be noise: two things with the same codes look the same."""
    from minigrid.core.grid import Grid
    from minigrid.core.world_object import Ball, Box, Key

    kinds = {"ball": Ball, "box": Box, "key": Key}
    grid = Grid(VIEW_CELLS, VIEW_CELLS)
    for number, (colour, kind) in enumerate(BabyAICamera.pairs):
        grid.set(number % VIEW_CELLS, number // VIEW_CELLS, kinds[kind](colour))
    lit = np.ones((VIEW_CELLS, VIEW_CELLS), bool)
    picture = grid.render(TILE_PIXELS, agent_pos=(3, 6), agent_dir=3, highlight_mask=lit)
    frames = load_processor("pictures").frames
    assert frames is not None
    side = round(frames.codes_per_frame**0.5) // VIEW_CELLS  # codes along a cell
    codes = frames.encode(picture[None], None).reshape(VIEW_CELLS, side, VIEW_CELLS, side)
    cells = codes.transpose(0, 2, 1, 3).reshape(VIEW_CELLS**2, -1)
    things = len(BabyAICamera.pairs)
    assert len(np.unique(cells[: things + 1], axis=0)) == things + 1  # and an empty one
