"""`generalist train`: train by a recipe in one process; continue a run that was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from generalist.cli.common import console, write_json
from generalist.errors import UsageError

if TYPE_CHECKING:
    from generalist.training.recipe import Recipe

Size = Annotated[
    str | None,
    typer.Option(
        metavar="1m|3m|10m",
        help="Parameters of the body. Sets width, layers, learning rate, batch and window.",
    ),
]
Minutes = Annotated[
    float | None, typer.Option(min=0.01, help="Time to train. Default: as the recipe says.")
]


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe's name (quickstart, laptop, sizes/79m) or the path of a YAML file."
        ),
    ] = "quickstart",
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change: optimizer.lr=1e-3."),
    ] = None,
    size: Size = None,
    minutes: Minutes = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Print the memory, tokens and FLOPs that the run needs, and do not train.",
        ),
    ] = False,
    flops: Annotated[
        float | None,
        typer.Option(
            help="With --plan: sustained FLOP/s of all devices together (4e14), to estimate hours."
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
        typer.Option(
            "--allow-changes", help="Continue a run although its recipe or data have changed."
        ),
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --plan: write the plan here as JSON.", dir_okay=False
        ),
    ] = None,
) -> None:
    """Train a model by a recipe; the same command continues an interrupted run.

    --size and --minutes are enough to begin with; a recipe has all keys.

    On several GPUs or machines: accelerate launch -m generalist.training RECIPE [KEY=VALUE]...
    """
    from generalist.training.recipe import load_recipe
    from generalist.training.sizes import overrides_of, sized

    if not plan and (flops is not None or json is not None):
        raise UsageError("--flops and --json belong to --plan; add it, or leave them out.")
    keys = list(overrides or ())
    if "=" in recipe and not Path(recipe).exists():  # a key, where the recipe was left out
        recipe, keys = "quickstart", [recipe, *keys]
    # Refuse a wrong key before torch is loaded.
    loaded = sized(load_recipe(recipe, [*overrides_of(size, minutes), *keys]), size)
    if plan:
        if loaded.reinforcement is not None:
            raise UsageError(
                "--plan counts what demonstrations take; a recipe that plays is bound by its "
                "environments. Leave --plan out."
            )
        _print_plan(loaded, flops, json)
        return

    from generalist.training.loop import train as run

    source = None if resume == "latest" else Path(resume).expanduser()
    folder = run(loaded, resume_from=source, allow_changes=allow_changes)
    console().print(f"Checkpoint: [bold]{folder}[/]", soft_wrap=True)


def _print_plan(recipe: Recipe, flops_per_second: float | None, json: Path | None) -> None:
    from generalist.training.plan import describe, plan_run, vocabulary_size_of

    if recipe.model.init_from is not None:
        from generalist.modeling.pretrained import with_sizes_of_start

        recipe = recipe.model_copy(update={"model": with_sizes_of_start(recipe.model)})
    plan = plan_run(recipe, vocabulary_size_of(recipe), flops_per_second)
    console().print(describe(plan), markup=False, soft_wrap=True)
    write_json(json, plan.to_dict())
