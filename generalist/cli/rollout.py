"""`generalist rollout FAMILY TASK`: let a checkpoint act; each family has its own options."""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generalist.cli.common import Interrupted, JsonFile, console, write_json

if TYPE_CHECKING:
    from generalist.acting.rollout import RolloutResult

app = typer.Typer(no_args_is_help=True)

QUICKSTART = Path("runs/quickstart/checkpoint")

Checkpoint = Annotated[
    Path, typer.Option(help="Folder of the checkpoint, or its repository on the Hub: user/name.")
]
Episodes = Annotated[int, typer.Option(min=1, help="Episodes to act.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the first episode, then one more each.")]
Envs = Annotated[
    int | None, typer.Option(min=1, help="Episodes side by side; changes only the speed.")
]
PromptEpisodes = Annotated[
    int, typer.Option(min=0, help="Demonstrations of the expert to begin with; 0 for none.")
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Of the sampling, continuous actions at 0.3 of it; 0 is greedy. Default: as the "
        "checkpoint's recipe says for the task.",
    ),
]
Video = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Write a video of the first episode there.")
]
FIRST_SEED = 1_000_000  # data are collected with smaller ones


class Dtype(StrEnum):
    """What a model's weights may be rounded to."""

    float32 = "float32"
    bfloat16 = "bfloat16"


_ASKED: ContextVar[tuple[str | None, Dtype]] = ContextVar("device and dtype")


@app.callback()
def place(
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda:1. Default: a GPU where there is one.")
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option(help="bfloat16: faster where a CPU has AMX and the model is large.")
    ] = Dtype.float32,
) -> None:
    """Act in a task with a checkpoint and score it."""
    _ASKED.set((device, dtype))


def _place() -> dict[str, Any]:
    """Device and dtype as `Agent.from_pretrained` takes them; raises UsageError for no device."""
    from generalist.gpu import device_for

    asked, dtype = _ASKED.get()
    return {"device": device_for(asked, "--device"), "dtype": dtype.value}


@app.command("gym")
def gym(
    task: Annotated[str, typer.Argument(metavar="ID", help="Any installed id: CartPole-v1.")],
    checkpoint: Checkpoint = QUICKSTART,
    episodes: Episodes = 20,
    seed: Seed = FIRST_SEED,
    envs: Envs = None,
    prompt_episodes: PromptEpisodes = 0,
    temperature: Temperature = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Truncate episodes there; the id's own if not given.")
    ] = None,
    video: Video = None,
    json: JsonFile = None,
) -> None:
    """Gymnasium: any installed id, registered with generalist or not."""
    _act("gym", task, checkpoint, episodes, seed, envs, prompt_episodes, temperature, video, json,
         max_steps=max_steps)  # fmt: skip


@app.command("dmc")
def dmc(
    task: Annotated[str, typer.Argument(metavar="DOMAIN-TASK", help="Such as cartpole-swingup.")],
    checkpoint: Checkpoint = QUICKSTART,
    episodes: Episodes = 20,
    seed: Seed = FIRST_SEED,
    envs: Envs = None,
    prompt_episodes: PromptEpisodes = 0,
    temperature: Temperature = None,
    video: Video = None,
    json: JsonFile = None,
) -> None:
    """DeepMind Control Suite, from states. Videos need EGL or OSMesa (apt install libegl1)."""
    _act("dmc", task, checkpoint, episodes, seed, envs, prompt_episodes, temperature, video, json)


@app.command("babyai")
def babyai(
    task: Annotated[str, typer.Argument(metavar="LEVEL", help="Such as GoToLocal.")],
    checkpoint: Checkpoint = QUICKSTART,
    episodes: Episodes = 100,
    seed: Seed = FIRST_SEED,
    envs: Envs = None,
    prompt_episodes: PromptEpisodes = 0,
    temperature: Temperature = None,
    video: Video = None,
    json: JsonFile = None,
) -> None:
    """BabyAI: a grid world with instructions in words; the score is the success rate."""
    _act("babyai", task, checkpoint, episodes, seed, envs, prompt_episodes, temperature, video,
         json)  # fmt: skip


