"""`generalist arena`: players of a board game meet, and are rated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from generalist.cli.common import JsonFile, console, write_json


def arena(
    players: Annotated[
        list[str],
        typer.Argument(
            metavar="PLAYER PLAYER...",
            help="human, random, mcts@100, CHECKPOINT (its likeliest move), CHECKPOINT+tree@100, "
            "or untrained+tree@100.",
        ),
    ],
    board: Annotated[str, typer.Option(help="The board: ConnectFour-6x7, Othello, Hex-5x5, ...")],
    games: Annotated[
        int, typer.Option(min=2, help="Games of each pair, half of them with either colour.")
    ] = 100,
    opening_plies: Annotated[
        int,
        typer.Option(
            min=0, help="Random moves before each game. Each opening is played with both colours."
        ),
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of openings and players.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the games. Default: runs/arena/BOARD.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Let players meet on a board, all pairs with both colours; rate them by Bradley-Terry.

    Every game is kept as soon as it has ended, so the same command continues after an interruption,
    and --games 200 adds to 100 games that are there. A checkpoint from `generalist selfplay` plays
    sizes that it was not trained on too. A person (human) plays here: moves are named as the board
    shows them, such as c4.
    """
    from tqdm import tqdm

    from generalist.acting.person import HUMAN
    from generalist.evaluation.arena import arena as meet

    short = board.removeprefix("board/")
    # A person needs the screen.
    quiet = True if HUMAN in players else None
    bar = tqdm(desc="arena", unit="game", leave=False, mininterval=0.5, disable=quiet)

    def on_game(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    try:
        report = meet(
            players, short, out or Path("runs/arena") / short, games=games,
            opening_plies=opening_plies, seed=seed, on_game=on_game,
        )  # fmt: skip
    finally:
        bar.close()
    _print(report, console())
    write_json(json, report)


def _print(report: dict[str, Any], screen: Any) -> None:
    from rich.table import Table

    names = [player["name"] for player in report["players"]]
    pairs = Table(title=f"{report['board']}, both colours, {report['openings']} openings")
    for column in ("player", "against", "won", "drawn", "lost", "score", "95%", "moving first"):
        pairs.add_column(column, justify="left" if column in ("player", "against") else "right")
    for each in report["pairs"]:
        one, other = (names[number] for number in each["players"])
        first = "-".join(map(str, each["first"]))
        interval = f"{each['low']:.2f} to {each['high']:.2f}"
        row = [one, other, *map(str, each["games"]), f"{each['score']:.3f}", interval, first]
        pairs.add_row(*row)
    screen.print(pairs)
    rated = Table(title=f"Elo by Bradley-Terry, {report['anchor']} is 0")
    for column in ("player", "Elo", "95%"):
        rated.add_column(column, justify="left" if column == "player" else "right")
    for each in sorted(report["players"], key=lambda player: -player["elo"]):
        interval = f"{each['low']:+.0f} to {each['high']:+.0f}"
        rated.add_row(each["name"], f"{each['elo']:+.0f}", interval)
    screen.print(rated)
