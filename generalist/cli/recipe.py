"""`generalist recipe`: the path of a recipe or of a configuration of `accelerate launch`."""

from __future__ import annotations

from typing import Annotated

import typer

from generalist.errors import UsageError


def recipe(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of a recipe (quickstart, sizes/79m) or of a configuration (ddp, zero2)."
        ),
    ] = None,
) -> None:
    """Print the path of a recipe or of a configuration of `accelerate launch`.

    Without NAME, list all of them. For instance, this trains a recipe by ZeRO-2 from any folder:
    accelerate launch --config_file $(generalist recipe zero2) -m generalist.training RECIPE
    """
    from generalist.specs import find_spec, list_specs, nearest

    recipes = {kind: list_specs(kind) for kind in ("recipes", "sizes", "selfplay")}
    launches = list_specs("accelerate")
    if name is None:
        others = [f"{kind}/{each}" for kind in ("sizes", "selfplay") for each in recipes[kind]]
        print(f"Recipes: {', '.join([*recipes['recipes'], *others])}")
        print(f"Configurations of accelerate launch: {', '.join(launches)}")
        return
    if name in launches:
        print(find_spec("accelerate", name).resolve())
        return
    try:
        print(find_spec("recipes", name).resolve())
    except UsageError as error:
        near = nearest(name, launches)
        hint = f" Or did you mean {near!r}, a configuration of accelerate launch?" if near else ""
        raise UsageError(f"{error}{hint}") from None
