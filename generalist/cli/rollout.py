"""`generalist rollout FAMILY TASK`: let a policy play a task, and score it.

Each family is a subcommand, built from the tables in `families`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generalist.cli.common import Interrupted, JsonFile, console, write_json
from generalist.cli.families import (
    FAMILIES,
    MAX_STEPS,
    QUICKSTART,
    SHARED,
    Checkpoint,
    Device,
    Dtype,
    Family,
    Render,
    Rounded,
    Who,
    option,
)
from generalist.errors import UsageError

if TYPE_CHECKING:
    from generalist.acting.agent import Agent
    from generalist.acting.retrieval import Retrieval
    from generalist.acting.rollout import RolloutResult

app = typer.Typer(no_args_is_help=True)


def _command(name: str, family: Family) -> Callable[..., None]:
    """The function of a family's subcommand; its signature holds the options for typer."""
    task = Annotated[str, typer.Argument(metavar=family.metavar, help=family.example)]
    limit = option(int, min=1, help=MAX_STEPS.format(family.limit))
    parameters: dict[str, tuple[Any, Any]] = {"task": (inspect.Parameter.empty, task)}
    for key, shared in SHARED.items():
        parameters[key] = (family.episodes, shared[1]) if key == "episodes" else shared
        if key == "envs":  # show the options of the environment next to it
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
    """Let a checkpoint, an expert or random play act in a task, and score it.

    After an interruption the same command begins anew.
    """
    _PLACE.set((device, dtype))


def _place(device: str | None, dtype: Dtype | None) -> dict[str, Any]:
    """Device and dtype as `Agent.from_pretrained` takes them.

    The options may stand before the family or behind it. Raises UsageError for a device that does
    not exist.
    """
    from generalist.gpu import device_for

    before = _PLACE.get()
    found = device_for(device or before[0], "--device")
    return {"device": found, "dtype": (dtype or before[1] or Dtype.float32).value}


for _name, _family in FAMILIES.items():
    app.command(_name)(_command(_name, _family))


@app.command("text")
def text(
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    checkpoint: Checkpoint = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate.")] = 200,
    episodes: Annotated[int, typer.Option(min=1, help="Number of continuations.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first continuation.")] = 0,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")
    ] = 0.8,
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Probability mass of nucleus sampling.")
    ] = 0.95,
    device: Device = None,
    dtype: Rounded = None,
    json: JsonFile = None,
) -> None:
    """Text: continue a prompt with the same weights that act."""
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
    """A text task of the checkpoint, else any of its tasks; "" where it names none."""
    names = _known_tasks(checkpoint)
    return next((name for name in names if name.startswith("text/")), names[0] if names else "")


def _known_tasks(checkpoint: Path) -> list[str]:
    """Names of the tasks that a checkpoint was trained on, sorted."""
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
    guidance: float | None,
    device: str | None,
    dtype: Dtype | None,
    envs: int | None,
    video: Path | None,
    video_episodes: int | None,
    render: Render | None,
    json: Path | None,
    retrieve: Path | None,
    retrieve_steps: int | None,
    retrieve_lambda: float | None,
    **given: Any,
) -> None:
    """Play episodes and print their scores; the checkpoint decides options that are None."""
    from generalist.envs import get_task

    name = task if task.startswith(f"{family}/") else f"{family}/{task}"
    get_task(name)  # a wrong name is found before torch is loaded
    _check_together(
        policy, expert, checkpoint=checkpoint, temperature=temperature, device=device, dtype=dtype,
        guidance=guidance, instruction=given["instruction"],
        prompt_episodes=given["prompt_episodes"] or None, plan=given["plan"],
        wanted_return=given["wanted_return"],
    )  # fmt: skip
    retrieval = _retrieval(policy, retrieve, steps=retrieve_steps, weight=retrieve_lambda)
    if video_episodes is not None and video is None:
        raise UsageError("--video-episodes belongs to --video DIR; add it, or leave both out.")

    from generalist.acting.rollout import rollout

    who: Agent | str = expert or policy.value
    if policy is Who.agent:
        acting = {"temperature": temperature, "guidance": guidance}
        who = _load(checkpoint or QUICKSTART, name, **acting, **_place(device, dtype))
    options = {key: value for key, value in options.items() if value is not None}
    options |= _arguments(options.pop("option", []))
    try:
        result = rollout(
            who, name, num_envs=envs, video_dir=video, video_episodes=video_episodes or 1,
            render=None if render is None else render.value, retrieval=retrieval, say=_note,
            **given, **options,
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
    """Raise UsageError for options that do not apply to the policy that acts."""
    if expert is not None and policy is not Who.expert:
        raise UsageError("--expert belongs to --policy expert; add it, or leave it out.")
    for name, value in of_agent.items():
        if policy is not Who.agent and value is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} belongs to --policy agent; with --policy {policy} "
                "leave it out."
            )


