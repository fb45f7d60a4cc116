"""How well an agent follows an instruction that changes in mid-episode.

    python -m benchmarks.instructing --checkpoint runs/worlds/checkpoint --task miniworld/GoTo

Two ways to the same goal, in the same rooms: the second thing is named at once, or the first thing
is named, and the second takes its place after `--after` steps (`Session.instruct`). Rooms in which
the agent has reached something by then do not count. Judged by the simulator's state.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from generalist.acting.agent import Agent
from generalist.envs import make
from generalist.envs.mission_words import say
from generalist.envs.missions import Mission, Reach
from generalist.evaluation.intervals import success_interval
from generalist.seeds import EVALUATION_SEED
from generalist.session import Session
from generalist.streams import Stream, random_stream


def episode(agent: Agent, env: Any, task: str, seed: int, after: int) -> bool | None:
    """Whether the second thing was reached; None where the episode ended before it was named.

    Args:
        agent: acts.
        env: an environment of `task`.
        task: a task whose instruction names a thing to go to.
        seed: of the episode.
        after: steps after which the second thing is named; 0 names it at once.
    """
    session = Session(env, agent, task=task, seed=seed)
    base, rng = env.unwrapped, random_stream(seed, Stream.INSTRUCTIONS)
    first = base.mission.goal.targets
    others = [thing for thing in base.room.scene.things if thing not in first]
    second = others[int(rng.integers(len(others)))]
    told = say([("reach", second)], "seen", rng)
    while not session.done:
        if session.trace.steps == after:
            base.mission = Mission([Reach((second,))], base.room.scene)
            session.instruct(told)
        session.step()
    session.end()
    return None if session.trace.steps <= after else bool(session.trace.success)


def main() -> None:
    """Measure both ways, and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--task", default="miniworld/GoTo")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--after", type=int, default=4)
    given = parser.parse_args()
    agent = Agent.from_pretrained(given.checkpoint, given.task)
    env = make(given.task)
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + given.episodes)
    found: dict[str, Any] = {"task": given.task, "after": given.after}
    changed = {seed: episode(agent, env, given.task, seed, given.after) for seed in seeds}
    counted = [seed for seed in seeds if changed[seed] is not None]
    at_once = [bool(episode(agent, env, given.task, seed, 0)) for seed in counted]
    later = [bool(changed[seed]) for seed in counted]
    for way, reached in (("at once", at_once), ("in mid-episode", later)):
        interval = success_interval(int(np.sum(reached)), len(reached))
        found[way] = {"reached": float(np.mean(reached)), "interval": interval, "of": len(reached)}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
