"""`generalist import minari|hub|lerobot|text|pairs`: write recorded data as token shards."""

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
    help="Import recorded data as token shards; `train` reads them like those of `collect`.",
)

Task = Annotated[
    str,
    typer.Option(
        help="Task of the episodes: family/Name. A task that `tasks` lists brings its own spaces."
    ),
]
Out = Annotated[Path, typer.Option(help="Parent folder; the shards go to OUT/family/Name.")]
Episodes = Annotated[
    int | None, typer.Option(min=1, help="Import only the first N episodes. Default: all.")
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave out episodes that cannot be encoded, with a warning, instead of failing.",
    ),
]
Processor = Annotated[
    Path | None, typer.Option(help="Folder of the tokenizers. Default: the shipped ones.")
]
Config = Annotated[str | None, typer.Option(help="Configuration (subset) of the repository.")]
Split = Annotated[
    str | None, typer.Option(help="Split of the dataset. Default: its only one, else train.")
]
Observation = Annotated[
    list[str] | None,
    typer.Option("--observation", help="Column of observations. May be repeated."),
]
Action = Annotated[
    list[str] | None, typer.Option("--action", help="Column of actions. May be repeated.")
]
Reward = Annotated[str | None, typer.Option("--reward", help="Column of rewards.")]
Terminated = Annotated[
    str | None,
    typer.Option("--terminated", help="Column that is true where the episode terminated."),
]
Instruction = Annotated[
    str | None, typer.Option("--instruction", help="Column of instructions in words.")
]

OUT = Path("data/import")


@app.command("minari")
def minari(
    dataset: Annotated[str, typer.Argument(help="Id of the Minari dataset, or its folder.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="Task of the episodes: family/Name. Default: gym/ID of the recorded environment."
        ),
    ] = None,
    out: Out = OUT,
    episodes: Episodes = None,
    skip_bad: SkipBad = False,
    processor: Processor = None,
    json: JsonFile = None,
) -> None:
    """Import a Minari dataset; Minari downloads it where it is not on this machine."""
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
        typer.Argument(help="Repository owner/name, folder of save_to_disk, or parquet files."),
    ],
    task: Task,
    config: Config = None,
    split: Split = None,
    observation: Observation = None,
    action: Action = None,
    reward: Reward = None,
    episode_column: Annotated[
        str | None,
        typer.Option(help="Column with the number of the episode, for data with one step per row."),
    ] = None,
    terminated: Terminated = None,
    instruction: Instruction = None,
    out: Out = OUT,
    episodes: Episodes = None,
    skip_bad: SkipBad = False,
    processor: Processor = None,
    json: JsonFile = None,
) -> None:
    """Import a dataset of Hugging Face's `datasets`, with one episode or one step per row.

    The command finds columns with the names of the JAT dataset and other usual names. Name the
    others by options.
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
    """Import a LeRobot dataset (version 3), with its images but without its videos."""
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
        typer.Argument(
            help="Text file, folder of text files, or a dataset as `import hub` takes it."
        ),
    ],
    task: Annotated[str, typer.Option(help="Task of the documents: text/NAME.")],
    pattern: Annotated[str, typer.Option(help="Pattern of the files of a folder.")] = "*.txt",
    column: Annotated[str | None, typer.Option(help="Column of a dataset. Default: text.")] = None,
    config: Config = None,
    split: Split = None,
    out: Out = OUT,
    episodes: Episodes = None,
    skip_bad: SkipBad = False,
    processor: Processor = None,
    json: JsonFile = None,
) -> None:
    """Import text; each document becomes an episode, and every token of it a training target."""
    from generalist.envs import is_document_task
    from generalist.importing.text import TextSource

    if not is_document_task(task):
        raise UsageError(f"Documents belong to a task text/NAME; got {task!r}.")
    found = TextSource(source, column=column, config=config, split=split, pattern=pattern)
    _run(found, task, out, episodes=episodes, skip_bad=skip_bad, processor=processor, json=json)


@app.command("pairs")
def pairs(
    source: Annotated[
        str,
        typer.Argument(help="Repository owner/name, folder of save_to_disk, or parquet files."),
    ],
    task: Annotated[str, typer.Option(help="Task of the pairs, such as caption/NAME or vqa/NAME.")],
    image: Annotated[str, typer.Option(help="Column of pictures.")] = "image",
    text: Annotated[
        str | None, typer.Option(help="Column of texts. Default: text, caption or answer.")
    ] = None,
    question: Annotated[str | None, typer.Option(help="Column of questions.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Room for a text, in tokens.")] = 32,
    config: Config = None,
    split: Split = None,
    out: Out = OUT,
    episodes: Episodes = None,
    skip_bad: SkipBad = False,
    processor: Processor = None,
    json: JsonFile = None,
) -> None:
    """Import pictures with texts; a picture is resized to 84x84 pixels."""
    from generalist.importing.pairs import PairsSource

    found = PairsSource(
        source,
        image=image,
        text=text,
        question=question,
        max_tokens=max_tokens,
        config=config,
        split=split,
    )
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