def _retrieval(
    policy: Who, folder: Path | None, *, steps: int | None, weight: float | None
) -> Retrieval | None:
    """What --retrieve and its companions ask for; None for nothing."""
    from generalist.acting.retrieval import Retrieval

    if policy not in (Who.agent, Who.retrieval) and folder is not None:
        raise UsageError(
            f"--retrieve belongs to --policy agent or retrieval; with --policy {policy} leave it "
            "out."
        )
    if folder is None and (steps is not None or weight is not None):
        raise UsageError(
            "--retrieve-steps and --retrieve-lambda belong to --retrieve FOLDER; add it, or leave "
            "them out."
        )
    if folder is None and policy is Who.retrieval:
        raise UsageError("--policy retrieval needs --retrieve FOLDER, with demonstrations.")
    return None if folder is None else Retrieval(data=folder, steps=steps, weight=weight)


def _arguments(given: list[str]) -> dict[str, Any]:
    """Parse `KEY=VALUE` options of an environment, with values as in YAML."""
    import yaml

    found = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise UsageError(f"--option is KEY=VALUE, such as gravity=-9.8; got {each!r}.")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--option {each}: {value!r} is not valid YAML.") from error
    return found


def _load(checkpoint: Path, task: str, **options: Any) -> Agent:
    """Load an agent for a task, which may be one that the checkpoint was not trained on."""
    from generalist.acting.agent import Agent

    known = _known_tasks(checkpoint)
    first = task if task in known or not known else known[0]
    if known and task not in known:
        _note(f"{checkpoint} was not trained on {task}.")
    return Agent.from_pretrained(checkpoint, first, **options)


_SHOWN_STATEMENTS = 20


def _print_statements(result: RolloutResult) -> None:
    """Print what was said of the first pictures, and beside it what is true of them."""
    from rich.markup import escape
    from rich.table import Table

    if not result.statements:
        return
    asked = any(each["asked"] for each in result.statements)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("seed", *(["question"] if asked else []), "truth", "said"):
        table.add_column(name)
    for seed, each in zip(result.seeds, result.statements[:_SHOWN_STATEMENTS], strict=False):
        color = "green" if each["said"] == each["truth"] else "red"
        question = [escape(each["asked"] or "")] if asked else []
        truth, said = (escape(each[key] or "") for key in ("truth", "said"))
        table.add_row(str(seed), *question, truth, f"[{color}]{said}[/]")
    console().print(table)


def _note(line: str) -> None:
    typer.echo(f"Note: {line}", err=True)


def _print(result: RolloutResult) -> None:
    from generalist.evaluation.scores import with_error

    _print_statements(result)
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
    if told := [each for each in result.named_first if each is not None]:
        parts.append(f"first thing right {sum(told) / len(told):.2f}")
    parts.append(f"{result.episodes} episodes, {result.steps_per_second:,.0f} steps/s")
    console().print(", ".join(parts), soft_wrap=True)
    for film in result.videos:
        console().print(f"video: {film}", soft_wrap=True)
    if result.no_video:
        _note(f"a video is missing or cut: {result.no_video}")
