"""MiniWorld: rooms that the seed draws, missions that the state judges, words that are held out."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from generalist.envs import get_task, list_tasks, make
from generalist.envs.controls import CONTROLS, KEYS, held_keys, pressed
from generalist.envs.miniworld import HELD_OUT, WORLD
from generalist.envs.mission_words import _KINDS, _TEMPLATES, WORDS, say
from generalist.envs.scene import Thing
from generalist.envs.skills import Palette
from generalist.errors import UsageError
from generalist.experts import demonstrate, get_expert, policy_named
from generalist.tokenization.processor import load_processor

TASKS = [task.name for task in list_tasks("miniworld")]


@pytest.fixture(scope="module")
def goto():
    return make("miniworld/GoTo", render_mode="rgb_array")


def play(env, seed: int, actions: int = 6):
    observation, info = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    seen, said = [observation.tobytes()], info["instruction"]
    for _ in range(actions):
        keys = ("W",) if rng.random() < 0.5 else ()
        observation, *_ = env.step(pressed(*keys, yaw=rng.uniform(-45, 45)))
        seen.append(observation.tobytes())
        if env.unwrapped.mission is None:
            break
    return said, seen


def test_a_seed_draws_room_and_words_whatever_was_played_before_or_beside(goto):
    first = play(goto, 3)
    beside = make("miniworld/OpenGoTo")  # its room is drawn with the same graphics context
    beside.reset(seed=8)
    assert play(goto, 4) != first
    beside.step(pressed("W"))
    assert play(goto, 3) == first
    beside.close()


def test_it_draws_beside_a_simulator_with_a_graphics_context_of_its_own(goto):
    first = play(goto, 3)
    other = make("dmc/cartpole-swingup", render_mode="rgb_array")
    other.reset(seed=0)
    pixels = other.render()  # its context is the current one now
    new = make("miniworld/GoTo")
    assert play(new, 3) == first
    np.testing.assert_array_equal(other.render(), pixels)
    assert play(goto, 3) == first
    new.close()
    other.close()


def test_threads_draw_one_after_the_other(goto):
    """Each page of the viewer has a thread of its own, which does not end before the page does."""
    first = play(goto, 3)
    with ThreadPoolExecutor(3) as threads:
        made = [threads.submit(lambda: play(make("miniworld/GoTo"), 3)) for _ in range(3)]
        assert play(goto, 3) == first
        assert [each.result() for each in made] == [first] * 3
        assert play(goto, 3) == first


def test_the_thread_that_draws_first_does_not_keep_the_context():
    code = """if True:
        from concurrent.futures import ThreadPoolExecutor
        from tests.envs.test_miniworld import make, play

        with ThreadPoolExecutor(1) as first:
            there = first.submit(lambda: play(make("miniworld/GoTo"), 3)).result()
            assert play(make("miniworld/GoTo"), 3) == there
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_another_simulator_may_be_thrown_away_while_it_draws(goto, monkeypatch):
    """Freeing the context of a MuJoCo environment leaves its thread without any."""
    from miniworld.miniworld import Room

    first, draw = play(goto, 3), Room._render
    other = make("gym/InvertedPendulum-v5", render_mode="rgb_array")
    other.reset(seed=0)
    other.render()
    thrown_away = [other]
    thrown_away.append(thrown_away)  # only the collection of garbage frees it

    def drawing(room):
        nonlocal thrown_away
        thrown_away = []
        kept = [[] for _ in range(20_000)]  # enough for a collection of everything
        draw(room)
        return kept

    del other
    gc.collect(1)
    monkeypatch.setattr(Room, "_render", drawing)
    thresholds = gc.get_threshold()
    gc.set_threshold(100, 1, 1)
    try:
        assert play(goto, 3) == first
    finally:
        gc.set_threshold(*thresholds)


@pytest.mark.parametrize("task", TASKS)
def test_the_guide_does_what_is_asked_with_keys_and_mouse(task):
    env = make(task)
    guide = policy_named(task, None, [env])
    done = [demonstrate(guide, env, task, seed).success for seed in range(5)]
    assert np.mean(done) >= 0.8
    env.close()


def test_a_layout_holds_a_frame_and_each_key_and_motion(goto):
    layout = load_processor("worlds").layout(
        goto.observation_space, goto.action_space, task="miniworld/GoTo"
    )
    assert len(layout.legal) == len(CONTROLS) == 8
    assert layout.tokens_per_timestep == 49 + 1 + 8
    assert get_task("miniworld/GoTo").controls == CONTROLS
    assert held_keys(pressed("W", "E")) == {"W", "E"} and "W" in KEYS


