"""The table, report.html and report.json of tasks that a checkpoint was never trained on."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.evaluation.heldout import WAYS, HeldOutScores
from generalist.evaluation.html import interval_text, page, reference_text, table
from generalist.evaluation.scores import TaskScore, with_error
from generalist.shards.files import replacing, write_json

if TYPE_CHECKING:
    from rich.console import Console


def write_heldout_report(found: HeldOutScores, out: Path) -> dict[str, Any]:
    """Write report.html and report.json.

    Args:
        found: the scores.
        out: folder of both files.

    Returns:
        What report.json holds.
    """
    rows, normalized = [], []
    for task, ways in found.scores.items():
        some = next(iter(ways.values()))
        scores = [ways.get(way) for way in WAYS]
        references = reference_text(some.random), reference_text(some.expert)
        rows.append((escape(task), *references, *map(_raw, scores)))
        normalized.append((escape(task), *map(_normalized, scores)))
    counts = sorted(set(found.demonstrations.values()))
    note = (
        f"Fine-tuned, and trained from nothing, on {' or '.join(map(str, counts))} demonstrations "
        f"of a task in {found.steps} steps, a model for each task. Mean, standard error and 95% "
        "interval (of success that of Clopper and Pearson, of returns Student's t)."
    )
    if found.wanted_return is not None:
        note += f" These two are asked for {escape(found.wanted_return)}, the others for nothing."
    skipped = "".join(
        f"<p class='note'>{escape(task)}, {way}: {escape(reason)}.</p>"
        for task, ways in found.skipped.items()
        for way, reason in ways.items()
    )
    body = (
        f"<h1>{len(found.scores)} tasks never trained on</h1>"
        f"<p class='note'>Checkpoint <code>{escape(found.checkpoint)}</code></p>"
        f"<section><h2>Raw scores</h2><p class='note'>{note}</p>"
        f"{table(('task', 'random', 'expert', *WAYS), rows)}</section>"
        "<section><h2>Normalised scores</h2><p class='note'>0 is a random policy, 1 the expert."
        f"</p>{table(('task', *WAYS), normalized)}{skipped}</section>"
    )
    with replacing(out / "report.html") as file:
        file.write(page(f"generalist: {found.suite or 'held out'}", body).encode())
    report = found.to_dict()
    write_json(out / "report.json", report)
    return report


def print_heldout_table(found: HeldOutScores, console: Console) -> None:
    """Print scores, normalised with their intervals where they can be, a line a task and way."""
    from rich.markup import escape as escape_markup
    from rich.table import Table

    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("task", no_wrap=True)
    shown.add_column("way", no_wrap=True)
    for column in ("n", "score", "95% interval", "normalised", "95% interval"):
        shown.add_column(column, justify="right")
    for task, ways in found.scores.items():
        for way in WAYS:
            if (score := ways.get(way)) is None:
                reason = found.skipped.get(task, {}).get(way, "not measured")
                shown.add_row(task, way, "", f"[dim]{reason}[/]")
                continue
            raw = with_error(score.mean, score.stderr)
            value = "-" if score.normalized is None else f"{score.normalized:.2f}"
            own, normalized = (
                escape_markup(interval_text(interval, form))
                for interval, form in ((score.interval, ".4g"), (score.normalized_interval, ".2f"))
            )
            shown.add_row(task, way, str(score.episodes), raw, own, value, normalized)
    console.print(shown)


def _raw(score: TaskScore | None) -> str:
    if score is None:
        return "–"
    mean = with_error(score.mean, score.stderr)
    return f"{mean}<br><small>{interval_text(score.interval)}</small>"


def _normalized(score: TaskScore | None) -> str:
    if score is None or score.normalized is None:
        return "–"
    low_high = interval_text(score.normalized_interval, ".2f")
    return f"<b>{score.normalized:.2f}</b> {low_high}"
