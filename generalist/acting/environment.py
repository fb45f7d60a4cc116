"""The environment that an agent was trained in: its options, and how another one differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from generalist.envs.options import option_differences
from generalist.errors import GeneralistError
from generalist.shards.spaces import space_to_json

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

_BOUNDS = ("low", "high", "n", "start", "nvec")


def options_for(agent: Agent, task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options for a task's environment: those in training, overridden by `given`.

    Args:
        agent: an agent whose checkpoint holds the options in training.
        task: name of the task; the checkpoint need not know it.
        given: the user's own options, as `generalist.make` takes them.
    """
    return {**agent.environments.get(task, {}).get("options", {}), **given}


def difference_note(
    agent: Agent, task: str, *, options: Mapping[str, Any], env: gymnasium.Env
) -> str | None:
    """How an environment differs from the one that the agent was trained in, in one line.

    Args:
        agent: an agent whose checkpoint holds options and spaces in training.
        task: name of the environment's task.
        options: the options of the environment.
        env: the environment.

    Returns:
        None where nothing differs, or where the checkpoint does not know the task.

    Raises:
        GeneralistError: the spaces have other parts, kinds or shapes, so the agent cannot act.
    """
    trained = agent.environments.get(task)
    if trained is None:
        return None
    differences = option_differences(task, options, trained.get("options", {}))
    said = [
        f"{name} {made!r} instead of {before!r}" for name, (made, before) in differences.items()
    ]
    for role, space in (("observation", env.observation_space), ("action", env.action_space)):
        before = trained.get("spaces", {}).get(role)
        if before is None:
            continue
        for name, made, known in _leaves(space_to_json(space), before, role):
            if made is None or known is None or _shape(made) != _shape(known):
                raise GeneralistError(
                    f"{task}: {name} is {_in_words(made)}, but the checkpoint was trained with "
                    f"{_in_words(known)}"
                    + (f"; the environment was made with {'; '.join(said)}." if said else ".")
                )
            if any(made.get(key) != known.get(key) for key in _BOUNDS if key in known):
                said.append(f"other bounds of {name}")
    if not said:
        return None
    return f"{task} differs from what the checkpoint was trained in: {', '.join(said)}."


def _leaves(one: Any, other: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the names and the pairs of leaves of two spaces as JSON; None for a missing leaf."""
    parts = [_parts(space) for space in (one, other)]
    if parts[0] is None or parts[1] is None:
        yield name, one, other
        return
    for key in sorted({*parts[0], *parts[1]}, key=str):
        yield from _leaves(parts[0].get(key), parts[1].get(key), f"{name}/{key}")


def _parts(space: Any) -> dict[Any, Any] | None:
    """The spaces of a Dict or Tuple by key or index; None for a leaf."""
    within = None if space is None else space.get("spaces")
    return dict(enumerate(within)) if isinstance(within, list) else within


def _shape(leaf: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an agent needs unchanged: the shape, and whether values are real, integer or text."""
    if "dtype" not in leaf:
        return (leaf.get("type"),)
    return tuple(leaf.get("shape") or ()), np.dtype(leaf["dtype"]).kind == "f"


def _in_words(leaf: Mapping[str, Any] | None) -> str:
    if leaf is None:
        return "missing"
    if _parts(leaf) is not None or "dtype" not in leaf:
        return f"a {leaf.get('type')}"
    return f"a {leaf.get('type')} of shape {tuple(leaf.get('shape') or ())}, {leaf['dtype']}"
