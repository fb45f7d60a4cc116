"""`generalist selfplay`: learn board games by playing against oneself."""

from __future__ import annotations

from typing import Annotated

import typer

from generalist.cli.common import console


def selfplay(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe's name (selfplay/boards) or the path of a YAML file."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change: boards=[Hex-5x5]."),
    ] = None,
    allow_changes: Annotated[
        bool,
        typer.Option("--allow-changes", help="Continue a run although its recipe has changed."),
    ] = False,
) -> None:
    """Let one network learn boards by self-play and search; the same command continues a run.

    It begins from nothing, or from a checkpoint in the compact form (model.init_from), whose other
    tasks it can keep meanwhile (imitation).
    """
    from generalist.training.selfplay.recipe import load_selfplay_recipe

    loaded = load_selfplay_recipe(recipe, overrides or ())  # a wrong key before torch is loaded

    from generalist.training.selfplay.run import selfplay as run

    folder = run(loaded, allow_changes=allow_changes)
    console().print(f"Checkpoint: [bold]{folder}[/]", soft_wrap=True)
