"""`generalist collect`: experts play, their episodes become shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import JsonFile, console, duration, write_json


def collect(
    spec: Annotated[
        str, typer.Argument(help="Name of a dataset (quickstart, laptop) or path of a YAML file.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the shards go; data/NAME if not given.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes side by side; one a CPU if not given.")
    ] = None,
    processor: Annotated[
        Path | None, typer.Option(help="Folder of the tokenizers; the shipped ones if not given.")
    ] = None,
    expert: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a trained expert, for its task; repeat it for several."),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Collect the episodes of a dataset spec, as token shards.

    What is already there is not played again, so the same command continues after any interruption,
    and again after the spec asks for more episodes.
    """
    from dataclasses import asdict

    from generalist.data.collect import collect as run
    from generalist.data.mixture import load_dataset_spec
    from generalist.experts.trained import TrainedExpert

    loaded = load_dataset_spec(spec)
    for folder in expert or ():
        loaded = loaded.with_expert(TrainedExpert.load(folder).card["task"], str(folder))
    root = out or Path("data") / Path(spec).stem
    report = run(loaded, root, workers, processor=str(processor) if processor else None)
    screen = console()
    for task, outcome in report.tasks.items():
        rejected = f", {outcome.rejected} left out" if outcome.rejected else ""
        screen.print(f"{task:<32} {outcome.episodes:>6} episodes ({outcome.added} new{rejected})")
    for failure in report.failures:
        console(stderr=True).print(f"Warning: {failure}", style="yellow", markup=False)
    screen.print(f"{root}: collected in {duration(report.seconds)}", soft_wrap=True)
    write_json(json, asdict(report))
