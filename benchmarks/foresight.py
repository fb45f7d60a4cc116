"""How far a world model's predicted states are from what happened.

    python -m benchmarks.foresight --checkpoint runs/beams/checkpoint --train data/mixed \\
        --heldout data/heldout

From states of episodes that nothing was trained on, the model predicts 1, 5, 20 and 100 steps by
itself, given the actions that were executed (as Figures 1 and 2 of Janner et al. 2021). So do two
others: a linear model, fitted by least squares to the episodes of the training data (the next state
from the state, the action, and 1), and one that repeats the last state. All are given states and
actions as the shards have them, in bins, and the model also sees the timesteps before them.

An error is the root mean square over dimensions, each in standard deviations of the training data,
and the mean of that over all beginnings. Dimensions that never change are left out.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import print_table, screen, write_json
from generalist.acting.agent import Agent
from generalist.acting.foresight import Foresight
from generalist.episode import tree_leaves
from generalist.evaluation.measure import checkpoint_tasks
from generalist.shards.reader import TaskData, dataset_folders
from generalist.tokenization.layout import Layout

STEPS = (1, 5, 20, 100)
BEFORE = 8
"""Timesteps that the model has seen where it begins to predict, the first of them included."""


@dataclass
class Compared:
    """Errors in one task, so many steps ahead."""

    task: str
    steps: int
    beginnings: int
    model: float
    linear: float
    repeat: float
    of_linear: float  # the model's error in parts of the linear one's


@dataclass
class Stretch:
    """Neighbouring timesteps of an episode, as ids: observed (T, K) and done (T, k)."""

    observed: np.ndarray
    done: np.ndarray


def stretches(data: TaskData, count: int, length: int, seed: int) -> list[Stretch]:
    """From episodes of a folder, in turn, `count` stretches at random of up to `length` steps.

    Only beginnings with at least one step to predict are drawn.
    """
    rng, found = np.random.default_rng(seed), []
    long_enough = [n for n in range(len(data)) if data.row(n).steps > BEFORE]
    for number in range(count if long_enough else 0):
        row = data.row(long_enough[number % len(long_enough)])
        first = int(rng.integers(0, row.steps - BEFORE))
        found.append(_stretch(data, row, first, length))
    return found


def _stretch(data: TaskData, row: Any, first: int, length: int) -> Stretch:
    positions = data.layout.positions
    stored = data.tokens_of(row).reshape(row.steps, -1)[first : first + length].astype(np.int64)
    return Stretch(*(stored[:, positions.of_role(role)] for role in ("observation", "action")))


class Coded:
    """Ids as numbers.

    Args:
        layout: of the task.
        toolbox: of the processor.
    """

    def __init__(self, layout: Layout, toolbox: Any) -> None:
        self._layout, self._toolbox = layout, toolbox

    def states(self, ids: np.ndarray) -> np.ndarray:
        """(n, K) ids of observations to (n, d) float64."""
        return self._flat("observation", ids)

    def actions(self, ids: np.ndarray) -> np.ndarray:
        """(n, k) ids of actions to (n, a) float64; buttons as flags."""
        if all(part.codec.ordinal for part in self._layout.parts_of("action")):
            return self._flat("action", ids)
        flags = [
            ids[:, [number]] == np.arange(start, stop)
            for number, (start, stop) in enumerate(self._layout.legal)
        ]
        return np.concatenate(flags, axis=1).astype(np.float64)

    def _flat(self, role: Any, ids: np.ndarray) -> np.ndarray:
        tree = self._layout.decode(role, ids, self._toolbox)
        leaves = [np.asarray(leaf, np.float64) for _, leaf in tree_leaves(tree)]
        return np.concatenate([leaf.reshape(len(ids), -1) for leaf in leaves], axis=1)


class Linear:
    """The next state as a linear function of the state and the action.

    Args:
        data: the training data.
        coded: what its ids stand for.

    Attributes:
        spread: (d,) standard deviations of the states.
    """

    def __init__(self, data: TaskData, coded: Coded) -> None:
        inputs, outputs, states = [], [], []
        for number in range(len(data)):
            row = data.row(number)
            whole = _stretch(data, row, 0, row.steps)
            own = coded.states(whole.observed)
            inputs.append(self._inputs(own[:-1], coded.actions(whole.done[:-1])))
            outputs.append(own[1:])
            states.append(own)
        self.spread = np.concatenate(states).std(axis=0)
        fitted = np.linalg.lstsq(np.concatenate(inputs), np.concatenate(outputs), rcond=None)
        self._weights = fitted[0]

    @staticmethod
    def _inputs(states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return np.concatenate([states, actions, np.ones((len(states), 1))], axis=1)

    def after(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(n, d) next states, from (n, d) states and (n, a) actions."""
        return self._inputs(states, actions) @ self._weights


