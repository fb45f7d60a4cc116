"""`generalist import minari|hub|lerobot|text`: data that others recorded, as token shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from generalist.cli.common import JsonFile, console, write_json
from generalist.errors import UsageError

if TYPE_CHECKING:
    from generalist.importing.source import Source

app = typer.Typer(
    no_args_is_help=True,
    help="Import recorded data as shards that `train` takes beside those of `collect`.",
)

Task = Annotated[
    str,
    typer.Option(
        help="Name the episodes get, family/Name; a task that `tasks` knows lends its spaces."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder the shards go below, as OUT/family/Name.")]
Episodes = Annotated[
    int | None, typer.Option(min=1, help="Only the first so many; all if not given.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out episodes that cannot be encoded, and say so.")
]
Processor = Annotated[
    Path | None, typer.Option(help="Folder of the tokenizers; the shipped ones if not given.")
]
Config = Annotated[str | None, typer.Option(help="Configuration of the repository.")]
Split = Annotated[str | None, typer.Option(help="Split; the only one, or train, if not given.")]
Observation = Annotated[
    list[str] | None,
    typer.Option("--observation", help="Column observed; repeat it for several."),
]
Action = Annotated[
    list[str] | None, typer.Option("--action", help="Column of actions; repeat it for several.")
]
Reward = Annotated[str | None, typer.Option("--reward", help="Column of rewards.")]
Terminated = Annotated[
    str | None, typer.Option("--terminated", help="Column that is true at the end of the task.")
]
Instruction = Annotated[
    str | None, typer.Option("--instruction", help="Column that says in words what to do.")
]

OUT = Path("data/import")


@app.command("minari")
def minari(
    dataset: Annotated[str, typer.Argument(help="Id of the dataset, or its folder.")],
    task: Annotated[
        str | None,
        typer.Option(help="family/Name; gym/ID of the recorded environment if not given."),
    ] = None,
    out: Out = OUT,
    episodes: Episodes = None,
    skip_bad: SkipBad = False,
    processor: Processor = None,
    json: JsonFile = None,
) -> None:
    """Import a Minari dataset; one that is not on this machine is downloaded by Minari."""
    from generalist.importing.minari import MinariSource

    source = MinariSource(dataset)
    _run(
        source,
        task or source.task,
        out,
        episodes=episodes,
        skip_bad=skip_bad,
        processor=processor,
        json=json,
    )


@app.command("hub")
def hub(
    repo: Annotated[
        str,
        typer.Argument(help="Repository owner/name, folder of save_to_disk, or parquet file(s)."),
    ],
    task: Task,
    config: Config = None,
    split: Split = None,
    observation: Observation = None,
    action: Action = None,
    reward: Reward = None,
    episode_column: Annotated[
        str | None, typer.Option(help="Column that numbers the episodes, where a row is a step.")
    ] = None,
    terminated: Terminated = None,
    instruction: Instruction = None,
    out: Out = OUT,
    episodes: Episodes = None,
    skip_bad: SkipBad = False,
    processor: Processor = None,
    json: JsonFile = None,
) -> None:
    """Import a dataset of Hugging Face's `datasets`: a row an episode, or a row a step.

    Columns with the names of the JAT dataset, and other usual ones, are found; say the others.
    """
    from generalist.importing.hub import HubSource
    from generalist.importing.rows import Columns

    columns = Columns(
        observation=tuple(observation or ()),
        action=tuple(action or ()),
        reward=reward,
        episode=episode_column,
        terminated=terminated,
        instruction=instruction,
    )
    _run(
        HubSource(repo, columns, config=config, split=split),
        task,
        out,
        episodes=episodes,
        skip_bad=skip_bad,
        processor=processor,
        json=json,
    )


@app.command("lerobot")
def lerobot(
    folder: Annotated[Path, typer.Argument(help="Folder of the dataset, with meta/info.json.")],
    task: Task,
    observation: Observation = None,
    action: Action = None,
    reward: Reward = None,
    terminated: Terminated = None,
    out: Out = OUT,
    episodes: Episodes = None,
    skip_bad: SkipBad = False,
    processor: Processor = None,
    json: JsonFile = None,
) -> None:
    """Import a LeRobot dataset (version 3); its videos are left out, its images are not."""
    from generalist.importing.lerobot import LeRobotSource
    from generalist.importing.rows import Columns

    columns = Columns(
        observation=tuple(observation or ()),
        action=tuple(action or ()),
        reward=reward,
        terminated=terminated,
    )
    _run(
        LeRobotSource(folder, columns),
        task,
        out,
        episodes=episodes,
        skip_bad=skip_bad,
        processor=processor,
        json=json,
    )


@app.command("text")
def text(
    source: Annotated[
        str,
        typer.Argument(help="Text file, folder of them, or a dataset as `import hub` takes it."),
    ],
    task: Annotated[str, typer.Option(help="Name the documents get: text/NAME.")],
    pattern: Annotated[str, typer.Option(help="Which files of a folder.")] = "*.txt",
    column: Annotated[
        str | None, typer.Option(help="Column of a dataset; `text` if not given.")
    ] = None,
    config: Config = None,
    split: Split = None,
    out: Out = OUT,
    episodes: Episodes = None,
    skip_bad: SkipBad = False,
    processor: Processor = None,
    json: JsonFile = None,
) -> None:
    """Import text; each document becomes an episode whose every token is to be learned."""
    from generalist.envs import is_document_task
    from generalist.importing.text import TextSource

    if not is_document_task(task):
        raise UsageError(f"Documents belong to a task text/NAME; got {task!r}.")
    found = TextSource(source, column=column, config=config, split=split, pattern=pattern)
    _run(found, task, out, episodes=episodes, skip_bad=skip_bad, processor=processor, json=json)


def _run(
    source: Source,
    task: str,
    out: Path,
    *,
    episodes: int | None,
    skip_bad: bool,
    processor: Path | None,
    json: Path | None,
) -> None:
    from dataclasses import asdict

    from generalist.importing.write import import_source

    report = import_source(
        source,
        task,
        out,
        episodes=episodes,
        skip_bad=skip_bad,
        processor=str(processor) if processor else None,
    )
    screen, aside = console(), console(stderr=True)
    for note in report.notes:
        aside.print(f"Note: {note}", style="yellow", markup=False)
    if report.left_out:
        aside.print(
            f"Warning: {report.left_out} episodes left out; {report.folder}/manifest.json says why "
            "of each. The first:\n" + "\n".join(f"  {reason}" for reason in report.reasons),
            style="yellow", markup=False, soft_wrap=True,
        )  # fmt: skip
    screen.print(f"{task}: {report.episodes} episodes ({report.added} new), spaces {report.spaces}")
    screen.print(f"Shards: [bold]{report.folder}[/]", soft_wrap=True)
    write_json(json, asdict(report))
