"""The options of `generalist rollout`: those of all families, and those of each family."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from generalist.cli.common import JsonFile
from generalist.seeds import EVALUATION_SEED

QUICKSTART = Path("runs/quickstart/checkpoint")


class Dtype(StrEnum):
    """Data types of a model's weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Who(StrEnum):
    """The policy that acts."""

    agent = "agent"
    expert = "expert"
    random = "random"
    retrieval = "retrieval"


class Render(StrEnum):
    """How episodes are shown while they are played."""

    human = "human"


Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the checkpoint, a shipped one (catalogue), or its repository on the Hub: "
        "user/name.",
        show_default=str(QUICKSTART),
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:1. Default: a GPU where there is one.")
]
Rounded = Annotated[
    Dtype | None,
    typer.Option(
        help="Data type of the weights. bfloat16 is faster on a CPU with AMX and a large model.",
        show_default="float32",
    ),
]
MAX_STEPS = "Truncate episodes after this many steps{}."
# Each option of every family: its default, and how it is shown.
SHARED: dict[str, tuple[Any, Any]] = {
    "checkpoint": (None, Checkpoint),
    "policy": (
        Who.agent,
        Annotated[
            Who,
            typer.Option(help="Who acts: the checkpoint, an expert, random play, or retrieval, "
                         "which plays the nearest demonstrated action of --retrieve."),
        ],
    ),
    "expert": (
        None,
        Annotated[
            str | None,
            typer.Option(help="Which expert acts with --policy expert: lqr, planner@256, a folder "
                         "of `expert train`, package.module:Class. Default: the task's own."),
        ],
    ),
    "episodes": (20, Annotated[int, typer.Option(min=1, help="Episodes to play.")]),
    "seed": (
        EVALUATION_SEED,
        Annotated[
            int, typer.Option(min=0, help="Seed of the first episode; each further episode adds 1.")
        ],
    ),
    "envs": (
        None,
        Annotated[
            int | None,
            typer.Option(min=1, help="Episodes in parallel (only the speed changes). Default: up "
                         "to 20."),
        ],
    ),
    "instruction": (
        None,
        Annotated[
            str | None,
            typer.Option(metavar="TEXT", help="Instruction for the agent, in place of the "
                         "environment's own."),
        ],
    ),
    "prompt_episodes": (
        0,
        Annotated[
            int,
            typer.Option(min=0, help="Demonstrations of the expert in the prompt; 0 for none."),
        ],
    ),
    "retrieve": (
        None,
        Annotated[
            Path | None,
            typer.Option(metavar="FOLDER", help="Demonstrations of the task. At each step those of "
                         "their timesteps that are nearest to the observation are the prompt."),
        ],
    ),
    "retrieve_steps": (
        None,
        Annotated[
            int | None,
            typer.Option(min=1, help="With --retrieve: timesteps in the prompt.",
                         show_default="as many as fit"),
        ],
    ),
    "retrieve_lambda": (
        None,
        Annotated[
            float | None,
            typer.Option(min=0.0, metavar="LAMBDA", help="With --retrieve: add the nearest action "
                         "to the model's own, with weight exp(-LAMBDA distance); 0 plays it alone.",
                         show_default="the prompt alone"),
        ],
    ),
    "temperature": (
        None,
        Annotated[
            float | None,
            typer.Option(min=0.0, help="Sampling temperature; continuous actions use 0.3 of it; 0 "
                         "is greedy. Default: that of the checkpoint's recipe."),
        ],
    ),
    "guidance": (
        None,
        Annotated[
            float | None,
            typer.Option(min=0.0, metavar="LAMBDA", help="Guidance by the instruction: the logits "
                         "without it, and LAMBDA times what it changes. 1 adds nothing."),
        ],
    ),
    "plan": (
        None,
        Annotated[
            str | None,
            typer.Option(metavar="PLAN", help="Look ahead before acting: tree:simulations=16,"
                         "horizon=20 in a simulator that can be restored, tree:simulations=100 in "
                         "board games, beam:width=32,horizon=10 in a world model."),
        ],
    ),
    "wanted_return": (
        None,
        Annotated[
            str | None,
            typer.Option(metavar="RETURN", help="Ask for a return: expert, a number (250), or a "
                         "percentage of the way from the worst to the best of the data (80%). "
                         "Options: expert:kappa=10,low=0,high=100, 250:clip=no."),
        ],
    ),
    "device": (None, Device),
    "dtype": (None, Rounded),
    "video": (
        None,
        Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for videos of episodes.")],
    ),
    "video_episodes": (
        None,
        Annotated[
            int | None,
            typer.Option(min=1, help="With --video: number of episodes to record.",
                         show_default="1"),
        ],
    ),
    "render": (
        None,
        Annotated[
            Render | None, typer.Option(help="human shows the episodes in a window.")
        ],
    ),
    "json": (None, JsonFile),
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A subcommand of `generalist rollout`: its tasks, and the options of its environments.

    Attributes:
        help: what the subcommand says of the family.
        metavar: placeholder of the task's name.
        example: examples of names.
        limit: what `--max-steps` says of the family's own limit; it follows on "this many steps".
        options: the type and help of each option of the environment, by name. An option that is
            not given keeps the value that the checkpoint was trained with.
        episodes: default number of episodes.
    """

    help: str
    metavar: str
    example: str
    _: KW_ONLY
    limit: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    episodes: int = 20


def option(kind: Any, *names: str, **facts: Any) -> Any:
    """The annotation of an option that is None where it is not given.

    Args:
        kind: type of its value.
        names: its flags; the parameter's name where there are none.
        facts: further arguments of `typer.Option`.
    """
    return Annotated[kind | None, typer.Option(*names, **facts)]


WORDS = {
    "words": option(
        str, help="seen, paraphrases (sentences not in the data) or synonyms (words not in it)."
    ),
    "pairs": option(
        str, help="seen, or heldout: colours and kinds that stand together in no data."
    ),
}
PICTURE = {
    "picture": option(
        str, help="own, or other: the picture of another episode, while question and truth stay."
    )
}
FAMILIES = {
    "gym": Family(
        "Gymnasium: any installed id, registered with generalist or not.",
        "ID",
        "Any installed id, such as CartPole-v1.",
        limit=". Default: the id's own limit",
        options={
            "option": option(
                list[str],
                metavar="KEY=VALUE",
                help="Argument of the environment, such as gravity=-9.8. May be repeated.",
            )
        },
    ),
    "dmc": Family(
        "DeepMind Control Suite, from states. Videos need EGL or OSMesa (apt install libegl1).",
        "DOMAIN-TASK",
        "Such as cartpole-swingup.",
    ),
    "babyai": Family(
        "BabyAI: a grid world with instructions in words; the score is the success rate.",
        "LEVEL",
        "Such as GoToLocal.",
        limit="; rewards depend on it",
        episodes=100,
    ),
    "atari": Family(
        "Atari 2600, from frames alone; rewards are the game's own, neither clipped nor scaled.",
        "GAME",
        "Such as Pong.",
        limit=" (4 frames per step)",
        options={
            "sticky": option(
                float,
                min=0.0,
                max=1.0,
                help="Probability that the emulator repeats the last action.",
            )
        },
    ),
    "metaworld": Family(
        "Meta-World: a robot arm; the score is the success rate. Videos need EGL or OSMesa.",
        "TASK",
        "Such as push or drawer-open.",
        limit="; at most 500",
        options={
            "to_the_end": option(
                bool,
                "--to-the-end/--to-success",
                help="Play on after success, or end the episode there.",
            ),
            "flat": option(
                bool, "--flat/--parts", help="Observe one vector of 39 numbers, or its named parts."
            ),
        },
    ),
    "doom": Family(
        "ViZDoom, from frames alone, with keys and a mouse; rewards are the scenario's own.",
        "SCENARIO",
        "Such as basic.",
        options={
            "frame_skip": option(
                int, min=1, help="Tics per action (35 tics are a second). Default: 4."
            ),
            "mouse": option(bool, "--mouse/--keys", help="Turn with the mouse, or with the keys."),
        },
    ),
    "doomworld": Family(
        "Rooms in Doom's engine with instructions in words, keys and a mouse; the score is the "
        "success rate.",
        "TASK",
        "Such as GoTo or PickUpGoTo.",
        limit="; rewards depend on it",
        options=WORDS,
        episodes=100,
    ),
    "miniworld": Family(
        "MiniWorld: rooms in 3D with instructions in words, keys and a mouse; the score is the "
        "success rate. Needs OpenGL (apt install libegl1 libgl1 libglu1-mesa).",
        "TASK",
        "Such as GoTo or PutNext.",
        limit="; rewards depend on it",
        options=WORDS,
        episodes=100,
    ),
    "minatar": Family(
        "MinAtar: five small games on a grid; rewards are the game's own.",
        "GAME",
        "Such as Breakout.",
        options={
            "sticky": option(
                float, min=0.0, max=1.0, help="Probability that the game repeats the last action."
            ),
            "ramping": option(
                bool, "--ramping/--steady", help="Whether the game grows harder with time."
            ),
        },
    ),
    "caption": Family(
        "Captions: say what is in a picture; the score is the share that is the truth, word for "
        "word.",
        "PICTURES",
        "Such as BabyAI or MiniWorld.",
        limit="; one picture is one step",
        options=PICTURE,
        episodes=100,
    ),
    "vqa": Family(
        "Questions about a picture; the score is the share of right answers.",
        "PICTURES",
        "Such as BabyAI or MiniWorld.",
        limit="; one picture is one step",
        options=PICTURE,
        episodes=100,
    ),
    "board": Family(
        "Board games against an opponent: 1 for a game won, -1 for one lost, 0 for a draw.",
        "GAME",
        "Such as ConnectFour-6x7.",
        limit=", undecided",
        options={
            "opponent": option(
                str,
                help="random, or mcts@N: a search with N simulations per move. "
                "Default: one simulation per cell of the board.",
            ),
            "side": option(str, help="first or second. Default: drawn for each game."),
        },
    ),
}
