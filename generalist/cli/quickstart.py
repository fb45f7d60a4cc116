"""`generalist quickstart`: collect, train and evaluate in one command; each stage resumes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from generalist.cli.common import console, duration
from generalist.cli.train import Minutes, Size
from generalist.errors import UsageError

STAGES = ("collect", "train", "evaluate")

# What --smoke changes: every stage runs, but the model learns nothing.
SMOKE_EPISODES = 2
SMOKE_STEPS = 100
SMOKE_RECIPE = ("schedule.steps=3", "schedule.warmup_steps=1", "data.rows_per_step=2",
                "data.rows_per_forward=2", "model.hidden_size=32", "model.intermediate_size=64",
                "model.layers=1")  # fmt: skip


def quickstart(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change: schedule.minutes=5."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of data, checkpoint and report.")] = Path(
        "runs/quickstart"
    ),
    dataset: Annotated[
        str, typer.Option(help="Dataset spec to collect: its name or a YAML file.")
    ] = "quickstart",
    recipe: Annotated[
        str, typer.Option(help="Recipe to train with: its name or a YAML file.")
    ] = "quickstart",
    suite: Annotated[
        str, typer.Option(help="Suite to evaluate in: its name or a YAML file.")
    ] = "quickstart",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Worker processes. Default: one per CPU; 0 plays in this process."
        ),
    ] = None,
    size: Size = None,
    minutes: Minutes = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Run every stage in its shortest form, as a check; the model learns nothing.",
        ),
    ] = False,
) -> None:
    """Collect demonstrations of ten tasks, train one model on them, score it, write a report.

    This takes about 20 minutes on two CPU cores. The same command continues after an interruption.
    """
    began = time.monotonic()
    from generalist.training.sizes import overrides_of, sized

    keys = [*overrides_of(size, minutes), *(overrides or ())]
    plan = _plan(output, keys, dataset=dataset, recipe=recipe, suite=suite, smoke=smoke)
    sized(plan["recipe"], size)
    data = output / "data"
    with _stage(1, f"experts play {len(plan['spec'].tasks)} tasks into {data}"):
        from generalist.collecting.collect import collect

        report = collect(plan["spec"], data, workers)
        for warning in (*report.failures, *report.losses):
            typer.echo(f"Warning: {warning}", err=True)
    with _stage(2, f"one model learns them all into {output / 'checkpoint'}"):
        checkpoint = _train(plan["recipe"], output)
    with _stage(3, f"it acts in {len(plan['suite'].tasks)} tasks"):
        from generalist.cli.evaluate import check_complete, report_folder, run_suite

        name = Path(suite).stem
        out = report_folder(output / "evaluation", name)
        scores = run_suite(plan["suite"], name, checkpoint=checkpoint, out=out, workers=workers)
    check_complete(scores)
    console().print(f"Done in {duration(time.monotonic() - began)}.")


def _plan(
    output: Path, overrides: list[str], *, dataset: str, recipe: str, suite: str, smoke: bool
) -> dict[str, Any]:
    """Read the three specs before anything long begins, so that mistakes show at once."""
    from generalist.evaluation.suite import load_suite
    from generalist.training.recipe import load_recipe
    from generalist.windows.spec import load_dataset_spec

    for override in overrides:
        if override.startswith(("output_dir=", "data.root=")):
            raise UsageError(f"{override!r} is decided by --output here; leave it out.")
    keys = [*(SMOKE_RECIPE if smoke else ()), *overrides]
    keys += [f"output_dir={output}", f"data.root={output / 'data'}"]
    spec, plan_suite = load_dataset_spec(dataset), load_suite(suite)
    if smoke:
        spec, plan_suite = _short_spec(spec), _short_suite(plan_suite)
    plan_recipe = load_recipe(recipe, keys)
    if smoke:
        plan_recipe.corrections = _short_corrections(plan_recipe.corrections)
    return {"spec": spec, "suite": plan_suite, "recipe": plan_recipe}


def _short_spec(spec: Any) -> Any:
    short = {"episodes": SMOKE_EPISODES, "max_steps": SMOKE_STEPS, "min_return": None}
    tasks = [
        each.model_copy(update={"episodes": 4} if each.is_document else short)
        for each in spec.tasks
    ]
    return spec.model_copy(update={"tasks": tasks})


def _short_corrections(corrections: Any) -> Any:
    short = {"episodes": 1, "max_steps": SMOKE_STEPS}
    tasks = {
        name: task.model_copy(update=short) for name, task in list(corrections.tasks.items())[-2:]
    }
    return corrections.model_copy(update={"tasks": tasks, "rounds": 1})


def _short_suite(suite: Any) -> Any:
    tasks = []
    for each in suite.tasks:
        cut = {"max_steps": SMOKE_STEPS} if _can_be_cut(each.task) else {}
        short = {"episodes": 1, "prompted_episodes": 0, **cut}
        tasks.append(each.model_copy(update=short))
    return suite.model_copy(update={"tasks": tasks, "videos": False})


def _can_be_cut(task: str) -> bool:
    return task.partition("/")[0] in ("gym", "atari")


def _train(recipe: Any, output: Path) -> Path:
    """Train, unless the finished checkpoint of the same recipe exists; return its folder."""
    from generalist.training.recipe import differences, load_recipe

    finished = output / "checkpoint"
    resolved = finished / "generalist" / "recipe.yaml"
    if resolved.exists() and not differences(load_recipe(resolved), recipe):
        console().print(f"{finished} is there from before.", soft_wrap=True)
        return finished
    from generalist.training.loop import train

    return train(recipe)


@contextmanager
def _stage(number: int, what: str) -> Iterator[None]:
    """Print the name of a stage before it, and its duration after it."""
    screen = console()
    screen.print(f"[bold]{number}/{len(STAGES)} {STAGES[number - 1]}[/]: {what}", soft_wrap=True)
    began = time.monotonic()
    yield
    screen.print(f"[dim]{STAGES[number - 1]}: {duration(time.monotonic() - began)}[/]\n")