def predicted(agent: Agent, given: list[Stretch], steps: int) -> list[np.ndarray]:
    """Of each step ahead, from 1 on, the (n, K) ids that a world model predicts.

    Where an episode is over, its last action is repeated, and what is predicted counts for nothing.
    """
    foresight = Foresight(agent)
    form, decoder = foresight.form, agent.new_decoder(len(given))
    slots = list(range(len(given)))
    header = agent.header()
    for slot in slots:
        decoder.reset(slot, header.ids, slot, header.added)
    found: list[np.ndarray] = []
    seen = np.stack([each.observed[0] for each in given])
    for step in range(BEFORE + steps - 1):
        done = np.stack([each.done[min(step, len(each.done) - 1)] for each in given])
        vectors = form.observed(seen)
        decoder.observe(slots, [form.separator] * vectors.shape[1], vectors, reserve=1)
        hidden = decoder.append(slots, [form.separator], form.taken(seen, done))[:, 0]
        decoder.finish(slots)
        if step < BEFORE - 1:
            seen = np.stack([each.observed[step + 1] for each in given])
        else:
            seen = foresight.following(hidden, seen, depth=step)
            found.append(seen)
    return found


def compare(agent: Agent, train: TaskData, heldout: TaskData, beginnings: int) -> list[Compared]:
    """Errors of all three in one task."""
    coded = Coded(train.layout, agent.processor.toolbox)
    linear = Linear(train, coded)
    moves = linear.spread > 1e-9
    given = stretches(heldout, beginnings, BEFORE + max(STEPS), seed=0)
    ahead = predicted(agent, given, max(STEPS))
    begin = coded.states(np.stack([each.observed[BEFORE - 1] for each in given]))
    state, rows = begin, []
    for step in range(1, max(STEPS) + 1):
        place = [min(BEFORE - 2 + step, len(each.done) - 1) for each in given]
        done = np.stack([each.done[at] for each, at in zip(given, place, strict=True)])
        state = linear.after(state, coded.actions(done))
        if step not in STEPS:
            continue
        there = [n for n, each in enumerate(given) if len(each.observed) > BEFORE - 1 + step]
        if not there:
            continue
        true = coded.states(np.stack([given[n].observed[BEFORE - 1 + step] for n in there]))
        errors = []
        for guess in (coded.states(ahead[step - 1]), state, begin):
            off = ((guess[there] - true) / np.where(moves, linear.spread, 1))[:, moves]
            errors.append(float(np.sqrt((off**2).mean(axis=1)).mean()))
        own, line, last = errors
        ratio = own / line if line else float("nan")
        rows.append(Compared(train.task, step, len(there), own, line, last, of_linear=ratio))
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True, help="data that it was trained on")
    parser.add_argument("--heldout", type=Path, required=True, help="data that it was not")
    parser.add_argument("--beginnings", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    known = checkpoint_tasks(options.checkpoint)
    train, heldout = (
        {data.task: data for data in map(TaskData, dataset_folders(root)) if data.task in known}
        for root in (options.train, options.heldout)
    )
    agent = Agent.from_pretrained(options.checkpoint, known[0], device="cpu")
    rows = []
    for task in sorted(train.keys() & heldout.keys() & agent.worlds.keys()):
        own = agent.for_task(task)
        rows += compare(own, train[task], heldout[task], options.beginnings)
    columns = [key.replace("_", " ") for key in Compared.__dataclass_fields__]
    print_table(screen(), "Errors of predicted states", columns, map(astuple, rows))
    write_json(options.json, {"errors": [asdict(each) for each in rows]})


if __name__ == "__main__":
    main()
