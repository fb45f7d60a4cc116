"""`generalist validate`: compare the shards of a dataset with their manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import JsonFile, console, write_json


def validate(
    path: Annotated[Path, typer.Argument(help="A dataset folder, or a folder of them.")],
    skip_damaged: Annotated[
        bool,
        typer.Option(
            "--skip-damaged", help="Accept damage as long as every task has undamaged episodes."
        ),
    ] = False,
    json: JsonFile = None,
) -> None:
    """Read every byte of a dataset and compare it with the manifests.

    Exit code 1 on damage.
    """
    from rich.table import Table

    from generalist.shards.validate import validate as check

    report = check(path, skip_damaged=skip_damaged)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("task", no_wrap=True)
    for name in ("shards", "episodes", "steps", "tokens", "damaged"):
        table.add_column(name, justify="right")
    for task in report.tasks:
        counts = (task.shards, task.episodes, task.steps, task.tokens, len(task.problems))
        table.add_row(task.task or task.folder, *(f"{count:,}" for count in counts))
    console().print(table)
    write_json(json, report.to_dict())
    for problem in report.problems:
        typer.echo(problem, err=True)
    if not report.ok:
        raise typer.Exit(1)
