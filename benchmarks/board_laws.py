"""What one network for all boards gives up, and how strength grows with parameters.

    python -m benchmarks.board_laws together --out runs/laws --json together.json
    python -m benchmarks.board_laws sizes --out runs/laws --json sizes.json

All networks are of `recipes/selfplay/boards.yaml` and begin from nothing. They meet in the arena
with the same search. As many games begin on each board; those that still run at the end do not
count, so boards of long games have some fewer in the network for all.

together: one network learns four boards, four others learn one each. On each board both meet.
sizes: five networks, from 16 to 256 wide, learn Connect Four 6x7 and meet. The strength of a player
    in the model of Bradley and Terry is s = 10^(Elo/400); the exponent is that of s in the
    parameters of the layers (Neumann and Gros 2022, "Scaling laws for a multi-agent reinforcement
    learning model", who publish 0.88 for Connect Four).

A network that `--out` holds is not trained again, and an arena there goes on.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from benchmarks.measure import print_facts, print_table, screen, write_json
from generalist.analysis.scaling import fit_scaling
from generalist.evaluation.arena import arena
from generalist.training.selfplay.recipe import load_selfplay_recipe
from generalist.training.selfplay.run import selfplay

BOARDS = ("ConnectFour-4x5", "Gomoku-7x7", "Hex-5x5", "Breakthrough-5x5")
LADDER_BOARD = "ConnectFour-6x7"
WIDTHS = (16, 32, 64, 128, 256)
WHO = ("all", "alone")
_HEAD = 32  # width of an attention head, where the network is as wide


def learned(out: Path, name: str, boards: list[str], games: int, *overrides: str) -> Path:
    """The checkpoint of a network that learned so many games of each board."""
    folder = out / name
    if not (folder / "checkpoint" / "model.safetensors").exists():
        recipe = load_selfplay_recipe(
            "selfplay/boards",
            [
                f"boards=[{','.join(boards)}]", "workers=0", "parallel_games=256",
                "anchors.games=0", "keep_games=false", f"output_dir={folder}",
                f"length={{games: {games * len(boards)}}}", *overrides,
            ],
        )  # fmt: skip
        return selfplay(recipe)
    return folder / "checkpoint"


def together(out: Path, games: int, met: int, simulations: int) -> list[dict[str, Any]]:
    """A row a board: how the network for all fares against the one for this board alone."""
    for_all = learned(out, f"all-{games}", list(BOARDS), games)
    rows = []
    for board in BOARDS:
        alone = learned(out, f"{board}-{games}", [board], games)
        players = [f"{each}+tree@{simulations}" for each in (for_all, alone)]
        report = arena([*players, "mcts@100"], board, out / "arena" / f"{board}-{games}", games=met)
        pair = next(each for each in report["pairs"] if tuple(each["players"]) == (0, 1))
        elo = [elo_above(pair[key], met) for key in ("score", "low", "high")]
        rows.append(
            {"board": board, "score": pair["score"], "low": pair["low"], "high": pair["high"]}
            | dict(zip(("elo", "elo_low", "elo_high"), elo, strict=True))
            | {f"{who}_above_mcts": report["players"][n]["elo"] for n, who in enumerate(WHO)}
        )
    return rows


def elo_above(score: float, games: int) -> float:
    """How far in Elo a player is above another of whom it wins this share of the games.

    One draw is added, as the arena does, or else a player that wins all would be infinitely far.
    """
    share = (score * games + 0.5) / (games + 1)
    return 400 * math.log10(share / (1 - share))


def sizes(out: Path, games: int, met: int, simulations: int) -> list[dict[str, Any]]:
    """A row a width: parameters of the layers, and Elo with its interval."""
    folders = [
        learned(
            out, f"width{width}-{games}", [LADDER_BOARD], games,
            f"model.hidden_size={width}", f"model.intermediate_size={3 * width}",
            f"model.heads={max(1, width // _HEAD)}",
        )
        for width in WIDTHS
    ]  # fmt: skip
    players = [f"{folder}+tree@{simulations}" for folder in folders]
    report = arena(
        [*players, "mcts@100"], LADDER_BOARD, out / "arena" / f"sizes-{games}", games=met
    )
    return [
        {"width": width, "parameters": parameters(folder)}
        | {key: report["players"][n][key] for key in ("elo", "low", "high")}
        for n, (width, folder) in enumerate(zip(WIDTHS, folders, strict=True))
    ]


def parameters(checkpoint: Path) -> int:
    """Those of the layers; the table of tokens, most of which no board uses, would hide them."""
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys() if ".layers." in key]
    return sum(math.prod(shape) for shape in shapes)


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, let all meet, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.board_laws",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", choices=("together", "sizes"))
    parser.add_argument("--out", type=Path, required=True, help="folder of networks and arenas")
    parser.add_argument("--games", type=int, default=4_000, help="of self-play, of each board")
    parser.add_argument("--met", type=int, default=200, help="games of each pair in the arena")
    parser.add_argument("--simulations", type=int, default=100, help="of a move in the arena")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    options = parser.parse_args(arguments)
    measure = {"together": together, "sizes": sizes}[options.experiment]
    rows = measure(options.out, options.games, options.met, options.simulations)
    result: dict[str, Any] = {"games": options.games, "rows": rows}
    print_table(screen(), options.experiment, list(rows[0]), [list(row.values()) for row in rows])
    if options.experiment == "sizes":
        strength = [10 ** (row["elo"] / 400) for row in rows]
        law = fit_scaling(np.array([row["parameters"] for row in rows]), np.array(strength)).power
        result |= {"exponent": law.exponent, "interval": law.interval}
        print_facts(screen(), {"exponent": law.exponent, "95%": str(law.interval)})
    write_json(options.json, result)


if __name__ == "__main__":
    main()
