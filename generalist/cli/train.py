"""`generalist train`: one recipe, one process; resumes by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from generalist.cli.common import console


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (quickstart, laptop) or the path of a YAML file.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change: optimizer.lr=1e-3."),
    ] = None,
) -> None:
    """Train a model by a recipe; the same command continues an interrupted run.

    On several processes or machines: accelerate launch -m generalist.training RECIPE [KEY=VALUE]...
    """
    from generalist.training.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())  # a wrong key is found before torch is loaded

    from generalist.training.loop import train as run

    folder = run(loaded)
    console().print(f"Checkpoint: [bold]{folder}[/]", soft_wrap=True)
