"""`generalist tasks`: the tasks, with the scores of a random policy and of the expert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from generalist.cli.common import JsonFile, console, write_json

if TYPE_CHECKING:
    from generalist.envs.registry import Score


_SEES = {True: "frames", False: "state", None: "-"}  # None: only making it would tell


def tasks(
    family: Annotated[str | None, typer.Argument(help="Only this family: gym, dmc, ...")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the tasks that are installed but not vouched for.")
    ] = False,
    json: JsonFile = None,
) -> None:
    """List the tasks, with the scores of a random policy and of the expert.

    Any installed Gymnasium environment is a task as gym/ID, listed here or not.
    """
    from rich.table import Table

    from generalist.envs.registry import list_tasks, missing_families

    found = list_tasks(family, everything)
    rows = [
        (
            task.name,
            "text" if task.family == "text" else _SEES[task.frames],
            task.default_expert or "-",
            _show(task.random_score),
            _show(task.expert_score),
            task.description,
        )
        for task in found
    ]
    screen = console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("task", "sees", "expert"):
        table.add_column(name, no_wrap=True)
    for name in ("random", "expert score"):
        table.add_column(name, justify="right", no_wrap=True)
    # What is cut off is the description: names and numbers are needed whole.
    names = [str(column.header) for column in table.columns]
    columns = zip(names, *(row[:-1] for row in rows), strict=True)
    taken = sum(max(map(len, cells)) + 2 for cells in columns)
    room = max(20, screen.width - taken)
    table.add_column("description", style="dim", no_wrap=True, max_width=room)
    for row in rows:
        table.add_row(*row)
    screen.print(table)
    if any(_is_weak(score) for task in found for score in (task.random_score, task.expert_score)):
        screen.print("* one episode, or episodes that were cut: no score is normalised by it")
    for reason in missing_families().values() if family is None else ():
        console(stderr=True).print(f"Note: {reason}", style="yellow", markup=False)
    write_json(json, [
        {
            "task": task.name, "family": task.family, "description": task.description,
            "frames": task.frames, "metric": task.metric, "max_steps": task.max_steps,
            "expert": task.default_expert or None,
            "random_score": task.random_score and task.random_score.to_dict(),
            "expert_score": task.expert_score and task.expert_score.to_dict(),
            "other_scores": {name: each.to_dict() for name, each in task.other_scores.items()},
            "not_normalized": None if task.family == "text" else task.not_normalized,
        }
        for task in found
    ])  # fmt: skip


def _show(score: Score | None) -> str:
    """Mean and standard error; a mark where no score is normalised by it."""
    from generalist.evaluation.scores import with_error

    if score is None:
        return "-"
    shown = with_error(score.mean, score.stderr)
    return f"{shown}*" if _is_weak(score) else shown


def _is_weak(score: Score | None) -> bool:
    """Whether a score is of a single episode, or of episodes that were cut."""
    return score is not None and (score.episodes == 1 or score.max_steps is not None)
