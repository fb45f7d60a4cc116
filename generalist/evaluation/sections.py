"""Sections of the report that stand there only where the suite asked for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from generalist.evaluation.d4rl import PUBLISHED, d4rl_line
from generalist.evaluation.html import interval_text, table
from generalist.evaluation.human import human_line
from generalist.evaluation.plots import asked_plot
from generalist.evaluation.speaking import HEAD, all_cells


def human_section(found: dict[str, Any]) -> str:
    """The table of games beside a human player; nothing where there is none.

    Args:
        found: what `human_normalized` returns.
    """
    if not found["games"]:
        return ""
    rows = [
        (
            escape(task), f"{game['random']:g}", f"{game['human']:g}",
            f"<b>{game['normalized']:.3f}</b>", interval_text(game["interval"], ".3f"),
        )
        for task, game in found["games"].items()
    ]  # fmt: skip
    head = ["game", "random", "human", "human-normalised", "95% interval"]
    return (
        f"<section><h2>Beside a human player</h2><p class='note'>{human_line(found)} References: "
        "Badia et al. 2020, without sticking actions.</p>"
        f"{table(head, rows)}</section>"
    )


def d4rl_section(found: Mapping[str, float]) -> str:
    """The table of scores on the scale of D4RL; nothing where no task has published references.

    Args:
        found: what `d4rl_scores` returns.
    """
    if not found:
        return ""
    rows = [
        (escape(task), f"{PUBLISHED[task].random:.4g}", f"{PUBLISHED[task].expert:.4g}",
         f"<b>{score:.1f}</b>")
        for task, score in found.items()
    ]  # fmt: skip
    return (
        f"<section><h2>On the scale of D4RL</h2><p class='note'>{d4rl_line(found)} References: "
        "Fu et al. 2020, measured in version 2 of the tasks.</p>"
        f"{table(['task', 'random', 'expert', 'D4RL score'], rows)}</section>"
    )


def asked_section(found: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """The plot of returns asked for and got; nothing where none was asked for.

    Args:
        found: by task, the rollouts that were asked for a return, as `Evaluation.asked` has them.
    """
    if not found:
        return ""
    return (
        "<section><h2>Asked and got</h2><p class='note'>Mean return of the episodes, with its "
        "standard error, against the return that was asked for. The shaded part is what the data "
        "hold, from the mean of the worst episodes to that of the best. On the line, what is got "
        f"is what was asked for.</p>{asked_plot(found)}</section>"
    )


def speaking_section(rollouts: Sequence[Mapping[str, Any]]) -> str:
    """The table of what is said of pictures; nothing where nothing is.

    Args:
        rollouts: results of acting, as `Evaluation.rollouts` has them.
    """
    rows = [map(escape, row) for row in all_cells(rollouts)]
    if not rows:
        return ""
    return (
        "<section><h2>What is said of pictures</h2><p class='note'>The share of texts that are "
        "the truth, word for word. Beside it stand two that do not look: who says what is right "
        "most often of statements of the same form, and the same agent, shown the picture of "
        "another episode. Intervals are 95% (Clopper and Pearson).</p>"
        f"{table(HEAD, rows)}</section>"
    )
