"""`generalist push`: upload a checkpoint to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import console


def push(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the checkpoint.")],
    repository: Annotated[
        str, typer.Argument(help="Repository to upload to: your-name/name-of-the-model.")
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    license: Annotated[
        str | None,
        typer.Option(
            help="Licence of the weights, written into the card: an SPDX identifier, such as MIT. "
            "Default: what the card says."
        ),
    ] = None,
) -> None:
    """Upload a checkpoint to the Hugging Face Hub, where others can load it by its name.

    They pass REPOSITORY to `--checkpoint` or to `Agent.from_pretrained`, and download safetensors,
    JSON and YAML, but no code. Log in before: `hf auth login`, or HF_TOKEN.

    All files arrive in one commit, so an interrupted upload changes nothing on the Hub. The same
    command uploads them again, except large files that have already arrived.
    """
    from generalist.acting.hub import check_checkpoint, push_checkpoint
    from generalist.training.card import license_card

    if license is not None:
        check_checkpoint(checkpoint)
        license_card(checkpoint, license)
    address = push_checkpoint(checkpoint, repository, private=private)
    console().print(f"Checkpoint: [bold]{address}[/]", soft_wrap=True)