def test_another_thing_ends_the_episode_without_success(goto):
    """The guide of another instruction goes to another thing, which is not what the words say."""
    for seed in range(5):
        observation, _ = goto.reset(seed=seed)
        mission, scene = goto.unwrapped.mission, goto.unwrapped.room.scene
        right = mission.goal.targets
        wrong = next(each for each in scene.things if each not in right)
        guide = get_expert("miniworld/GoTo")
        guide.reset(goto, seed)
        done, actions, info = False, [], {}
        while not done:
            assert "hindsight" not in info
            mission.goal.targets = (wrong,)
            actions.append(guide.label(observation, goto))
            mission.goal.targets = right
            observation, reward, terminated, truncated, info = goto.step(actions[-1])
            done = terminated or truncated
        assert terminated and not info["success"] and info["named_first"] is False
        assert reward == 0
        # In hindsight it followed another instruction: told that one, the same actions succeed.
        reached, instead = mission.goal.instead, info["hindsight"]
        assert any(f"{reached.colour} {noun}" in instead["instruction"]
                   for noun in _KINDS[reached.kind])  # fmt: skip
        goto.reset(seed=seed)
        mission, scene = goto.unwrapped.mission, goto.unwrapped.room.scene
        mission.goal.targets = tuple(
            each for each in scene.things
            if (each.colour, each.kind) == (reached.colour, reached.kind)
        )  # fmt: skip
        for action in actions:
            _, reward, _, _, info = goto.step(action)
        assert info["success"] and reward == pytest.approx(instead["reward"])


def test_a_gesture_in_place_of_another_is_named():
    env = make("miniworld/Gesture")
    for seed in range(12):
        env.reset(seed=seed)
        wanted = env.unwrapped.mission.goal.what
        for _ in range(3):
            *_, terminated, _, info = env.step(pressed(yaw=30))
            if terminated:
                break
        assert terminated and info["success"] == (wanted == "right")
        assert ("hindsight" in info) == (wanted != "right")
        if wanted != "right":
            assert info["hindsight"]["instruction"] in _TEMPLATES["seen"]["right"]
    env.close()


def test_who_turns_on_the_spot_reaches_nothing(goto):
    goto.reset(seed=0)
    for _ in range(20):
        *_, terminated, _, info = goto.step(pressed(yaw=30))
        assert not terminated and not info["named_first"]


def test_held_out_pairs_stand_in_no_room_of_training_and_are_named_otherwise():
    for name, skill in WORLD.skills.items():
        for seed in range(20):
            things = skill.plan(Palette(np.random.default_rng(seed), WORLD.kit)).things
            assert not {(each.colour, each.kind) for each in things} & set(HELD_OUT), name
            if skill.names_a_pair and name != "Any":
                palette = Palette(np.random.default_rng(seed), WORLD.kit, "heldout")
                goals = skill.plan(palette).goals
                named = [(t.colour, t.kind) for goal in goals for t in goal.targets]
                assert set(named) & set(HELD_OUT), name


def test_paraphrases_are_new_sentences_of_known_words_and_synonyms_have_new_words():
    def words(texts) -> set[str]:
        return set(re.findall(r"[a-z]+", re.sub(r"{.}", "", " ".join(texts))))

    seen = {text for texts in _TEMPLATES["seen"].values() for text in texts}
    nouns = {text for texts in _KINDS.values() for text in texts}
    for verb, texts in _TEMPLATES["paraphrases"].items():
        assert not set(texts) & seen, verb
        assert words(texts) <= words(seen) | words(nouns), verb
    for verb, texts in _TEMPLATES["synonyms"].items():
        assert all(words([text]) - words(seen) for text in texts), verb
    thing = Thing("red", "box")
    said = {
        each: {say([("reach", thing)], each, np.random.default_rng(s)) for s in range(60)}
        for each in WORDS
    }
    assert not said["seen"] & said["paraphrases"] and not said["seen"] & said["synonyms"]


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("GoTo", {"words": "french"}, "words is one of seen, paraphrases, synonyms"),
        ("GoTo", {"pairs": "all"}, "pairs is one of seen, heldout"),
        ("OpenDoor", {"pairs": "heldout"}, "names no thing by colour and kind"),
    ],
)
def test_wrong_options_are_refused(task, options, said):
    with pytest.raises(UsageError, match=said):
        make(f"miniworld/{task}", **options)
