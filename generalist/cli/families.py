"""The options of `generalist rollout`: what all families share, and what each has of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from generalist.cli.common import JsonFile
from generalist.seeds import EVALUATION_SEED

QUICKSTART = Path("runs/quickstart/checkpoint")


class Dtype(StrEnum):
    """What a model's weights may be rounded to."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Who(StrEnum):
    """Who acts."""

    agent = "agent"
    expert = "expert"
    random = "random"


class Render(StrEnum):
    """How episodes are shown."""

    human = "human"


Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the checkpoint, or its repository on the Hub: user/name.",
        show_default=str(QUICKSTART),
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Such as cpu or cuda:1. Default: a GPU where there is one.")
]
Rounded = Annotated[
    Dtype | None,
    typer.Option(
        help="bfloat16: faster where a CPU has AMX and the model is large.", show_default="float32"
    ),
]
MAX_STEPS = "Truncate episodes there{}."
# Each option of every family: its default, and how it is shown.
SHARED: dict[str, tuple[Any, Any]] = {
    "checkpoint": (None, Checkpoint),
    "policy": (
        Who.agent, Annotated[Who, typer.Option(help="Who acts: the checkpoint, or others.")],
    ),
    "expert": (
        None,
        Annotated[
            str | None,
            typer.Option(help="Which expert acts with --policy expert: lqr, planner@256, a folder "
                         "of `expert train`, package.module:Class. Default: the task's own."),
        ],
    ),
    "episodes": (20, Annotated[int, typer.Option(min=1, help="Episodes to act.")]),
    "seed": (
        EVALUATION_SEED,
        Annotated[
            int, typer.Option(min=0, help="Seed of the first episode, then one more each.")
        ],
    ),
    "envs": (
        None,
        Annotated[
            int | None,
            typer.Option(min=1, help="Episodes side by side; changes only the speed."),
        ],
    ),
    "instruction": (
        None,
        Annotated[
            str | None,
            typer.Option(metavar="TEXT", help="Tell the agent this in place of what the "
                         "environment says."),
        ],
    ),
    "prompt_episodes": (
        0,
        Annotated[
            int,
            typer.Option(min=0, help="Demonstrations of the expert to begin with; 0 for none."),
        ],
    ),
    "temperature": (
        None,
        Annotated[
            float | None,
            typer.Option(min=0.0, help="Of the sampling, continuous actions at 0.3 of it; 0 is "
                         "greedy. Default: as the checkpoint's recipe says for the task."),
        ],
    ),
    "device": (None, Device),
    "dtype": (None, Rounded),
    "video": (
        None,
        Annotated[Path | None, typer.Option(metavar="DIR", help="Write films of episodes there.")],
    ),
    "video_episodes": (
        None,
        Annotated[
            int | None,
            typer.Option(min=1, help="How many of the first episodes are filmed.",
                         show_default="1"),
        ],
    ),
    "render": (
        None,
        Annotated[
            Render | None, typer.Option(help="human: show the episodes in a window.")
        ],
    ),
    "json": (None, JsonFile),
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A subcommand: how its tasks are named, and its own options of the environment.

    limit: in words where an episode is truncated if `--max-steps` is not given.
    options: name -> type and description; where an option is not given, the environment is as the
        checkpoint was trained in it.
    episodes: by default.
    """

    help: str
    metavar: str
    example: str
    limit: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    episodes: int = 20


def option(kind: Any, *names: str, **facts: Any) -> Any:
    return Annotated[kind | None, typer.Option(*names, **facts)]


FAMILIES = {
    "gym": Family(
        "Gymnasium: any installed id, registered with generalist or not.",
        "ID",
        "Any installed id: CartPole-v1.",
        "; the id's own limit if not given",
        {
            "option": option(
                list[str],
                metavar="KEY=VALUE",
                help="An argument of the environment, such as gravity=-9.8; may be repeated.",
            )
        },
    ),
    "dmc": Family(
        "DeepMind Control Suite, from states. Films need EGL or OSMesa (apt install libegl1).",
        "DOMAIN-TASK",
        "Such as cartpole-swingup.",
    ),
    "babyai": Family(
        "BabyAI: a grid world with instructions in words; the score is the success rate.",
        "LEVEL",
        "Such as GoToLocal.",
        "; rewards depend on it",
        episodes=100,
    ),
    "atari": Family(
        "Atari 2600, from frames alone; rewards are the game's own, neither clipped nor scaled.",
        "GAME",
        "Such as Pong.",
        "; 4 frames a step",
        {
            "sticky": option(
                float, min=0.0, max=1.0, help="Chance that the emulator repeats an action."
            )
        },
    ),
    "metaworld": Family(
        "Meta-World: a robot's arm; the score is the success rate. Films need EGL or OSMesa.",
        "TASK",
        "Such as push or drawer-open.",
        "; 500 at most",
        {
            "to_the_end": option(
                bool, "--to-the-end/--to-success", help="Go on after success, to the last step."
            ),
            "flat": option(
                bool, "--flat/--parts", help="The package's own observation of 39 numbers."
            ),
        },
    ),
    "doom": Family(
        "ViZDoom, from frames alone, with keys and a mouse; rewards are the scenario's own.",
        "SCENARIO",
        "Such as basic.",
        options={
            "frame_skip": option(
                int, min=1, help="Tics of an action, 35 a second; 4 if not given."
            ),
            "mouse": option(
                bool, "--mouse/--keys", help="Turn with the mouse in place of the keys."
            ),
        },
    ),
    "board": Family(
        "Board games against an opponent: 1 for a game won, -1 for one lost, 0 for a draw.",
        "GAME",
        "Such as ConnectFour-6x7.",
        ", undecided",
        {
            "opponent": option(
                str,
                help="random, or mcts@N: a search of N simulations a move. "
                "Default: as many as the board has cells.",
            ),
            "side": option(str, help="first or second; drawn for each game if not given."),
        },
    ),
}
