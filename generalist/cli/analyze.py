"""`generalist analyze`: which laws the figures of runs obey."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from generalist.cli.common import JsonFile, console, write_json
from generalist.errors import UsageError

if TYPE_CHECKING:
    from generalist.analysis.quanta import Quanta

app = typer.Typer(no_args_is_help=True, help="Fit laws to games and figures, with intervals.")


@app.command("zipf")
def zipf(
    games: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a run of `generalist selfplay`, its games.jsonl, or a folder of shards."
        ),
    ] = None,
    board: Annotated[
        str | None, typer.Option(help="Only this board or task. Needed with --random.")
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=1, help="Play so many games of random moves instead.")
    ] = None,
    first_rank: Annotated[int, typer.Option(min=1, help="First rank of the fit.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random games and resamples.")] = 0,
    json: JsonFile = None,
) -> None:
    """Fit Zipf's law to the states that games visit: frequency is rank^-s.

    The fit ends at the last rank that was seen ten times. Exponents grow with the number of games,
    so compare only figures of as many visits.
    """
    from generalist.analysis.visits import random_visits, recorded_visits
    from generalist.analysis.zipf import fit_zipf
    from generalist.envs.board_view import BoardView

    if (games is None) == (random is None):
        raise UsageError("Give the folder of a run or of shards, or --random N with --board NAME.")
    if random is not None and board is None:
        raise UsageError("--random needs --board, such as --board ConnectFour-6x7.")
    if games is not None:
        visited = recorded_visits(games)
        if board is not None and board not in visited:
            raise UsageError(f"{games} has no games of {board}; it has {', '.join(visited)}.")
        visited = visited if board is None else {board: visited[board]}
    else:
        assert random is not None and board is not None
        visited = {board: random_visits(BoardView.named(board), random, seed)}
    found = {}
    for name, visits in visited.items():
        fit = fit_zipf(visits, first_rank=first_rank, seed=seed)
        found[name] = asdict(fit)
        first, last = fit.ranks
        console().print(
            f"[bold]{name}[/]: {fit.games:,} games, {fit.visits:,} visits of {fit.states:,} "
            f"states; ranks {first} to {last:,}: exponent {fit.likelihood:.3f} "
            f"({_interval(fit.likelihood_interval)}) by likelihood, {fit.slope:.3f} "
            f"({_interval(fit.slope_interval)}) by slope in log-log, R2 {fit.r_squared:.3f}"
            + (f"; {fit.published:.3f} as Neumann and Gros fit." if fit.published else "."),
            soft_wrap=True,
        )
    write_json(json, found)


@app.command("scaling")
def scaling(
    table: Annotated[Path, typer.Argument(help="A CSV file with a header.", dir_okay=False)],
    x: Annotated[str, typer.Option(help="Column of parameters, data or compute.")],
    y: Annotated[str, typer.Option(help="Column of loss, return, or Elo over a constant.")],
    json: JsonFile = None,
) -> None:
    """Fit a power law to two columns, and one that saturates; AICc says which is better.

    A law holds within the range of its points. It says nothing of what lies beyond.
    """
    import numpy as np

    from generalist.analysis.scaling import fit_scaling

    columns = _columns(table, (x, y))
    found = fit_scaling(np.array(columns[x]), np.array(columns[y]))
    low, high = found.power.interval or (float("nan"), float("nan"))
    console().print(
        f"{found.points} points over {found.decades:.1f} decades: {y} = {found.power.factor:.4g} "
        f"{x}^{found.power.exponent:.3f} (95% {low:.3f} to {high:.3f}).",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    if found.saturating is None or found.advantage is None:
        console().print("Too few points to tell a power law from one that saturates.")
    else:
        law, gap = found.saturating, found.advantage
        better = "the saturating law" if gap > 2 else "the power law" if gap < -2 else "neither"
        console().print(
            f"Saturating: {y} = {law.floor:.4g} + {law.factor:.4g} {x}^{law.exponent:.3f}. AICc of "
            f"the power law less that of the saturating one: {gap:+.1f}, so {better} is better.",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    write_json(json, {**asdict(found), "advantage": found.advantage})


@app.command("quanta")
def quanta(
    log: Annotated[
        Path | None,
        typer.Argument(help="Folder of a run of `generalist train`, or its log.jsonl."),
    ] = None,
    parity: Annotated[
        bool,
        typer.Option(
            "--parity", help="Train a small network on multitask sparse parity instead: the check."
        ),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=100, help="With --parity: optimizer steps.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --parity: folder of its log. Default: runs/parity.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the check and of resamples.")] = 0,
    json: JsonFile = None,
) -> None:
    """Say when each task was learned, and whether frequent tasks are learned first.

    A task is learned once its loss stays below half of its way down. Tasks also differ in how hard
    they are; those of --parity do not, so there the order must follow the frequency.
    """
    from generalist.analysis.quanta import curves_of, fit_quanta

    if (log is None) != parity:
        raise UsageError("Give the folder of a run, or --parity.")
    if not parity and (steps is not None or out is not None):
        raise UsageError("--steps and --out belong to --parity; add it, or leave them out.")
    if log is None:
        log = _learned_parity(steps, out or Path("runs/parity"), seed)
    found = fit_quanta(curves_of(log), seed=seed)
    _print_quanta(found)
    write_json(json, asdict(found))


def _learned_parity(steps: int | None, out: Path, seed: int) -> Path:
    """The log of a run of the check."""
    from tqdm import tqdm

    from generalist.analysis.parity import Parity, learn_parity

    wanted = Parity(seed=seed) if steps is None else Parity(seed=seed, steps=steps)
    with tqdm(total=wanted.steps, desc="parity", unit="step", mininterval=0.5, disable=None) as bar:
        return learn_parity(wanted, out, lambda step, loss: bar.update(step - bar.n) and None)


def _print_quanta(found: Quanta) -> None:
    from rich.table import Table

    table = Table()
    for column in ("task", "frequency", "learned at step", "loss at first", "in the end"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for each in found.tasks:
        learned = "-" if each.learned is None else f"{each.learned:,}"
        losses = f"{each.first:.3f}", f"{each.last:.3f}"
        table.add_row(each.task, f"{each.frequency:.4f}", learned, *losses)
    console().print(table)
    count = sum(each.learned is not None for each in found.tasks)
    tail = "" if found.exponent is None else f"; step goes as frequency^-{found.exponent:.2f}"
    console().print(
        f"{count} of {len(found.tasks)} tasks learned; rank correlation of frequency and earliness "
        f"{found.correlation:.3f} ({_interval(found.interval)}){tail}.",
        soft_wrap=True,
    )


def _interval(interval: tuple[float, float]) -> str:
    return f"95% {interval[0]:.3f} to {interval[1]:.3f}"


def _columns(path: Path, names: tuple[str, ...]) -> dict[str, list[float]]:
    import csv

    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, list[float]] = {}
    for name in names:
        try:
            found[name] = [float(row[name]) for row in rows]
        except KeyError:
            known = ", ".join(rows[0]) if rows else "no rows"
            raise UsageError(f"{path} has no column {name!r}; it has {known}.") from None
        except (TypeError, ValueError) as error:
            raise UsageError(f"{path}: column {name!r} holds what is no number: {error}.") from None
    return found
