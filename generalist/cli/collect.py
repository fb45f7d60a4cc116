"""`generalist collect`: experts play, and their episodes become token shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import JsonFile, console, duration, write_json

FAILURES_SHOWN = 3  # of a task


def collect(
    spec: Annotated[
        str,
        typer.Argument(help="Name of a dataset spec (quickstart, laptop) or path of a YAML file."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the shards. Default: data/NAME of the spec.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Worker processes. Default: one per CPU; 0 plays in this process."
        ),
    ] = None,
    processor: Annotated[
        Path | None, typer.Option(help="Folder of the tokenizers. Default: the shipped ones.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of another dataset of the same tasks. Their frames get the same "
            "backgrounds, so that both datasets go into one mixture.",
        ),
    ] = None,
    expert: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder that `expert train` wrote; it demonstrates its task. May be repeated."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Play on a Ray cluster: HOST:PORT, auto (the cluster of this machine) or local "
            "(starts one here).",
        ),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Let experts play the episodes of a dataset spec, and write them as token shards.

    The command plays only the episodes that are missing. So the same command continues after an
    interruption, adds episodes when the spec asks for more, and tries failed ones again.
    """
    from dataclasses import asdict

    from generalist.collecting.collect import collect as run
    from generalist.experts.trained import TrainedExpert
    from generalist.windows.spec import load_dataset_spec

    loaded = load_dataset_spec(spec)
    for folder in expert or ():
        loaded = loaded.with_expert(TrainedExpert.load(folder).card["task"], str(folder))
    root = out or Path("data") / Path(spec).stem
    tokenizers = str(processor) if processor else None
    report = run(loaded, root, workers, processor=tokenizers, like=like, ray=ray)
    screen, notes = console(), console(stderr=True)
    for task, outcome in report.tasks.items():
        counts = {"new": outcome.added, "left out": outcome.rejected, "failed": outcome.failed}
        said = ", ".join(f"{n} {what}" for what, n in counts.items() if n or what == "new")
        screen.print(f"{task:<32} {outcome.episodes:>6} episodes ({said})")
        for failure in outcome.failures[:FAILURES_SHOWN]:
            notes.print(f"Warning: {failure}", style="yellow", markup=False)
        if (more := outcome.failed - FAILURES_SHOWN) > 0:
            notes.print(f"Warning: {task}: {more} more failed; --json names all.", style="yellow")
    for loss in report.losses:
        notes.print(f"Warning: {loss}", style="yellow", markup=False, soft_wrap=True)
    screen.print(f"{root}: collected in {duration(report.seconds)}", soft_wrap=True)
    write_json(json, asdict(report))
