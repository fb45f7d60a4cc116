"""generalist: every kind of experience as one token sequence, one causal transformer, one agent.

The names below are the public interface; each is imported when it is first used, so that
`import generalist` stays fast and does not load torch.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.1.0"

# SDL, which pygame draws with, would catch SIGTERM and let no process that has drawn end by it.
os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")

_HOMES = {
    "Agent": "generalist.acting.agent",
    "Episode": "generalist.episode",
    "GeneralistError": "generalist.errors",
    "GeneralistProcessor": "generalist.tokenization.processor",
    "Vocabulary": "generalist.vocabulary",
    "make": "generalist.envs",
    "make_vec": "generalist.envs",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'generalist' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
