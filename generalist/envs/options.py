"""Options of environments: what they are where they are not given, and where two differ."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from generalist.envs.instructions import OWN
from generalist.envs.registry import get_task

Options = Mapping[str, Any]


def default_options(task: str) -> dict[str, Any]:
    """The options of a task that are known, with their values where they are not given.

    A family may know more of them than the signature of its `make` says: its module then has
    `defaults(name)`.
    """
    family, _, name = task.partition("/")
    record = get_task(task)
    found = {"instructions": OWN, **defaults_of(record.make)}
    if "max_steps" in found:
        found["max_steps"] = record.max_steps
    module = importlib.import_module(f"generalist.envs.{family}")
    return found | (module.defaults(name) if hasattr(module, "defaults") else {})


def defaults_of(function: Any) -> dict[str, Any]:
    """The parameters of a function that have a default, with it; not how it renders."""
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not parameter.empty and parameter.name != "render_mode"
    }


def changed_options(task: str, options: Options) -> dict[str, Any]:
    """Those of `options` that make another environment than the task has without any."""
    return {name: made for name, (made, _) in option_differences(task, options, {}).items()}


def option_differences(task: str, one: Options, other: Options) -> dict[str, tuple[Any, Any]]:
    """The options in which two environments of a task differ, with the values of both.

    An option that is not given has its default; None where that is not known.
    """
    defaults = default_options(task)
    values = {
        name: (one.get(name, defaults.get(name)), other.get(name, defaults.get(name)))
        for name in sorted({*one, *other})
    }
    return {name: both for name, both in values.items() if _plain(both[0]) != _plain(both[1])}


def _plain(value: Any) -> Any:
    """A value as JSON gives it back, so that a list equals a tuple and an array."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return value