@app.command("atari")
def atari(
    task: Annotated[str, typer.Argument(metavar="GAME", help="Such as Pong.")],
    checkpoint: Checkpoint = QUICKSTART,
    episodes: Episodes = 20,
    seed: Seed = FIRST_SEED,
    envs: Envs = None,
    prompt_episodes: PromptEpisodes = 0,
    temperature: Temperature = None,
    sticky: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Chance that the emulator repeats an action."),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Truncate episodes there; 4 frames a step.")
    ] = None,
    video: Video = None,
    json: JsonFile = None,
) -> None:
    """Atari 2600, from frames alone; rewards are the game's own, neither clipped nor scaled."""
    _act("atari", task, checkpoint, episodes, seed, envs, prompt_episodes, temperature, video, json,
         sticky=sticky, max_steps=max_steps)  # fmt: skip


@app.command("metaworld")
def metaworld(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Such as push or drawer-open.")],
    checkpoint: Checkpoint = QUICKSTART,
    episodes: Episodes = 20,
    seed: Seed = FIRST_SEED,
    envs: Envs = None,
    prompt_episodes: PromptEpisodes = 0,
    temperature: Temperature = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, max=500, help="Truncate episodes there; 500 if not given.")
    ] = None,
    to_the_end: Annotated[
        bool, typer.Option("--to-the-end", help="Go on after success, to the last step.")
    ] = False,
    flat: Annotated[
        bool, typer.Option("--flat", help="The package's own observation of 39 numbers.")
    ] = False,
    video: Video = None,
    json: JsonFile = None,
) -> None:
    """Meta-World: a robot's arm; the score is the success rate. Videos need EGL or OSMesa."""
    _act("metaworld", task, checkpoint, episodes, seed, envs, prompt_episodes, temperature, video,
         json, max_steps=max_steps, to_the_end=to_the_end or None, flat=flat or None)  # fmt: skip


@app.command("doom")
def doom(
    task: Annotated[str, typer.Argument(metavar="SCENARIO", help="Such as basic.")],
    checkpoint: Checkpoint = QUICKSTART,
    episodes: Episodes = 20,
    seed: Seed = FIRST_SEED,
    envs: Envs = None,
    prompt_episodes: PromptEpisodes = 0,
    temperature: Temperature = None,
    frame_skip: Annotated[
        int | None, typer.Option(min=1, help="Tics of an action, 35 a second; 4 if not given.")
    ] = None,
    mouse: Annotated[
        bool, typer.Option("--mouse", help="Turn with the mouse in place of the keys.")
    ] = False,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Truncate episodes there.")] = None,
    video: Video = None,
    json: JsonFile = None,
) -> None:
    """ViZDoom, from frames alone, with keys and a mouse; rewards are the scenario's own."""
    _act("doom", task, checkpoint, episodes, seed, envs, prompt_episodes, temperature, video, json,
         frame_skip=frame_skip, mouse=mouse or None, max_steps=max_steps)  # fmt: skip


@app.command("board")
def board(
    task: Annotated[str, typer.Argument(metavar="GAME", help="Such as ConnectFour-6x7.")],
    checkpoint: Checkpoint = QUICKSTART,
    episodes: Episodes = 20,
    seed: Seed = FIRST_SEED,
    envs: Envs = None,
    prompt_episodes: PromptEpisodes = 0,
    temperature: Temperature = None,
    opponent: Annotated[
        str | None,
        typer.Option(
            help="random, or mcts@N: a search of N simulations a move. "
            "Default: as many as the board has cells."
        ),
    ] = None,
    side: Annotated[
        str | None, typer.Option(help="first or second; drawn for each game if not given.")
    ] = None,
    video: Video = None,
    json: JsonFile = None,
) -> None:
    """Board games against an opponent: 1 for a game won, -1 for one lost, 0 for a draw."""
    _act("board", task, checkpoint, episodes, seed, envs, prompt_episodes, temperature, video, json,
         opponent=opponent, side=side)  # fmt: skip


