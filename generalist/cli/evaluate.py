"""`generalist evaluate`: score a checkpoint in a suite of tasks; write a table and a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from generalist.cli.common import JsonFile, console, duration, write_json
from generalist.cli.rollout import Dtype
from generalist.errors import GeneralistError, UsageError, needing
from generalist.evaluation.reading import reading_of
from generalist.evaluation.scores import label
from generalist.numbers import exactly


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
            help="Folder of the report. Default: evaluation/SUITE beside the checkpoint's folder, "
            "or runs/user-name/evaluation/SUITE for a repository."
        ),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Episodes per task. Default: as the suite says.")
    ] = None,
    zero_shot: Annotated[
        bool,
        typer.Option(
            "--zero-shot",
            help="Let the suite's patterns also match tasks without training data.",
        ),
    ] = False,
    videos: Annotated[
        bool, typer.Option(help="Record a video of each task's first episode.")
    ] = True,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Worker processes, one task each. Default: one per CPU."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:1. Default: a GPU where there is one.")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Data type of the weights.")] = Dtype.float32,
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="PLAN",
            help="Look ahead before acting: tree:simulations=16,horizon=20 in simulators that can "
            "be restored, tree:simulations=100 in board games, beam:width=32,horizon=10 in a world "
            "model.",
        ),
    ] = None,
    wanted_return: Annotated[
        str | None,
        typer.Option(
            metavar="RETURN",
            help="Ask for a return in every task: expert, a number, or a percentage of the way "
            "from the worst to the best of the data (80%).",
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Lambda of guidance by the instruction; 1 adds nothing.",
            show_default="as the suite says",
        ),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Score a checkpoint in every task of a suite: a table, report.html with videos, JSON.

    The command keeps each result as soon as its task is done, so the same command continues after
    an interruption. The report names the tasks that failed; the same command tries them again.

    A suite of held-out tasks (heldout) takes a few demonstrations of each. It scores the checkpoint
    alone, prompted with others, with the nearest timesteps retrieved from these, and with the
    nearest action added. Beside it stand the nearest action alone, a model fine-tuned on them, and
    one trained on these alone. --wanted-return asks the two that were trained.
    """
    from generalist.acting.hub import checkpoint_folder
    from generalist.evaluation.suite import load_suite
    from generalist.specs import shipped_checkpoint

    loaded = load_suite(suite)
    if episodes is not None:
        for task in loaded.tasks:
            task.episodes = episodes
            task.prompted_episodes = min(episodes, loaded.episodes_of(task, prompted=True))
    if guidance is not None:
        loaded.guidance = guidance
    loaded.zero_shot = loaded.zero_shot or zero_shot
    loaded.videos = loaded.videos and videos
    place = {"device": device_of(device), "dtype": dtype.value}
    folder = checkpoint_folder(checkpoint)
    fetched = folder != checkpoint
    group = "shipped" if fetched and shipped_checkpoint(checkpoint) else ""
    beside = (
        Path("runs", group, str(checkpoint).replace("/", "-")) if fetched else checkpoint.parent
    )
    name = Path(suite).stem
    own = "" if fetched else checkpoint.name
    if loaded.heldout is not None:
        if plan is not None:
            raise UsageError("--plan does not apply to suites of held-out tasks; leave it out.")
        out = out or report_folder(beside / "heldout", name, own)
        write_json(
            json,
            run_heldout(
                loaded, name, checkpoint=folder, out=out, workers=workers,
                wanted_return=wanted_return, **place,
            ),
        )  # fmt: skip
        return
    out = out or report_folder(beside / "evaluation", name, own)
    report = run_suite(
        loaded, name, checkpoint=folder, out=out, workers=workers, plan=plan,
        wanted_return=wanted_return,
        # The card's scores are those of acting at once, asked for nothing.
        card=not fetched and plan is None and wanted_return is None and guidance is None,
        **place,
    )  # fmt: skip
    write_json(json, report)
    check_complete(report)


def check_complete(report: dict[str, Any]) -> None:
    """Check that every task of a report was scored.

    Args:
        report: content of report.json.

    Raises:
        GeneralistError: results are missing.
    """
    missing = len(report["failed"])
    if missing:
        total = missing + sum(len(report[part]) for part in ("rollouts", "texts", "skipped"))
        raise GeneralistError(
            f"{missing} of {total} results are missing, as the report says; the same command "
            "tries them again."
        )


def report_folder(parent: Path, suite: str, checkpoint: str = "") -> Path:
    """The folder of a suite's report; checkpoints other than the final one have their own.

    Args:
        parent: folder of all reports.
        suite: its name.
        checkpoint: name of the checkpoint's folder.
    """
    from generalist.training.loop import FINAL

    return parent / suite if checkpoint in ("", FINAL) else parent / checkpoint / suite


def device_of(asked: str | None) -> str:
    """A device that works: the one asked for, else a GPU where there is one.

    Raises:
        UsageError: the device asked for is not there.
    """
    import torch

    name = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter: PyTorch without CUDA
        raise UsageError(f"--device {asked}: {str(error).splitlines()[0]}") from error
    return name


