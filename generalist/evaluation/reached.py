"""How many tasks reach each percentage of the expert's score (Reed et al. 2022, Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from generalist.evaluation.scores import OWN, TaskScore
from generalist.settings import family_of

PERCENT = tuple(range(0, 101, 5))
HALF = PERCENT.index(50)


def reached(scores: Sequence[TaskScore]) -> dict[str, Any]:
    """Count the tasks whose mean normalised score is at or above each of `PERCENT`.

    0% is a random policy, 100% the expert. Tasks without a normalised score are left out, and so
    are rows with another instruction than the task's own.

    Returns:
        `percent`; `tasks`, how many there are, and `counts`, one a percentage; `families`: the same
        two of each family.
    """
    own = [score for score in scores if score.instruction == OWN]
    kept = [score for score in own if score.normalized is not None]
    families: dict[str, list[TaskScore]] = {}
    for score in kept:
        families.setdefault(family_of(score.task), []).append(score)
    return {
        "percent": list(PERCENT),
        **_counts(kept),
        "families": {family: _counts(mine) for family, mine in sorted(families.items())},
    }


def _counts(scores: Sequence[TaskScore]) -> dict[str, Any]:
    values = np.array([score.normalized for score in scores], dtype=float)
    # Rounded, so that an expert's own mean is at 100% of itself.
    counts = [int((np.round(values, 9) >= percent / 100).sum()) for percent in PERCENT]
    return {"tasks": len(scores), "counts": counts}


def half_line(found: dict[str, Any]) -> str:
    """`5 of 9 tasks (dmc 1 of 2, ...)`: tasks at or above half the expert's score.

    Args:
        found: what `reached` returns.
    """
    by_family = ", ".join(
        f"{family} {each['counts'][HALF]} of {each['tasks']}"
        for family, each in found["families"].items()
    )
    return f"{found['counts'][HALF]} of {found['tasks']} tasks ({by_family})"
