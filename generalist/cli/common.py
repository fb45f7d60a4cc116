"""What the subcommands share: consoles, JSON files, durations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generalist.errors import GeneralistError

if TYPE_CHECKING:
    from rich.console import Console


FILE_COLUMNS = 140


class Interrupted(GeneralistError):
    """The user stopped the command after it had something to show; exit code 130."""


JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the result here as JSON.", dir_okay=False),
]


def console(stderr: bool = False) -> Console:
    """A console on stdout or stderr as they are now, because tests replace them."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    if not found.is_terminal:
        found.width = max(found.width, FILE_COLUMNS)  # a file or a pipe has no edge
    return found


def write_json(path: Path | None, value: Any) -> None:
    """Write `value` to `path` as JSON; does nothing where `path` is None.

    Replaces the file in one piece. Floats that are not finite become null.
    """
    if path is None:
        return
    from generalist.shards.files import write_json as write

    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, jsonable(value))


def jsonable(value: Any) -> Any:
    """The same value in plain JSON types: arrays as lists, paths as str, NaN and inf as None."""
    if isinstance(value, dict):
        return {str(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(each) for each in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def duration(seconds: float) -> str:
    """A duration in words: `12 s`, `3 min 20 s`, `1 h 02 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
