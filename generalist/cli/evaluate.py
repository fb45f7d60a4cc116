"""`generalist evaluate`: a checkpoint through a suite of tasks, to a table and a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from generalist.cli.common import JsonFile, console, duration, write_json
from generalist.errors import needing


def evaluate(
    suite: Annotated[
        str, typer.Argument(help="A suite's name (quickstart) or the path of a YAML file.")
    ] = "quickstart",
    checkpoint: Annotated[
        Path,
        typer.Option(help="Folder of the checkpoint, or its repository on the Hub: user/name."),
    ] = Path("runs/quickstart/checkpoint"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the report; evaluation/ beside the checkpoint's folder, "
            "runs/user-name/evaluation for a repository."
        ),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Episodes of every task, in place of the suite's.")
    ] = None,
    zero_shot: Annotated[
        bool,
        typer.Option("--zero-shot", help="Patterns also mean tasks it was not trained on."),
    ] = False,
    videos: Annotated[bool, typer.Option(help="Film the first episode of each task.")] = True,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Tasks side by side; one a CPU if not given.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Measure a checkpoint in every task of a suite: table, report.html with videos, JSON.

    Each task's result is kept as it is finished, so the same command continues. A suite of tasks
    held out from training (heldout) is measured in four ways: as the checkpoint is, prompted,
    fine-tuned on a few demonstrations of the task, and trained on these alone.
    """
    from generalist.acting.hub import checkpoint_folder
    from generalist.evaluation.suite import load_suite

    loaded = load_suite(suite)
    if episodes is not None:
        for task in loaded.tasks:
            task.episodes = episodes
            task.prompted_episodes = min(episodes, loaded.episodes_of(task, prompted=True))
    loaded.zero_shot = loaded.zero_shot or zero_shot
    loaded.videos = loaded.videos and videos
    folder = checkpoint_folder(checkpoint)
    fetched = folder != checkpoint
    beside = Path("runs", str(checkpoint).replace("/", "-")) if fetched else checkpoint.parent
    if loaded.heldout is not None:
        out = out or beside / "heldout"
        write_json(json, run_heldout(loaded, Path(suite).stem, folder, out, workers))
        return
    out = out or beside / "evaluation"
    report = run_suite(loaded, Path(suite).stem, folder, out, workers, card=not fetched)
    write_json(json, report)


def run_suite(
    suite: Any,
    name: str,
    checkpoint: Path,
    out: Path,
    workers: int | None = None,
    card: bool = True,
) -> dict[str, Any]:
    """Evaluate, print the table, write the report; returns what report.json holds.

    card: put the scores into the checkpoint's card.
    """
    with needing("The report"):  # said before all is measured, not after
        import matplotlib  # noqa: F401
    from generalist.evaluation.measure import evaluate as measure
    from generalist.evaluation.report import write_report
    from generalist.evaluation.table import print_tables

    screen, notes = console(), console(stderr=True)

    def on_result(number: int, total: int, result: dict[str, Any], there: bool) -> None:
        mode = " prompted" * result["prompted"] + " zero-shot" * result.get("zero_shot", False)
        line = f"[{number}/{total}] {result['task']}{mode}: {_short(result)}"
        if "skipped" not in result:
            line += ", from before" if there else f", in {duration(result['seconds'])}"
        notes.print(line, markup=False, soft_wrap=True)

    bars = sys.stderr.isatty()  # a log file gets the line of each result alone
    evaluation = measure(checkpoint, suite, out, name, on_result, bars, workers)
    report = write_report(evaluation, out)
    if card:
        _write_card(checkpoint, report)
    print_tables(evaluation, screen)
    screen.print(f"Report: [bold]{out / 'report.html'}[/]", soft_wrap=True)
    return report


def run_heldout(
    suite: Any, name: str, checkpoint: Path, out: Path, workers: int | None = None
) -> dict[str, Any]:
    """Measure tasks never trained on in four ways, print the table, write the report."""
    from generalist.evaluation.heldout import evaluate_heldout
    from generalist.evaluation.heldout_report import print_heldout_table, write_heldout_report

    def say(line: str) -> None:
        console(stderr=True).print(line, markup=False, soft_wrap=True)

    bars = sys.stderr.isatty()
    found = evaluate_heldout(checkpoint, suite, out, name, say, bars, workers)
    report = write_heldout_report(found, out)
    print_heldout_table(found, console())
    console().print(f"Report: [bold]{out / 'report.html'}[/]", soft_wrap=True)
    return report


def _write_card(checkpoint: Path, report: dict[str, Any]) -> None:
    """Put the scores into the checkpoint's model card."""
    if not (checkpoint / "README.md").exists():
        return
    from generalist.training.export import write_model_card

    columns = ("mean", "stderr", "episodes", "random", "expert", "normalized")
    scores = {
        each["task"]: {column: each[column] for column in columns}
        for each in report["rollouts"]
        if not each["prompted"]
    }
    scores |= {each["task"]: {"bits_per_byte": each["bits_per_byte"]} for each in report["texts"]}
    try:
        write_model_card(checkpoint, scores)
    except OSError as error:
        typer.echo(f"Warning: the model card is left as it is: {error}.", err=True)


def _short(result: dict[str, Any]) -> str:
    if "skipped" in result:
        return f"skipped because {result['skipped']}"
    if "bits_per_byte" in result:
        return f"{result['bits_per_byte']:.3f} bits per byte"
    normalized = result["normalized"]
    text = f"{result['metric']} {result['mean']:.4g}"
    return text if normalized is None else f"{text} (normalised {normalized:.2f})"
