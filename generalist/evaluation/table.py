"""The tables of an evaluation on the terminal: raw first, then normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generalist.evaluation.scores import Interval, TaskScore, aggregate

if TYPE_CHECKING:
    from rich.console import Console

    from generalist.evaluation.suite import Evaluation


def print_tables(evaluation: Evaluation, console: Console) -> None:
    """Print the scores of acting and of text, and what they amount to."""
    from rich.table import Table

    plain, prompted = evaluation.scores(), evaluation.scores(prompted=True)
    if plain:
        by_task = {score.task: score for score in prompted}
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("task")
        for name in ("episodes", "score", "95% interval", "random", "expert"):
            table.add_column(name, justify="right")
        for name in ("normalised", "prompted"):
            table.add_column(name, justify="right")
        for score in plain:
            table.add_row(*_row(score, by_task.get(score.task)))
        console.print(table)
        console.print(_summary(plain))
    for text in evaluation.texts:
        console.print(
            f"\n[bold]{text['task']}[/]: {text['bits_per_byte']:.3f} bits per byte on "
            f"{text['documents']} held-out documents; byte trigram "
            f"{text['trigram_bits_per_byte']:.3f}, xz -9 {text['xz_bits_per_byte']:.3f}."
        )
    console.print()


def _row(score: TaskScore, prompted: TaskScore | None) -> tuple[str, ...]:
    mark = {True: "[green]", False: "[red]", None: ""}[score.above_random]
    close = "[/]" if mark else ""
    unit = " (success)" if score.metric == "success" else ""
    return (
        f"{score.task}{unit}",
        str(score.episodes),
        f"{score.mean:.4g} ± {score.stderr:.2g}",
        interval_text(score.interval),
        "-" if score.random is None else f"{score.random.mean:.4g}",
        "-" if score.expert is None else f"{score.expert.mean:.4g}",
        f"{mark}{_normalized(score)}{close}",
        "" if prompted is None else _normalized(prompted),
    )


def _normalized(score: TaskScore) -> str:
    return "-" if score.normalized is None else f"{score.normalized:.2f}"


def interval_text(interval: Interval | None, digits: int = 4) -> str:
    """`[low, high]`, or nothing."""
    if interval is None:
        return ""
    return f"\\[{interval[0]:.{digits}g}, {interval[1]:.{digits}g}]"


def _summary(scores: list[TaskScore]) -> str:
    total = aggregate(scores)
    lines = []
    if "mean" in total:
        low, high = total["mean_interval"]
        iqm_low, iqm_high = total["iqm_interval"]
        lines.append(
            f"\nNormalised over {len(total['tasks'])} tasks (0 random, 1 expert): mean "
            f"[bold]{total['mean']:.3f}[/] \\[{low:.3f}, {high:.3f}], interquartile mean "
            f"{total['iqm']:.3f} \\[{iqm_low:.3f}, {iqm_high:.3f}]."
        )
    above = [score for score in scores if score.above_random]
    lines.append(
        f"[green]Green[/]: above random with disjoint 95% intervals ({len(above)} of "
        f"{len(scores)} tasks)."
    )
    lines += [f"Left out of the means: {task}, {why}." for task, why in total["excluded"].items()]
    return "\n".join(lines)
