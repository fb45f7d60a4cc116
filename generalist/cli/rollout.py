"""`generalist rollout FAMILY TASK`: let a checkpoint act; each family has its own options.

What all families share is `_SHARED`, what each has of its own `_FAMILIES`: a subcommand is made
from the two.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generalist.cli.common import Interrupted, JsonFile, console, write_json
from generalist.errors import UsageError

if TYPE_CHECKING:
    from generalist.acting.agent import Agent
    from generalist.acting.rollout import RolloutResult

app = typer.Typer(no_args_is_help=True)

QUICKSTART = Path("runs/quickstart/checkpoint")
FIRST_SEED = 1_000_000  # data are collected with smaller ones


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
_SHARED: dict[str, tuple[Any, Any]] = {
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
        FIRST_SEED,
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


def _option(kind: Any, *names: str, **facts: Any) -> Any:
    return Annotated[kind | None, typer.Option(*names, **facts)]


_FAMILIES = {
    "gym": Family(
        "Gymnasium: any installed id, registered with generalist or not.",
        "ID",
        "Any installed id: CartPole-v1.",
        "; the id's own limit if not given",
        {
            "option": _option(
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
            "sticky": _option(
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
            "to_the_end": _option(
                bool, "--to-the-end/--to-success", help="Go on after success, to the last step."
            ),
            "flat": _option(
                bool, "--flat/--parts", help="The package's own observation of 39 numbers."
            ),
        },
    ),
    "doom": Family(
        "ViZDoom, from frames alone, with keys and a mouse; rewards are the scenario's own.",
        "SCENARIO",
        "Such as basic.",
        options={
            "frame_skip": _option(
                int, min=1, help="Tics of an action, 35 a second; 4 if not given."
            ),
            "mouse": _option(
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
            "opponent": _option(
                str,
                help="random, or mcts@N: a search of N simulations a move. "
                "Default: as many as the board has cells.",
            ),
            "side": _option(str, help="first or second; drawn for each game if not given."),
        },
    ),
}


def _command(name: str, family: Family) -> Callable[..., None]:
    """The function of a subcommand, with the options it is to have."""
    task = Annotated[str, typer.Argument(metavar=family.metavar, help=family.example)]
    limit = _option(int, min=1, help=MAX_STEPS.format(family.limit))
    parameters: dict[str, tuple[Any, Any]] = {"task": (inspect.Parameter.empty, task)}
    for key, shared in _SHARED.items():
        parameters[key] = (family.episodes, shared[1]) if key == "episodes" else shared
        if key == "envs":  # the environment's own stand in the middle, where they are looked for
            parameters["max_steps"] = (None, limit)
            parameters |= {key: (None, kind) for key, kind in family.options.items()}

    def command(**given: Any) -> None:
        options = {key: given.pop(key) for key in ("max_steps", *family.options)}
        _act(name, options, **given)

    command.__doc__ = family.help
    keyword = inspect.Parameter.KEYWORD_ONLY
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(key, keyword, default=default, annotation=kind)
            for key, (default, kind) in parameters.items()
        ]
    )
    command.__annotations__ = {key: kind for key, (_, kind) in parameters.items()}
    return command


_PLACE: ContextVar[tuple[str | None, Dtype | None]] = ContextVar("device and dtype of the group")


@app.callback()
def place(device: Device = None, dtype: Rounded = None) -> None:
    """Act in a task with a checkpoint and score it. Interrupted, the same command begins anew."""
    _PLACE.set((device, dtype))


def _place(device: str | None, dtype: Dtype | None) -> dict[str, Any]:
    """Device and dtype as `Agent.from_pretrained` takes them; raises UsageError for no device.

    They may stand before the family or behind it.
    """
    from generalist.gpu import device_for

    before = _PLACE.get()
    found = device_for(device or before[0], "--device")
    return {"device": found, "dtype": (dtype or before[1] or Dtype.float32).value}


for _name, _family in _FAMILIES.items():
    app.command(_name)(_command(_name, _family))


@app.command("text")
def text(
    prompt: Annotated[str, typer.Option(help="The text to go on from.")] = "",
    checkpoint: Checkpoint = None,
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to write.")] = 200,
    episodes: Annotated[int, typer.Option(min=1, help="How many continuations.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first continuation.")] = 0,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus of the sampling.")] = 0.95,
    device: Device = None,
    dtype: Rounded = None,
    json: JsonFile = None,
) -> None:
    """Text: the same weights read a prompt and write on."""
    from generalist.acting.agent import Agent
    from generalist.acting.text import stream_text

    checkpoint = checkpoint or QUICKSTART
    task = _document_task(checkpoint)
    agent = Agent.from_pretrained(checkpoint, task=task, **_place(device, dtype))
    written = []
    for number in range(episodes):
        typer.echo(prompt, nl=False)
        pieces = []
        for piece in stream_text(
            agent, prompt, max_tokens=tokens, temperature=temperature, top_p=top_p,
            seed=seed + number,
        ):  # fmt: skip
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
    names = _known_tasks(checkpoint)
    return next((name for name in names if name.startswith("text/")), names[0] if names else "")


def _known_tasks(checkpoint: Path) -> list[str]:
    """The tasks that a checkpoint was trained on, sorted."""
    from generalist.acting.hub import checkpoint_folder
    from generalist.shards.files import read_json

    path = checkpoint_folder(checkpoint) / "generalist" / "layouts.json"
    return sorted(read_json(path)) if path.exists() else []


def _act(
    family: str,
    options: dict[str, Any],
    *,
    task: str,
    checkpoint: Path | None,
    policy: Who,
    expert: str | None,
    temperature: float | None,
    device: str | None,
    dtype: Dtype | None,
    envs: int | None,
    video: Path | None,
    video_episodes: int | None,
    render: Render | None,
    json: Path | None,
    **given: Any,
) -> None:
    """Play and print; options of the environment that are None are left to the checkpoint."""
    from generalist.envs import get_task

    name = task if task.startswith(f"{family}/") else f"{family}/{task}"
    get_task(name)  # a wrong name is found before torch is loaded
    _check_together(
        policy, expert, checkpoint=checkpoint, temperature=temperature, device=device, dtype=dtype,
        instruction=given["instruction"], prompt_episodes=given["prompt_episodes"] or None,
    )  # fmt: skip
    if video_episodes is not None and video is None:
        raise UsageError("--video-episodes belongs to --video DIR; add it, or leave both out.")

    from generalist.acting.rollout import rollout

    who: Agent | str = expert or policy.value
    if policy is Who.agent:
        who = _load(checkpoint or QUICKSTART, name, temperature, **_place(device, dtype))
    options = {key: value for key, value in options.items() if value is not None}
    options |= _arguments(options.pop("option", []))
    try:
        result = rollout(
            who, name, num_envs=envs, video_dir=video, video_episodes=video_episodes or 1,
            render=None if render is None else render.value, say=_note, **given, **options,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted: no episode had ended; the same command begins anew."
        ) from None
    _print(result)
    write_json(json, result.to_dict())
    if result.interrupted:
        raise Interrupted(
            f"Interrupted: {result.episodes} of {given['episodes']} episodes are scored; the same "
            "command begins anew."
        )


def _check_together(policy: Who, expert: str | None, **of_agent: Any) -> None:
    """Refuse options that have no meaning for who acts."""
    if expert is not None and policy is not Who.expert:
        raise UsageError("--expert belongs to --policy expert; add it, or leave it out.")
    for name, value in of_agent.items():
        if policy is not Who.agent and value is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} belongs to --policy agent; with --policy {policy} "
                "leave it out."
            )


def _arguments(given: list[str]) -> dict[str, Any]:
    """`KEY=VALUE`s as options; values as YAML has them."""
    import yaml

    found = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise UsageError(f"--option is KEY=VALUE, such as gravity=-9.8; got {each!r}.")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--option {each}: {value!r} is no value that YAML knows.") from error
    return found


def _load(checkpoint: Path, task: str, temperature: float | None, **place: Any) -> Agent:
    """An agent that may be asked for a task the checkpoint was not trained on."""
    from generalist.acting.agent import Agent

    known = _known_tasks(checkpoint)
    first = task if task in known or not known else known[0]
    if known and task not in known:
        _note(f"{checkpoint} was not trained on {task}.")
    return Agent.from_pretrained(checkpoint, first, temperature=temperature, **place)


def _note(line: str) -> None:
    typer.echo(f"Note: {line}", err=True)


def _print(result: RolloutResult) -> None:
    from generalist.evaluation.scores import with_error

    score = with_error(result.mean, result.stderr)
    who = "" if result.policy == "agent" else f" by {result.policy}"
    parts = [f"[bold]{result.task}[/]{who}: {result.metric} [bold]{score}[/]"]
    if result.normalized is not None:
        parts.append(f"normalised {result.normalized:.3f}")
    parts += [
        f"{who} {value:.4g}"
        for who, value in (("random", result.random), ("expert", result.expert))
        if value is not None
    ]
    parts.append(f"{result.episodes} episodes, {result.steps_per_second:,.0f} steps/s")
    console().print(", ".join(parts), soft_wrap=True)
    for film in result.videos:
        console().print(f"video: {film}", soft_wrap=True)
    if result.no_video:
        _note(f"a film is missing or cut: {result.no_video}")
