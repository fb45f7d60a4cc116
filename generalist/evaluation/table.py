"""The tables of an evaluation on the terminal: raw first, then normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generalist.evaluation import instruction_rows, speaking
from generalist.evaluation.d4rl import d4rl_line, d4rl_scores
from generalist.evaluation.human import human_line, human_normalized
from generalist.evaluation.intervals import Interval
from generalist.evaluation.reached import half_line, reached
from generalist.evaluation.scores import OWN, TaskScore, aggregate, label, with_error

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from generalist.evaluation.suite import Evaluation


WIDE = 112  # columns of a terminal with room for intervals


def print_tables(evaluation: Evaluation, console: Console) -> None:
    """Print the scores of acting and of text, their aggregates, and what is missing.

    Args:
        evaluation: the results.
        console: of rich; intervals are left out where it is narrow.
    """
    plain, prompted = evaluation.scores(), evaluation.scores(prompted=True)
    if plain:
        console.print(_table(plain, prompted, intervals=console.width >= WIDE))
        console.print(_summary(plain))
        _print_reading(plain, console)
        _print_speaking(evaluation, console)
    for text in evaluation.texts:
        console.print(
            f"\n[bold]{text['task']}[/]: {text['bits_per_byte']:.3f} bits per byte on "
            f"{text['documents']} held-out documents; byte trigram "
            f"{text['trigram_bits_per_byte']:.3f}, xz -9 {text['xz_bits_per_byte']:.3f}."
        )
    for each in evaluation.failed:
        name = label(each["task"], each["instruction"]) + ", prompted" * each["prompted"]
        console.print(f"[red]Missing[/]: {name}: {_plain(each['failed'])}.")
    console.print()


def _plain(text: str) -> str:
    """Text in which brackets are no markup."""
    from rich.markup import escape

    return escape(text)


def _table(plain: list[TaskScore], prompted: list[TaskScore], intervals: bool) -> Table:
    """A row for each score; where the terminal has no room, intervals stand in the report alone."""
    from rich.table import Table

    by_label = {score.label: score for score in prompted}
    gap = 2 if intervals else 1
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, gap, 0, 0))
    table.add_column("task", no_wrap=True)
    names = ["n", "score", "95% interval", "random", "expert", "normalised", "95% interval"]
    shown = [name for name in names if intervals or name != "95% interval"]
    for name in (*shown, "prompted") if prompted else shown:
        table.add_column(name, justify="right", no_wrap=True)
    for score in plain:
        color = {True: "green", False: "red", None: "default"}[score.above_random]
        row = [
            score.label,
            str(score.episodes),
            with_error(score.mean, score.stderr),
            *([_interval(score.interval, ".4g")] if intervals else []),
            "-" if score.random is None else f"{score.random.mean:.4g}",
            "-" if score.expert is None else f"{score.expert.mean:.4g}",
            f"[{color}]{_normalized(score)}[/]",
            *([_interval(score.normalized_interval, ".2f")] if intervals else []),
        ]
        other = by_label.get(score.label)
        table.add_row(*row, *([_normalized(other) if other else ""] if prompted else []))
    return table


def _print_reading(scores: list[TaskScore], console: Console) -> None:
    """Print a row for each instruction of the tasks that have one."""
    from rich.table import Table

    rows = instruction_rows.language_rows(scores)
    if not rows:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, name in enumerate(instruction_rows.HEAD):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    for score in rows:
        table.add_row(*map(_plain, instruction_rows.cells(score)))
    console.print("\n[bold]Is the instruction read?[/]")
    console.print(table)


def _print_speaking(evaluation: Evaluation, console: Console) -> None:
    """Print what is said of pictures, beside those who do not look."""
    from rich.table import Table

    rows = speaking.all_cells(evaluation.rollouts)
    if not rows:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, name in enumerate(speaking.HEAD):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(_plain, row))
    console.print("\n[bold]What is said of pictures[/]")
    console.print(table)


def _normalized(score: TaskScore) -> str:
    return "-" if score.normalized is None else f"{score.normalized:.2f}"


def _interval(interval: Interval | None, form: str) -> str:
    """`[low, high]`, or nothing."""
    return "" if interval is None else f"\\[{interval[0]:{form}}, {interval[1]:{form}}]"


def _summary(scores: list[TaskScore]) -> str:
    total = aggregate(scores)
    lines = []
    if "mean" in total:
        lines.append(
            f"\nNormalised over {len(total['tasks'])} tasks (0 random, 1 expert): mean "
            f"[bold]{total['mean']:.3f}[/] {_interval(total['mean_interval'], '.3f')}, "
            f"interquartile mean {total['iqm']:.3f} {_interval(total['iqm_interval'], '.3f')}."
        )
        half = half_line(reached(scores))
        lines.append(f"At or above half the expert's score: {half}.")
    if line := human_line(human_normalized(scores)):
        lines.append(line)
    if line := d4rl_line(d4rl_scores(scores)):
        lines.append(line)
    own = [score for score in scores if score.instruction == OWN]
    above = [score for score in own if score.above_random]
    lines.append(
        f"[green]Green[/]: above random with disjoint 95% intervals ({len(above)} of "
        f"{len(own)} tasks)."
    )
    lines += [
        f"Without a normalised score: {task}, because {_plain(why)}."
        for task, why in total["excluded"].items()
    ]
    return "\n".join(lines)
