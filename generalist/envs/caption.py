"""Captions: say in words what is seen, `a red key left of a blue ball`; `caption/BabyAI`."""

from __future__ import annotations

from generalist.envs.galleries import GALLERIES
from generalist.envs.registry import Task
from generalist.envs.speaking import speaking_task
from generalist.envs.statements import caption

MAX_TOKENS = 20
REGISTERED = {name: f"a caption of {each.description}" for name, each in GALLERIES.items()}


def names() -> list[str]:
    """Every task."""
    return list(GALLERIES)


def find(name: str) -> Task | None:
    """The task of a gallery; None for an unknown one."""
    if name not in GALLERIES:
        return None
    return speaking_task(
        f"caption/{name}", GALLERIES[name], caption, max_tokens=MAX_TOKENS, says="a caption of"
    )
