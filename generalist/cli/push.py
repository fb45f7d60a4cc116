"""`generalist push`: a checkpoint to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import console


def push(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the checkpoint.")],
    repository: Annotated[str, typer.Argument(help="Where to: your-name/name-of-the-model.")],
    private: Annotated[
        bool, typer.Option("--private", help="A repository that is new is seen by you alone.")
    ] = False,
) -> None:
    """Put a checkpoint on the Hugging Face Hub, where others act with it by its name.

    They give REPOSITORY to `--checkpoint` or to `Agent.from_pretrained`; what they download is
    safetensors, JSON and YAML, no code. You have to be logged in: `hf auth login`, or HF_TOKEN.
    All files arrive in one commit. After an interruption nothing is seen of it, and the same
    command sends them again, but for large files that have arrived.
    """
    from generalist.acting.hub import push_checkpoint

    address = push_checkpoint(checkpoint, repository, private)
    console().print(f"Checkpoint: [bold]{address}[/]", soft_wrap=True)