@app.command("text")
def text(
    prompt: Annotated[str, typer.Option(help="The text to go on from.")] = "",
    checkpoint: Checkpoint = QUICKSTART,
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to write.")] = 200,
    episodes: Annotated[int, typer.Option(min=1, help="How many continuations.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first continuation.")] = 0,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus of the sampling.")] = 0.95,
    json: JsonFile = None,
) -> None:
    """Text: the same weights read a prompt and write on."""
    from generalist.acting.agent import Agent
    from generalist.acting.text import stream_text

    agent = Agent.from_pretrained(checkpoint, task=_document_task(checkpoint), **_place())
    written = []
    for number in range(episodes):
        typer.echo(prompt, nl=False)
        pieces = []
        for piece in stream_text(agent, prompt, tokens, temperature, top_p, seed + number):
            typer.echo(piece, nl=False)
            pieces.append(piece)
        typer.echo("")
        written.append("".join(pieces))
    write_json(json, {
        "task": agent.task, "checkpoint": str(checkpoint), "prompt": prompt, "texts": written,
        "episodes": episodes, "seeds": list(range(seed, seed + episodes)),
        "temperature": temperature, "top_p": top_p,
    })  # fmt: skip


def _document_task(checkpoint: Path) -> str:
    """A task of text the checkpoint knows; any of its tasks where it knows none."""
    from generalist.acting.hub import checkpoint_folder
    from generalist.shards.files import read_json

    path = checkpoint_folder(checkpoint) / "generalist" / "layouts.json"
    names = sorted(read_json(path)) if path.exists() else []
    return next((name for name in names if name.startswith("text/")), names[0] if names else "")


def _act(
    family: str, name: str, checkpoint: Path, episodes: int, seed: int, envs: int | None,
    prompt_episodes: int, temperature: float | None, video: Path | None, json: Path | None,
    **options: Any,
) -> None:  # fmt: skip
    from generalist.envs import get_task

    task = name if name.startswith(f"{family}/") else f"{family}/{name}"
    get_task(task)  # a wrong name is found before torch is loaded

    from generalist.acting.agent import Agent
    from generalist.acting.rollout import rollout

    agent = _load(Agent, checkpoint, task, temperature)
    given = {key: value for key, value in options.items() if value is not None}
    result = rollout(
        agent, task, episodes=episodes, seed=seed, num_envs=envs, prompt_episodes=prompt_episodes,
        video_dir=video, **given,
    )  # fmt: skip
    _print(result)
    write_json(json, result.to_dict())
    if result.interrupted:
        raise Interrupted(f"Interrupted: {result.episodes} of {episodes} episodes are scored.")


def _load(agent_class: Any, checkpoint: Path, task: str, temperature: float | None) -> Any:
    """An agent that may be asked for a task the checkpoint was not trained on."""
    from generalist.acting.hub import checkpoint_folder
    from generalist.shards.files import read_json

    path = checkpoint_folder(checkpoint) / "generalist" / "layouts.json"
    known = sorted(read_json(path)) if path.exists() else []
    first = task if task in known or not known else known[0]
    if known and task not in known:
        typer.echo(f"Note: {checkpoint} was not trained on {task}.", err=True)
    return agent_class.from_pretrained(checkpoint, first, temperature=temperature, **_place())


def _print(result: RolloutResult) -> None:
    from generalist.evaluation.scores import with_error

    score = with_error(result.mean, result.stderr)
    parts = [f"[bold]{result.task}[/]: {result.metric} [bold]{score}[/]"]
    if result.normalized is not None:
        parts.append(f"normalised {result.normalized:.3f}")
    parts += [
        f"{who} {value:.4g}"
        for who, value in (("random", result.random), ("expert", result.expert))
        if value is not None
    ]
    parts.append(f"{result.episodes} episodes, {result.steps_per_second:,.0f} steps/s")
    console().print(", ".join(parts), soft_wrap=True)
    if result.video:
        console().print(f"video: {result.video}", soft_wrap=True)
