"""Gymnasium's own wrappers by name, so that a recorded environment can be made again as it was.

Only what is listed here is ever made: names in a dataset from elsewhere import nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium

from generalist.errors import UsageError

_HOME = "gymnasium.wrappers."
# What they do follows from their arguments alone; none writes files or opens windows.
_REBUILT = frozenset((
    "AtariPreprocessing", "ClipAction", "ClipReward", "DelayObservation", "DiscretizeAction",
    "DiscretizeObservation", "DtypeObservation", "FilterObservation", "FlattenObservation",
    "FrameStackObservation", "GrayscaleObservation", "MaxAndSkipObservation", "RepeatAction",
    "RescaleAction", "RescaleObservation", "ReshapeObservation", "ResizeObservation",
    "StickyAction", "TimeAwareObservation", "TimeLimit",
))  # fmt: skip
_WITHOUT_EFFECT = frozenset((
    "HumanRendering", "OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics",
    "RecordVideo", "RenderCollection",
))  # fmt: skip


def can_wrap(entry_point: str, kwargs: Mapping[str, Any] | None) -> bool:
    """Whether `wrapped` makes the wrapper at `module:Class` with these arguments."""
    return kwargs is not None and _name(entry_point) in _REBUILT


def has_no_effect(entry_point: str) -> bool:
    """Whether the wrapper at `module:Class` changes no observation, action or reward."""
    return _name(entry_point) in _WITHOUT_EFFECT


def wrapped(env: gymnasium.Env, wrappers: Sequence[Mapping[str, Any]]) -> gymnasium.Env:
    """Wrap an environment, the first of `wrappers` innermost; each is a `name` and its `kwargs`.

    Raises UsageError for a wrapper that is not listed here, or does not go with its arguments.
    """
    for each in wrappers:
        name, kwargs = str(each.get("name")), each.get("kwargs") or {}
        if name not in _REBUILT:
            known = ", ".join(sorted(_REBUILT))
            raise UsageError(f"There is no wrapper {name!r}; there are {known}.")
        try:
            env = getattr(gymnasium.wrappers, name)(env, **kwargs)
        except (AssertionError, TypeError, ValueError) as error:
            raise UsageError(f"The wrapper {name} cannot be made of {kwargs}: {error}.") from error
    return env


def _name(entry_point: str) -> str:
    """The class of an entry point of Gymnasium's wrappers, "" for others."""
    module, _, name = entry_point.partition(":")
    return name if module.startswith(_HOME) else ""
