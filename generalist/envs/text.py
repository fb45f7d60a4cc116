"""Text: documents to be read on, from the documentation that comes with Python itself.

They lie on every machine that can run this package, so nothing is downloaded; another version of
Python has somewhat different ones.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from generalist.envs.registry import Task
from generalist.errors import UsageError

REGISTERED = {"pydoc": "the language reference and the docstrings of the standard library"}

Split = Literal["train", "heldout"]

_HELD_OUT_OF = 10  # one document in ten, by a hash of its name
_NOT_LIBRARY = {"site-packages", "test", "tests", "idlelib", "lib2to3", "pydoc_data"}


def names() -> list[str]:
    """Every collection of documents."""
    return list(REGISTERED)


def find(name: str) -> Task | None:
    """The task of a collection; None for an unknown one."""
    if name not in REGISTERED:
        return None
    return Task(
        name=f"text/{name}",
        family="text",
        make=functools.partial(_refuse, name),
        step_limit=0,
        description=REGISTERED[name],
    )


def _refuse(name: str, render_mode: str | None = None, **options: Any) -> Any:
    raise UsageError(
        f"text/{name} is documents, not an environment to act in; to see what a checkpoint makes "
        "of a beginning, use `generalist rollout text --prompt`."
    )


def documents(task: str, split: Split = "train") -> list[str]:
    """The documents of a text task, in an order that is always the same.

    One in ten is held out, chosen by a hash of its name, so that it stays held out when others
    come or go. Raises UsageError for a task without documents.
    """
    if task.partition("/")[2] not in REGISTERED or not task.startswith("text/"):
        raise UsageError(f"{task!r} has no documents; text/pydoc has.")
    return [text for name, text in _pydoc() if _is_held_out(name) == (split == "heldout")]


def _is_held_out(name: str) -> bool:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % _HELD_OUT_OF == 0


@functools.cache
def _pydoc() -> tuple[tuple[str, str], ...]:
    """(name, text) of every topic of the reference, then of every module's docstrings."""
    from pydoc_data.topics import topics

    reference = ((f"topic {name}", topics[name]) for name in sorted(topics))
    return (*reference, *_library())


def _library() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _NOT_LIBRARY.isdisjoint(parts) and (text := _docstrings(path)):
            yield "/".join(parts), text


def _docstrings(path: Path) -> str:
    """All docstrings of a source file in the order they stand, parsed, never imported."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return ""  # a fixture that is meant to be broken
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return "\n\n".join(text for node in nodes if (text := ast.get_docstring(node)))
