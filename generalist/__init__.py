"""generalist: every kind of experience as one token sequence, one causal transformer, one agent.

The names below are the public interface; each is imported when it is first used, so that
`import generalist` stays fast and does not load torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from generalist.errors import needing
from generalist.version import __version__ as __version__

if TYPE_CHECKING:
    from generalist.acting.agent import Agent
    from generalist.acting.rollout import rollout
    from generalist.collecting.collect import collect
    from generalist.envs import list_tasks, make, make_vec
    from generalist.episode import Episode
    from generalist.errors import GeneralistError, UsageError
    from generalist.evaluation.measure import evaluate
    from generalist.policy import Decision, Policy
    from generalist.tokenization.layout import Layout
    from generalist.tokenization.processor import GeneralistProcessor
    from generalist.training.loop import train
    from generalist.training.recipe import load_recipe
    from generalist.vocabulary import Vocabulary

# SDL, which pygame draws with, would catch SIGTERM and let no process that has drawn end by it.
os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")

_HOMES = {
    "Agent": "generalist.acting.agent",
    "Decision": "generalist.policy",
    "Episode": "generalist.episode",
    "GeneralistError": "generalist.errors",
    "GeneralistProcessor": "generalist.tokenization.processor",
    "Layout": "generalist.tokenization.layout",
    "Policy": "generalist.policy",
    "UsageError": "generalist.errors",
    "Vocabulary": "generalist.vocabulary",
    "collect": "generalist.collecting.collect",
    "evaluate": "generalist.evaluation.measure",
    "list_tasks": "generalist.envs",
    "load_recipe": "generalist.training.recipe",
    "make": "generalist.envs",
    "make_vec": "generalist.envs",
    "rollout": "generalist.acting.rollout",
    "train": "generalist.training.loop",
}
__all__ = [
    "Agent",
    "Decision",
    "Episode",
    "GeneralistError",
    "GeneralistProcessor",
    "Layout",
    "Policy",
    "UsageError",
    "Vocabulary",
    "collect",
    "evaluate",
    "list_tasks",
    "load_recipe",
    "make",
    "make_vec",
    "rollout",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'generalist' has no attribute {name!r}")
    with needing(f"generalist.{name}"):
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
