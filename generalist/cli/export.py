"""`generalist export`: copy a checkpoint with smaller weights and a card, to give away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import console
from generalist.cli.families import Dtype


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint to copy: its folder, or its name on the Hub.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder of the copy; an older one is replaced.")],
    dtype: Annotated[
        Dtype, typer.Option(help="Data type of the weights on disk.")
    ] = Dtype.bfloat16,
    license: Annotated[
        str, typer.Option(help="Licence of the copy, for its card: an SPDX identifier.")
    ] = "Apache-2.0",
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Play up to nine tasks, and show them on the card: replay.webp, at most 2 MB.",
        ),
    ] = False,
) -> None:
    """Copy a checkpoint, with its weights in half the bytes and a card that says how it was made.

    Acting loads the weights as float32. Scores on the card are those of the original;
    `generalist evaluate` replaces them by the copy's own.
    """
    from generalist.training.ship import ship

    size_bytes = ship(checkpoint, folder, dtype=dtype.value, license=license)
    if replay:
        from generalist.viewer.replay import add_replay

        notes = console(stderr=True)
        size_bytes += add_replay(
            folder, on_task=lambda line: notes.print(f"  {line}", markup=False, soft_wrap=True)
        )
    console().print(f"Checkpoint: [bold]{folder}[/], {size_bytes / 1e6:.2f} MB", soft_wrap=True)
