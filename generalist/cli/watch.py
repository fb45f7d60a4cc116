"""`generalist watch`: a page on which a checkpoint plays, and can be looked into."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import console, duration
from generalist.seeds import EVALUATION_SEED


def watch(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            help="Tasks to play: family/Name. Default: nine, of each family those it plays best."
        ),
    ] = None,
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="Checkpoint that plays: its folder, a shipped one, or its repository on the Hub."
        ),
    ] = Path("catalogue"),
    out: Annotated[Path, typer.Option(help="File of the page.", dir_okay=False)] = Path(
        "watch.html"
    ),
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.webp",
            help="Write one moving picture of all tasks too.",
            dir_okay=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each task, at most.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every episode.")] = EVALUATION_SEED,
    temperature: Annotated[
        float | None,
        typer.Option(min=0.0, help="Sampling temperature. Default: as the checkpoint says."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Worker processes. Default: one per CPU, up to 4; 0 plays in this process."
        ),
    ] = None,
) -> None:
    """Write a page on which a checkpoint plays up to nine tasks, and can be looked into.

    The page is one file and needs no network. Click a task to go through its episode: what the
    model saw, in tokens and in words, and how probable it held each action.
    """
    from generalist.acting.hub import checkpoint_folder
    from generalist.viewer.watch import Show, tasks_to_show, write_watch_page

    began = time.monotonic()
    shown = tasks_to_show(checkpoint, tasks or ())
    show = Show(
        checkpoint_folder(checkpoint),
        tuple(shown),
        seed=seed,
        max_steps=steps,
        temperature=temperature,
    )
    screen = console(stderr=True)
    screen.print(f"{checkpoint} plays {len(shown)} tasks, up to {steps} steps each.", markup=False)
    found = write_watch_page(
        show, out, name=str(checkpoint), workers=workers,
        on_task=lambda line: screen.print(f"  {line}", markup=False, soft_wrap=True),
    )  # fmt: skip
    if picture is not None:
        from generalist.viewer.picture import write_picture

        size_bytes = write_picture(found, picture)
        console().print(f"Picture: [bold]{picture}[/], {size_bytes / 1e6:.2f} MB", soft_wrap=True)
    size = f"{out.stat().st_size / 1e6:.1f} MB, {duration(time.monotonic() - began)}"
    console().print(f"Open it in a browser: [bold]{out}[/] ({size})", soft_wrap=True)
