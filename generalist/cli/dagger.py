"""`generalist dagger`: train a checkpoint further, with corrections of what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import console
from generalist.errors import GeneralistError, UsageError
from generalist.specs import validate_data


def dagger(
    task: Annotated[
        str, typer.Argument(help="Task in which the expert corrects the agent: family/Name.")
    ],
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="Checkpoint to start from: its folder, or its repository on the Hub: user/name."
        ),
    ] = Path("runs/quickstart/checkpoint"),
    data: Annotated[Path, typer.Option(help="Folder of the demonstrations.")] = Path(
        "runs/quickstart/data"
    ),
    recipe: Annotated[
        str | None, typer.Option(help="Recipe to train with. Default: the checkpoint's own.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change: schedule.steps=500."),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes per round.")] = 20,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Truncate episodes after this many steps.")
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(
            min=1, help="Rounds. In each the agent acts, then trains for 1/ROUNDS of the schedule."
        ),
    ] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/dagger"),
    expert: Annotated[
        str | None,
        typer.Option(
            help="Expert that labels. Default: the one that demonstrated the task. "
            "Needed where that is a folder or your own code."
        ),
    ] = None,
) -> None:
    """Let the agent act, let an expert label each state it meets, and train on these labels too.

    This is DAgger (Ross, Gordon and Bagnell 2011). Training goes on in all tasks of the data, so
    the agent forgets nothing. The corrections are shards in the folder of the run. The section
    `corrections` of a recipe does the same in several tasks from the start of a run.

    The same command continues after an interruption.
    """
    from generalist.acting.hub import checkpoint_folder
    from generalist.envs import get_task, is_document_task
    from generalist.shards.strangers import names_new_code
    from generalist.training.recipe import load_recipe
    from generalist.training.rounds.recipe import CorrectionsRecipe, ImprovementRecipe

    get_task(task)
    if is_document_task(task):
        raise UsageError(f"{task} is text and has no actions; name an environment.")
    checkpoint = checkpoint_folder(checkpoint)
    own = checkpoint / "generalist" / "recipe.yaml"
    source = recipe or str(own)
    if not own.exists():
        raise GeneralistError(f"{checkpoint} is not a checkpoint to start from: {own} is missing.")
    settings = [f"data.root={data}", f"output_dir={out}", f"model.init_from={checkpoint}"]
    planned = load_recipe(source, [*(overrides or ()), *settings])
    if recipe is None:  # the checkpoint's own, which may be a stranger's
        scored = planned.evaluation.tasks
        planned.evaluation.tasks = [each for each in scored if not names_new_code(each)]
    wanted = {"episodes": episodes, "max_steps": max_steps, "expert": expert}
    corrections = {
        "tasks": {task: wanted},
        "rounds": rounds,
        "begin": 0.0,
        "share": planned.corrections.share,
        "earlier": planned.corrections.earlier,
    }
    planned.corrections = validate_data(corrections, CorrectionsRecipe, "generalist dagger")
    planned.improvement = ImprovementRecipe()
    from generalist.training.loop import train

    console().print(f"Checkpoint: [bold]{train(planned)}[/]", soft_wrap=True)
