"""Visual question answering: answer a question about what is seen; `vqa/BabyAI`."""

from __future__ import annotations

from generalist.envs.galleries import GALLERIES
from generalist.envs.registry import Task
from generalist.envs.speaking import speaking_task
from generalist.envs.statements import question

MAX_TOKENS = 7
REGISTERED = {name: f"a question about {each.description}" for name, each in GALLERIES.items()}


def names() -> list[str]:
    """Every task."""
    return list(GALLERIES)


def find(name: str) -> Task | None:
    """The task of a gallery; None for an unknown one."""
    if name not in GALLERIES:
        return None
    return speaking_task(
        f"vqa/{name}", GALLERIES[name], question, max_tokens=MAX_TOKENS, says="a question about"
    )
