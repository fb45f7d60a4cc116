"""`generalist dagger`: training goes on from a checkpoint, with corrections of what it does."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generalist.cli.common import console
from generalist.errors import GeneralistError, UsageError

if TYPE_CHECKING:
    from generalist.training.recipe import Recipe


def dagger(
    task: Annotated[str, typer.Argument(help="The task to correct the agent in: family/Name.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Folder of the checkpoint to start from.")
    ] = Path("runs/quickstart/checkpoint"),
    data: Annotated[Path, typer.Option(help="Folder of the demonstrations.")] = Path(
        "runs/quickstart/data"
    ),
    recipe: Annotated[
        str | None, typer.Option(help="How to train; the checkpoint's own recipe if not given.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change: schedule.steps=500."),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes the agent acts in a round.")] = 20,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Cut them there, below the task's own limit.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of acting, each before its share of the training.")
    ] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/dagger"),
    expert: Annotated[
        str | None, typer.Option(help="Who labels; who demonstrated the task if not given.")
    ] = None,
) -> None:
    """Let the agent act and its expert say what it would have done, then train on that too.

    Ross, Gordon and Bagnell (2011). All tasks of the data are trained on, so nothing is forgotten;
    the corrections are shards in the folder of the run. A recipe does the same for several tasks
    from the start, by its section `corrections`. The same command continues after an interruption.
    """
    from generalist.envs import get_task, is_document_task
    from generalist.training.recipe import CorrectionsRecipe, load_recipe

    get_task(task)
    if is_document_task(task):
        raise UsageError(f"{task} is text, in which nobody acts; name an environment.")
    own = checkpoint / "generalist" / "recipe.yaml"
    source = recipe or str(own)
    if not own.exists():
        raise GeneralistError(f"{checkpoint} is not a checkpoint to start from: {own} is missing.")
    planned = load_recipe(source, [*(overrides or ()), f"data.root={data}", f"output_dir={out}"])
    if planned.model != load_recipe(own).model:
        raise UsageError(
            f"The recipe {source} describes another model than {checkpoint} holds, whose weights "
            "it is to start from; leave --recipe and model.* out to train with the checkpoint's."
        )
    wanted = {"episodes": episodes, "max_steps": max_steps, "expert": expert}
    planned.corrections = CorrectionsRecipe.model_validate(
        {
            "tasks": {task: wanted},
            "rounds": rounds,
            "begin": 0.0,
            "share": planned.corrections.share,
        }
    )
    console().print(f"Checkpoint: [bold]{_train(planned, checkpoint)}[/]", soft_wrap=True)


def _train(recipe: Recipe, checkpoint: Path) -> Path:
    """Train as the recipe says, from the weights of `checkpoint`."""
    from generalist.training.data import open_data
    from generalist.training.launch import StopSignal, start_accelerator, torch_settings_kept
    from generalist.training.loop import Trainer

    with torch_settings_kept():
        with closing(Trainer(recipe, open_data(recipe), start_accelerator(recipe))) as trainer:
            trainer.resume()
            if trainer.state.step == 0:
                _load_weights(trainer.model, checkpoint)
            with StopSignal() as stop:
                trainer.run(stop)
            return trainer.export()


def _load_weights(model: Any, checkpoint: Path) -> None:
    """Copy a checkpoint's weights; GeneralistError where they are damaged or another model's."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    weights = checkpoint / "model.safetensors"
    try:
        load_model(model, weights)
    except (RuntimeError, OSError, SafetensorError) as error:
        raise GeneralistError(
            f"Training cannot start from {checkpoint}: {weights.name} is damaged, or of another "
            "model than the checkpoint's recipe says."
        ) from error
