"""`generalist dagger`: the agent acts, the expert labels, the shards grow, training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generalist.cli.common import console
from generalist.errors import GeneralistError, UsageError

if TYPE_CHECKING:
    from generalist.data.reader import TaskData
    from generalist.episode import Episode

FIRST_SEED = 900_000  # the last block of seeds for data; no shipped dataset plays in it
SOURCE = "dagger"


def dagger(
    task: Annotated[str, typer.Argument(help="The task to correct the agent in: family/Name.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Folder of the checkpoint to start from.")
    ] = Path("runs/quickstart/checkpoint"),
    data: Annotated[Path, typer.Option(help="Folder of the shards that grow.")] = Path(
        "runs/quickstart/data"
    ),
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of a round; the checkpoint's own if not given.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change: schedule.steps=500."),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes the agent acts in a round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of acting and training.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the rounds.")] = Path("runs/dagger"),
    expert: Annotated[
        str | None, typer.Option(help="Who labels; the task's own expert if not given.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of the agent's sampling.")] = 0.0,
) -> None:
    """Let the agent act and its expert say what it would have done, then train on that too.

    Ross, Gordon and Bagnell (2011). Each round's weights start from those before. The same command
    continues after an interruption: finished episodes and rounds are kept.
    """
    from generalist.envs import get_task
    from generalist.training.recipe import load_recipe

    get_task(task)
    own = checkpoint / "generalist" / "recipe.yaml"
    source = recipe or str(own)
    if not own.exists():
        raise GeneralistError(f"{checkpoint} is not a checkpoint to start from: {own} is missing.")
    # Mistakes show before anything is played.
    if load_recipe(source, overrides or ()).model != load_recipe(own).model:
        raise UsageError(
            f"The recipe {source} describes another model than {checkpoint} holds, whose weights "
            "it is to start from; leave --recipe and model.* out to train with the checkpoint's."
        )
    for number in range(1, rounds + 1):
        folder = out / f"round-{number}"
        if not (folder / "checkpoint").exists():
            grow(task, checkpoint, data, folder, episodes, expert, temperature)
            keys = [*(overrides or ()), f"data.root={data}", f"output_dir={folder}"]
            _train(load_recipe(source, keys), checkpoint)
        checkpoint = folder / "checkpoint"
        console().print(f"Round {number} of {rounds}: [bold]{checkpoint}[/]", soft_wrap=True)


def grow(
    task: str, checkpoint: Path, data: Path, folder: Path, episodes: int, expert: str | None,
    temperature: float,
) -> int:  # fmt: skip
    """Append the episodes of one round that are not there yet; returns how many were added.

    A round is known by its folder's name in the records, so an interrupted one is completed.
    """
    from generalist.acting.agent import Agent
    from generalist.acting.rollout import dagger_episodes
    from generalist.data.encode import encode_episode
    from generalist.data.reader import TaskData
    from generalist.data.shards import append_episodes

    shards = data / task
    if not (shards / "dataset.json").exists():
        raise GeneralistError(
            f"{data} holds no shards of {task} that could grow; collect some first."
        )
    agent = Agent.from_pretrained(checkpoint, task=task, temperature=temperature)
    there = TaskData(shards, agent.processor)
    _check_layout(there, agent)
    corrections = [record for record in there.records if record.get("source") == SOURCE]
    missing = episodes - sum(record.get("round") == str(folder) for record in corrections)
    if missing <= 0:
        return 0
    seed = 1 + max((record["seed"] for record in corrections), default=FIRST_SEED - 1)
    played = dagger_episodes(agent, task, episodes=missing, seed=seed, expert=expert)
    for episode in played:
        episode.info["round"] = str(folder)
    append_episodes(
        shards,
        (encode_episode(each, agent.processor, agent.layout, SOURCE) for each in played),
    )
    console().print(f"{task}: {_describe(played)}", soft_wrap=True)
    if len(played) < missing:  # Ctrl-C: what had ended is kept
        raise KeyboardInterrupt
    return len(played)


def _check_layout(data: TaskData, agent: Any) -> None:
    if data.layout.to_dict() != agent.layout.to_dict():
        raise GeneralistError(
            f"The shards of {data.task} have another layout than the checkpoint {agent.name}; "
            "use the data the checkpoint was trained on."
        )


def _describe(episodes: list[Episode]) -> str:
    mean = sum(episode.return_ for episode in episodes) / len(episodes)
    return f"{len(episodes)} corrected episodes, mean return of the agent {mean:.4g}"


def _train(recipe: Any, checkpoint: Path) -> None:
    """Train as the recipe says, from the weights of `checkpoint`."""
    from generalist.training.data import open_data
    from generalist.training.launch import StopSignal, start_accelerator, torch_settings_kept
    from generalist.training.loop import Trainer

    with torch_settings_kept():
        trainer = Trainer(recipe, open_data(recipe), start_accelerator(recipe))
        trainer.resume()
        if trainer.state.step == 0:
            _load_weights(trainer.model, checkpoint)
        with StopSignal() as stop:
            trainer.run(stop)
        trainer.export()


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
