"""What a checkpoint scores, beside random play and the expert: from its card and the registry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from generalist import envs
from generalist.integrity import CARD
from generalist.training.card import card_scores


@dataclass(frozen=True)
class Shown:
    """Scores of one task, in the task's own metric.

    Attributes:
        random: of random play, which normalises the mean; None where it was not measured.
        expert: of the task's expert, likewise.
        mean: of the checkpoint, over whole episodes; None where its card has none.
        interval: 95% of the mean.
        episodes: how many whole episodes.
        text: the mean as the card has it.
        normalized: the mean with random play as 0 and the expert as 1; None where the card has
            none, as where the environment was made otherwise.
    """

    random: float | None
    expert: float | None
    mean: float | None = None
    interval: tuple[float, float] | None = None
    episodes: int = 0
    text: str = ""
    normalized: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form: `random`, `expert`, and `agent`, which is None where the card has none."""
        fields = asdict(self)
        shared = {name: fields.pop(name) for name in ("random", "expert")}
        return {**shared, "agent": None if self.mean is None else fields}


def scores_of(checkpoint: Path, tasks: list[str]) -> dict[str, Shown]:
    """The scores of some tasks, by name.

    Args:
        checkpoint: folder of the checkpoint.
        tasks: names of tasks.
    """
    rows = _rows_of(checkpoint)
    return {task: _shown(task, rows.get(task, {})) for task in tasks}


def best_first(checkpoint: Path, tasks: Iterable[str]) -> list[str]:
    """The tasks family by family; in each the one with the best normalised score first.

    Those that the card gives no score come last, by name.

    Args:
        checkpoint: folder of the checkpoint.
        tasks: names of tasks.
    """
    rows = _rows_of(checkpoint)

    def place(task: str) -> tuple[str, float, str]:
        score = rows.get(task, {}).get("normalized")
        return task.partition("/")[0], -float(score) if score else math.inf, task

    return sorted(tasks, key=place)


def _rows_of(checkpoint: Path) -> dict[str, dict[str, str]]:
    """Of each task on a checkpoint's card, column -> cell; of several rows the last normalised."""
    path = checkpoint / CARD
    card = card_scores(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = sorted(card.items(), key=lambda item: bool(item[1].get("normalized")))
    return {task: row for (task, _), row in rows}


def _shown(task: str, row: Mapping[str, str]) -> Shown:
    record = envs.get_task(task)
    references = {"random": record.random_score, "expert": record.expert_score}
    random, expert = (
        float(row[who]) if row.get(who) else None if score is None else score.mean
        for who, score in references.items()
    )
    if not row.get("mean"):
        return Shown(random, expert)
    ends = [float(each) for each in row.get("interval", "").strip("[]").split(",") if each.strip()]
    return Shown(
        random,
        expert,
        mean=float(row["mean"]),
        interval=(ends[0], ends[1]) if len(ends) == 2 else None,
        episodes=int(row.get("episodes") or 0),
        text=row["mean"],
        normalized=float(row["normalized"]) if row.get("normalized") else None,
    )
