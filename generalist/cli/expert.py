"""`generalist expert train`: train an expert by reinforcement learning for a task without one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generalist.cli.common import Interrupted, JsonFile, console, duration, write_json

app = typer.Typer(no_args_is_help=True, help="Train experts that demonstrate.")


@app.callback()
def _group() -> None:
    """Train experts that demonstrate."""


@app.command("train")
def train(
    task: Annotated[str, typer.Argument(help="Task with a state observation: family/Name.")],
    algorithm: Annotated[
        str | None,
        typer.Option(help="ppo, sac or dqn. Default: ppo for discrete actions, else sac."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Environment steps. Default: those of the task's recipe."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the expert. Default: runs/experts/TASK.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training.")] = 0,
    episodes: Annotated[
        int, typer.Option(min=1, help="Episodes that measure the expert at the end.")
    ] = 20,
    json: JsonFile = None,
) -> None:
    """Train an expert with stable-baselines3 (the extra `experts`) and measure it.

    The expert demonstrates with `collect --expert OUT`, or as `expert: OUT` in a dataset spec. Its
    folder holds weights (safetensors) and a card (JSON).

    The command writes them at the end of the training; after an interruption it begins anew.
    """
    from generalist.evaluation.scores import with_error
    from generalist.experts.learning import train_expert

    folder = out or Path("runs/experts") / task
    try:
        card = train_expert(
            task, folder, algorithm=algorithm, steps=steps, seed=seed, episodes=episodes
        ).card
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted: nothing is kept of an expert before the end of its training; the same "
            "command begins anew."
        ) from None
    screen = console()
    for name, title in (("random", "random"), ("score", card["algorithm"])):
        score = card[name]
        said = with_error(score["mean"], score["stderr"])
        screen.print(f"{title:<8} {said} ({episodes} episodes)")
    screen.print(f"Expert of {task}: [bold]{folder}[/], trained in {duration(card['seconds'])}",
                 soft_wrap=True)  # fmt: skip
    write_json(json, card)
