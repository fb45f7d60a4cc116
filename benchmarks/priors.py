"""What is a prior worth to a search in a simulator that can be restored?

    python -m benchmarks.priors quickstart gym/CartPole-v1 dmc/reacher-easy --episodes 10
    python -m benchmarks.priors quickstart atari/Pong --max-steps 300 --plan tree:simulations=8

Three play the same seeds of each task: the checkpoint as it acts by itself, the same checkpoint
with a tree search, and the planner, which knows no model, with as many steps of the simulator for
each decision as the search took in the mean. Returns are raw sums of rewards.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import print_table, screen, write_json
from generalist import envs
from generalist.acting.agent import Agent
from generalist.acting.environment import options_for
from generalist.acting.hub import checkpoint_folder
from generalist.acting.trees import TreePlan, TreePolicy
from generalist.acting.zero_shot import agent_for
from generalist.evaluation.measure import checkpoint_tasks
from generalist.experts import policy_named
from generalist.policy import Policy
from generalist.seeds import EVALUATION_SEED
from generalist.session import play


@dataclass(frozen=True)
class Row:
    """What one of the three did in a task.

    Attributes:
        task: its name.
        who: `alone`, the plan, or the planner's name.
        simulated: steps of the simulator for each decision.
        returns: of the episodes, in the order of their seeds.
        mean: of them.
        decisions: in all episodes.
        milliseconds: of wall clock for each decision.
    """

    task: str
    who: str
    simulated: float
    returns: list[float]
    mean: float
    decisions: int
    milliseconds: float


def measure(
    agent: Agent, task: str, plan: TreePlan, *, seeds: Sequence[int], max_steps: int | None
) -> list[Row]:
    """The rows of a task."""
    with ExitStack() as stack:
        made = [envs.make(task, **options_for(agent, task, {})) for _ in seeds]
        for env in made:
            stack.enter_context(closing(env))
        acting = agent_for(agent, task, made[0])

        def row(who: str, policy: Policy, simulated: float = 0.0) -> Row:
            began = time.perf_counter()
            traces = sorted(
                play(policy, made, seeds, task=task, max_steps=max_steps),
                key=lambda trace: trace.seed,
            )
            seconds = time.perf_counter() - began
            returns = [trace.return_ for trace in traces]
            decisions = sum(trace.steps for trace in traces)
            if isinstance(policy, TreePolicy):
                simulated = policy.steps / decisions
            mean, each = statistics.fmean(returns), 1e3 * seconds / decisions
            return Row(task, who, simulated, returns, mean, decisions, each)

        alone = row("alone", acting)
        tree = row(str(plan), TreePolicy(acting, plan, made))
        name = f"planner@{round(tree.simulated)}"
        return [alone, tree, row(name, policy_named(task, name, made), round(tree.simulated))]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--plan", default="tree:simulations=16", help="default: %(default)s")
    parser.add_argument("--episodes", type=int, default=10, help="all at once")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="of the first episode")
    parser.add_argument("--max-steps", type=int, help="cut episodes there")
    parser.add_argument("--temperature", type=float, help="default: the checkpoint's own")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    folder = checkpoint_folder(given.checkpoint)
    known = checkpoint_tasks(folder)
    agent = Agent.from_pretrained(folder, task=known[0], temperature=given.temperature)
    seeds = range(given.seed, given.seed + given.episodes)
    plan = TreePlan.parse(given.plan)
    rows = [
        row
        for task in given.tasks
        for row in measure(agent, task, plan, seeds=seeds, max_steps=given.max_steps)
    ]
    print_table(
        screen(),
        f"{given.episodes} episodes from seed {given.seed}, at most {given.max_steps} steps",
        ("task", "who", "simulated steps", "mean return", "least", "most", "decisions", "ms each"),
        (
            (
                *(row.task, row.who, row.simulated, row.mean, min(row.returns), max(row.returns)),
                *(row.decisions, row.milliseconds),
            )
            for row in rows
        ),
    )
    write_json(given.json, {"rows": [vars(row) for row in rows]})


if __name__ == "__main__":
    main()
