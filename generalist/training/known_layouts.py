"""The layouts of a checkpoint that a run starts from, against those of its data.

In another layout the same ids mean other things: another background, other bins.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from generalist.errors import GeneralistError
from generalist.integrity import read_json
from generalist.modeling import PARTS_FOLDER
from generalist.tokenization.described import difference_in_words
from generalist.tokenization.layout import Layout


def warn_of_other_layouts(start: str | Path | None, layouts: Mapping[str, Layout]) -> None:
    """Warn of tasks that the checkpoint was trained on in another layout than the data's.

    Args:
        start: folder of the checkpoint; None where a run starts from nothing.
        layouts: of the data, by task.
    """
    path = None if start is None else Path(start) / PARTS_FOLDER / "layouts.json"
    if path is None or not path.exists():
        return
    for task, difference in _differences(read_json(path), layouts):
        warnings.warn(
            f"{start} was trained on {task} in another layout than that of the data: {difference}. "
            "What it knows of these ids does not hold there.",
            stacklevel=3,
        )


def check_same_layouts(start: Path, known: Mapping[str, Any], layouts: Mapping[str, Any]) -> None:
    """Check that demonstrations are coded as the checkpoint acts.

    Args:
        start: the checkpoint, for errors.
        known: its layouts, by task, as `Layout.to_dict` has them.
        layouts: those of the demonstrations, likewise.

    Raises:
        GeneralistError: a task has two layouts.
    """
    read = {task: Layout.from_dict(each) for task, each in layouts.items()}
    for task, difference in _differences(known, read):
        raise GeneralistError(
            f"The demonstrations of {task} have another layout than in {start}: {difference}. "
            "Set reinforcement.imitation to 0, or start from a checkpoint that was trained on them."
        )


def _differences(
    known: Mapping[str, Any], layouts: Mapping[str, Layout]
) -> Iterator[tuple[str, str]]:
    """The tasks that both have in two layouts, and what differs."""
    for task in sorted(known.keys() & layouts.keys()):
        before = Layout.from_dict(known[task])
        if before != layouts[task]:
            yield task, difference_in_words(before, layouts[task])