def run_suite(
    suite: Any,
    name: str,
    *,
    checkpoint: Path,
    out: Path,
    workers: int | None = None,
    card: bool = True,
    device: str = "cpu",
    dtype: str = "float32",
    plan: str | None = None,
    wanted_return: str | None = None,
) -> dict[str, Any]:
    """Score a checkpoint in a suite, print the table and write the report.

    Args:
        suite: the suite.
        name: name of the suite.
        checkpoint: its folder.
        out: folder of results and report.
        workers: processes; None takes one a CPU.
        card: whether to put the scores into the checkpoint's model card.
        device: device of the model.
        dtype: data type of the weights.
        plan: how the model plans; None: it acts at once.
        wanted_return: what is asked for in every task; None for nothing.

    Returns:
        The content of report.json.

    Raises:
        UsageError: `out` holds the report of another suite.
    """
    with needing("The report"):  # said before all is measured, not after
        import matplotlib  # noqa: F401
    from generalist.evaluation.measure import evaluate as measure
    from generalist.evaluation.report import write_report
    from generalist.evaluation.table import print_tables

    screen, notes = console(), console(stderr=True)
    _check_suite(out, name)

    def on_result(number: int, total: int, result: dict[str, Any], there: bool) -> None:
        mode = " prompted" * result["prompted"] + " zero-shot" * result.get("zero_shot", False)
        row = label(result["task"], result["instruction"])
        if "asked" in result:
            row += f" asked for {exactly(result['asked'])}%"
        line = f"[{number}/{total}] {row}{mode}: {_short(result)}"
        if "skipped" not in result and "failed" not in result:
            line += ", from before" if there else f", in {duration(result['seconds'])}"
        notes.print(line, markup=False, soft_wrap=True)

    evaluation = measure(
        checkpoint, suite, out, name=name, on_result=on_result,
        progress=sys.stderr.isatty(),  # a log file gets the line of each result alone
        workers=workers, device=device, dtype=dtype, plan=plan,
        wanted_return=wanted_return,
    )  # fmt: skip
    report = write_report(evaluation, out)
    if card:
        _write_card(checkpoint, report)
    print_tables(evaluation, screen)
    screen.print(f"Report: [bold]{out / 'report.html'}[/]", soft_wrap=True)
    return report


def _check_suite(out: Path, name: str) -> None:
    """Refuse to overwrite the report of another suite."""
    from generalist.shards.files import read_json

    path = out / "report.json"
    if not path.exists():
        return
    try:
        other = read_json(path).get("suite")
    except GeneralistError:
        return  # a damaged report may be replaced
    if other != name:
        raise UsageError(
            f"{out} holds the report of the suite {other!r}; give {name!r} another folder by --out."
        )


def run_heldout(
    suite: Any,
    name: str,
    *,
    checkpoint: Path,
    out: Path,
    workers: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    wanted_return: str | None = None,
) -> dict[str, Any]:
    """Score a checkpoint and others in held-out tasks, print the table and write the report.

    Args:
        suite: a suite with a section `heldout`.
        name: name of the suite.
        checkpoint: its folder.
        out: folder of demonstrations, runs and report.
        workers: processes; None takes one a CPU.
        device: device of the model.
        dtype: data type of the weights.
        wanted_return: what the two trained agents are asked for; None for nothing.

    Returns:
        The content of report.json.

    Raises:
        UsageError: `out` holds the report of another suite.
    """
    from generalist.evaluation.heldout import evaluate_heldout
    from generalist.evaluation.heldout_report import print_heldout_table, write_heldout_report

    def say(line: str) -> None:
        console(stderr=True).print(line, markup=False, soft_wrap=True)

    _check_suite(out, name)
    found = evaluate_heldout(
        checkpoint, suite, out, name=name, say=say, progress=sys.stderr.isatty(),
        workers=workers, device=device, dtype=dtype, wanted_return=wanted_return,
    )  # fmt: skip
    report = write_heldout_report(found, out)
    print_heldout_table(found, console())
    console().print(f"Report: [bold]{out / 'report.html'}[/]", soft_wrap=True)
    return report


_OWN_COLUMNS = ("mean", "stderr", "interval", "episodes", "normalized", "normalized_interval")


def _write_card(checkpoint: Path, report: dict[str, Any]) -> None:
    """Put the scores into the checkpoint's model card."""
    if not (checkpoint / "README.md").exists():
        return
    from generalist.training.card import write_model_card

    suite = {"suite": report["suite"]}
    scores = {}
    for each in report["scores"]:
        columns = {name: each[name] for name in _OWN_COLUMNS}
        references = {who: each[who] and each[who]["mean"] for who in ("random", "expert")}
        scores[label(each["task"], each["instruction"])] = suite | columns | references
    for each in report["texts"]:
        scores[each["task"]] = suite | {"bits_per_byte": each["bits_per_byte"]}
    try:
        write_model_card(checkpoint, scores)
    except OSError as error:
        typer.echo(f"Warning: the model card is left as it is: {error}.", err=True)


def _short(result: dict[str, Any]) -> str:
    if "skipped" in result:
        return f"skipped because {result['skipped']}"
    if "failed" in result:
        return f"FAILED: {result['failed']}"
    if "bits_per_byte" in result:
        return f"{result['bits_per_byte']:.3f} bits per byte"
    normalized = result["normalized"]
    text = f"{result['metric']} {result['mean']:.4g}"
    text += "" if normalized is None else f" (normalised {normalized:.2f})"
    right = reading_of(result).named_first
    return text if right is None else f"{text}, first thing right {right:.2f}"
