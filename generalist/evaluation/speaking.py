"""What is said of pictures, beside two that do not look: by form, with intervals.

One says what is right most often of statements of the same form. The other is the agent itself,
shown the picture of another episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from generalist.evaluation.intervals import success_interval

if TYPE_CHECKING:
    from generalist.acting.agent import Agent
    from generalist.acting.rollout import RolloutResult

Statement = Mapping[str, str | None]
HEAD = ("task", "form", "pictures", "right", "95% interval", "right most often", "another picture")
ALL = "all"


def speaking_of(agent: Agent, result: RolloutResult, **options: Any) -> dict[str, Any]:
    """What a result has besides where something is said of pictures: `speaking`, its rows.

    Args:
        agent: who spoke.
        result: of its rollout.
        options: with which it was made, as `rollout` takes them.

    Returns:
        The rows by form, and all together under `ALL`; nothing where nothing was said.
    """
    if not result.statements:
        return {}
    from generalist.acting.rollout import rollout
    from generalist.envs import make

    env: Any = make(result.task)
    try:
        frequent = env.unwrapped.frequent
    finally:
        env.close()
    count, first = len(result.seeds), result.seeds[0]
    given = {**options, "picture": "other", "episodes": count, "seed": first}
    other = rollout(agent, result.task, progress=False, **given)
    return {"speaking": rows_of(result.statements, other.statements, frequent)}


def rows_of(
    said: Sequence[Statement], blind: Sequence[Statement], frequent: Mapping[str, str]
) -> dict[str, Any]:
    """Counts and shares by form.

    Args:
        said: of each picture.
        blind: of the same, said of the pictures of other episodes.
        frequent: by form, what is right most often.
    """
    forms = sorted({str(each["form"]) for each in said})
    chosen = [ALL, *(forms if len(forms) > 1 else [])]
    return {form: _row(_of(said, form), _of(blind, form), frequent) for form in chosen}


def _of(statements: Sequence[Statement], form: str) -> list[Statement]:
    return [each for each in statements if form in (ALL, each["form"])]


def _row(
    said: Sequence[Statement], blind: Sequence[Statement], frequent: Mapping[str, str]
) -> dict[str, Any]:
    right = sum(each["said"] == each["truth"] for each in said)
    often = sum(frequent.get(str(each["form"])) == each["truth"] for each in said)
    guessed = sum(each["said"] == each["truth"] for each in blind)
    return {
        "pictures": len(said),
        "right": _share(right, len(said)),
        "frequent": _share(often, len(said)),
        "other_picture": _share(guessed, len(blind)),
    }


def _share(right: int, of: int) -> dict[str, Any]:
    return {"count": right, "share": right / of, "interval": success_interval(right, of)}


def cells(task: str, form: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row below `HEAD`, in plain text."""
    low, high = row["right"]["interval"]
    others = (
        "{share:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]".format(**row[name])
        for name in ("frequent", "other_picture")
    )
    right = f"{row['right']['share']:.3f}"
    return task, form, str(row["pictures"]), right, f"[{low:.3f}, {high:.3f}]", *others


def all_cells(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of all results in which something is said of pictures."""
    return [
        cells(result["task"], form, row)
        for result in results
        for form, row in (result.get("speaking") or {}).items()
    ]
