"""`generalist tasks`: list the tasks, with the scores of a random policy and of the expert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from generalist.cli.common import JsonFile, console, write_json

if TYPE_CHECKING:
    from generalist.envs.registry import Score, Task


_SEES = {True: "frames", False: "state", None: "-"}  # None: unknown before the environment is made


def tasks(
    family: Annotated[
        str | None, typer.Argument(help="List only this family: gym, dmc, ...")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="List also the installed tasks that this project does not test."
        ),
    ] = False,
    json: JsonFile = None,
) -> None:
    """List the tasks, with the scores of a random policy and of the expert.

    Any installed Gymnasium environment is the task gym/ID, whether it is listed or not.
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
    # Only descriptions may be cut off: readers need names and numbers whole.
    names = [str(column.header) for column in table.columns]
    columns = zip(names, *(row[:-1] for row in rows), strict=True)
    taken = sum(max(map(len, cells)) + 2 for cells in columns)
    room = max(20, screen.width - taken)
    table.add_column("description", style="dim", no_wrap=True, max_width=room)
    for row in rows:
        table.add_row(*row)
    screen.print(table)
    if any(_is_weak(score) for task in found for score in (task.random_score, task.expert_score)):
        screen.print(
            "* measured in one episode, or in episodes that were cut; it normalises no score"
        )
    for reason in missing_families().values() if family is None else ():
        console(stderr=True).print(f"Note: {reason}", style="yellow", markup=False)
    if json is not None:  # the levels of BabyAI are made to learn their step limits
        write_json(json, [_facts(task) for task in found])


def _facts(task: Task) -> dict[str, Any]:
    return {
        "task": task.name,
        "family": task.family,
        "description": task.description,
        "frames": task.frames,
        "metric": task.metric,
        "max_steps": task.max_steps,
        "expert": task.default_expert or None,
        "random_score": task.random_score and task.random_score.to_dict(),
        "expert_score": task.expert_score and task.expert_score.to_dict(),
        "other_scores": {name: each.to_dict() for name, each in task.other_scores.items()},
        "not_normalized": None if task.family == "text" else task.not_normalized,
    }


def _show(score: Score | None) -> str:
    """Mean and standard error, with a mark where the score normalises no other."""
    from generalist.evaluation.scores import with_error

    if score is None:
        return "-"
    shown = with_error(score.mean, score.stderr)
    return f"{shown}*" if _is_weak(score) else shown


def _is_weak(score: Score | None) -> bool:
    """Whether a score comes from a single episode, or from episodes that were cut."""
    return score is not None and (score.episodes == 1 or score.max_steps is not None)
