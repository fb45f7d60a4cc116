"""`generalist play`: a page on which a person watches a checkpoint, and plays in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import console


def play(
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="Checkpoint that plays: its folder, a shipped one, or its repository on the Hub."
        ),
    ] = Path("catalogue"),
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="PLAN",
            help="How the checkpoint searches against you on a board: tree:simulations=100. "
            "Default: it plays at once.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Others than this one let other machines play."),
    ] = "127.0.0.1",
    save: Annotated[
        Path, typer.Option(help="Folder of the episodes that you save, as shards.")
    ] = Path("runs/play/data"),
) -> None:
    """Serve a page on which a checkpoint plays; take over by keyboard, and save what you do.

    Pick a task, watch one agent or nine, pause, step, change speed and temperature, type an
    instruction, or take over and hand back. Saved episodes are shards: `generalist validate` and
    `generalist train` take them. Ctrl-C ends the server.
    """
    from generalist.errors import needing

    with needing("generalist play"):
        from generalist.viewer.serve import serve

    serve(
        str(checkpoint), plan=plan, host=host, port=port, save=save,
        ready=lambda address: console().print(f"Open in a browser: [bold]{address}[/]"),
    )  # fmt: skip
