"""`generalist reinforce`: learn from rewards, by playing; continue a run that was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import console
from generalist.errors import UsageError


def reinforce(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe with a section `reinforcement`: its name (reinforce/minatar) or the "
            "path of a YAML file."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Recipe keys to change: schedule.minutes=5, or model.init_from=CHECKPOINT to go "
            "on from a checkpoint.",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the episodes as shards into this folder, for train, inspect and validate. "
            "Short for reinforcement.record=DIR.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Let reinforcement.actors play on a Ray cluster: HOST:PORT, auto or local. Short "
            "for reinforcement.ray=ADDRESS.",
        ),
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            metavar="latest|PATH",
            help="Checkpoint to continue from: the newest of this run, or the folder PATH.",
        ),
    ] = "latest",
    allow_changes: Annotated[
        bool,
        typer.Option("--allow-changes", help="Continue a run although its recipe has changed."),
    ] = False,
) -> None:
    """Learn from rewards: one network plays many tasks at once, and learns from what it earns.

    It begins from nothing, or from any checkpoint in the compact form (model.init_from). The same
    command continues an interrupted run. Several processes:
    accelerate launch -m generalist.training RECIPE [KEY=VALUE]...
    """
    from generalist.training.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    if loaded.reinforcement is None:
        raise UsageError(
            f"The recipe {recipe} has no section `reinforcement`, which names the tasks to play; "
            "`generalist train` learns from its demonstrations."
        )
    options = {"record": record, "ray": ray}
    given = [f"reinforcement.{key}={value}" for key, value in options.items() if value is not None]
    loaded = load_recipe(recipe, [*(overrides or ()), *given])
    from generalist.training.loop import train

    source = None if resume == "latest" else Path(resume).expanduser()
    folder = train(loaded, resume_from=source, allow_changes=allow_changes)
    console().print(f"Checkpoint: [bold]{folder}[/]", soft_wrap=True)
