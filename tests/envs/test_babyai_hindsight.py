"""What was done instead is what BabyAI's own checker calls a success of the other instruction."""

from __future__ import annotations

import numpy as np
import pytest
from minigrid.envs.babyai.core.verifier import GoToInstr, ObjDesc, OpenInstr, PickupInstr, SeqInstr

from generalist.envs import make

KINDS = {"go to": GoToInstr, "pick up": PickupInstr, "open": OpenInstr}


def wander(env, seed: int) -> tuple[list[int], dict | None, bool]:
    """Random actions of an episode up to what was done instead, and whether it was a success."""
    env.reset(seed=seed)
    rng, actions = np.random.default_rng(seed), []
    while True:
        actions.append(int(rng.choice(6, p=[0.2, 0.2, 0.4, 0.1, 0, 0.1])))
        _, reward, terminated, truncated, info = env.step(actions[-1])
        if "hindsight" in info or terminated or truncated:
            return actions, info.get("hindsight"), reward > 0


@pytest.mark.parametrize(
    ("level", "kind"),
    [("GoToLocal", "go to"), ("GoToDoor", "go to"), ("PickupDist", "pick up"),
     ("OpenDoor", "open")],
)  # fmt: skip
def test_the_checker_says_the_same_of_the_other_instruction(level: str, kind: str) -> None:
    env, twin = make(f"babyai/{level}"), make(f"babyai/{level}")
    found = 0
    for seed in range(12):
        actions, instead, success = wander(env, seed)
        if instead is None:
            continue
        found += 1
        assert not success
        said = instead["instruction"]
        assert said.startswith(kind) and said != env.unwrapped.mission
        _, colour, thing = said.removeprefix(kind).split()
        base = twin.unwrapped
        twin.reset(seed=seed)
        other = KINDS[kind](ObjDesc(thing, colour))
        other.reset_verifier(base)
        assert other.surface(base) == said
        verdicts = []
        for action in actions:
            twin.step(action)
            verdicts.append(other.verify(action))
        assert verdicts == ["continue"] * (len(actions) - 1) + ["success"]
        assert instead["reward"] == pytest.approx(base._reward())
    assert found >= 3


def test_it_is_said_once_and_not_of_what_the_mission_names() -> None:
    env, told, right = make("babyai/GoToLocal"), 0, 0
    for seed in range(10):
        _, info = env.reset(seed=seed)
        rng, done, times = np.random.default_rng(seed), False, 0
        while not done:
            _, reward, terminated, truncated, after = env.step(int(rng.choice(3)))
            times += "hindsight" in after
            done = terminated or truncated
            if "hindsight" in after:
                assert reward == 0 and after["hindsight"]["instruction"] != info["instruction"]
        assert times == (not after["named_first"]) or after["named_first"] is False
        told, right = told + times, right + bool(after["named_first"])
        assert times <= 1
    assert told and right


def test_a_mission_of_several_clauses_is_left_alone() -> None:
    env = make("babyai/GoToSeqS5R2")
    several = 0
    for seed in range(12):
        env.reset(seed=seed)
        if isinstance(env.unwrapped.instrs, SeqInstr):
            several += 1
            assert wander(env, seed)[1] is None
    assert several
