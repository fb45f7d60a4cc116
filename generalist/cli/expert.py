"""`generalist expert train`: an expert for a task that has none, by reinforcement learning."""

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
        typer.Option(help="ppo, sac or dqn; ppo for discrete actions, else sac, if not given."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Environment steps; what is known to do if not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the expert; runs/experts/TASK if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of training.")] = 0,
    episodes: Annotated[int, typer.Option(min=1, help="To measure it in at the end.")] = 20,
    json: JsonFile = None,
) -> None:
    """Train an expert with stable-baselines3 (the extra `experts`) and measure it.

    It demonstrates with `collect --expert OUT`, or as `expert: OUT` in a dataset spec. Its folder
    holds weights as safetensors and a card as JSON. They are written at the end; interrupted, the
    same command begins anew.
    """
    from generalist.evaluation.scores import with_error
    from generalist.experts.learning import train_expert

    folder = out or Path("runs/experts") / task
    try:
        card = train_expert(task, folder, algorithm, steps, seed, episodes).card
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted: an expert is written at the end of its training, and nothing of it is "
            "kept; the same command begins anew."
        ) from None
    screen = console()
    for name, title in (("random", "random"), ("score", card["algorithm"])):
        score = card[name]
        said = with_error(score["mean"], score["stderr"])
        screen.print(f"{title:<8} {said} ({episodes} episodes)")
    screen.print(f"Expert of {task}: [bold]{folder}[/], trained in {duration(card['seconds'])}",
                 soft_wrap=True)  # fmt: skip
    write_json(json, card)
