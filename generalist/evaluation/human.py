"""Atari scores beside those of human players, on the 26 games of "Atari 100k".

The references are those of Badia et al. 2020, "Agent57: Outperforming the Atari Human Benchmark"
(appendix, table of scores by game), which papers on these 26 games use since Kaiser et al. 2020.
The human testers had played without sticking actions, for at most five minutes an episode (Mnih et
al. 2015, Methods). So a comparison with our episodes is a usual one, but no exact one.

Legend: E = episodes of a game, K = games, R = draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from generalist.evaluation.intervals import AGGREGATES, RESAMPLES, percentile_interval
from generalist.evaluation.scores import OWN, TaskScore, is_changed

HUMAN: dict[str, tuple[float, float]] = {
    "atari/Alien": (227.8, 7127.7),
    "atari/Amidar": (5.8, 1719.5),
    "atari/Assault": (222.4, 742.0),
    "atari/Asterix": (210.0, 8503.3),
    "atari/BankHeist": (14.2, 753.1),
    "atari/BattleZone": (2360.0, 37187.5),
    "atari/Boxing": (0.1, 12.1),
    "atari/Breakout": (1.7, 30.5),
    "atari/ChopperCommand": (811.0, 7387.8),
    "atari/CrazyClimber": (10780.5, 35829.4),
    "atari/DemonAttack": (152.1, 1971.0),
    "atari/Freeway": (0.0, 29.6),
    "atari/Frostbite": (65.2, 4334.7),
    "atari/Gopher": (257.6, 2412.5),
    "atari/Hero": (1027.0, 30826.4),
    "atari/Jamesbond": (29.0, 302.8),
    "atari/Kangaroo": (52.0, 3035.0),
    "atari/Krull": (1598.0, 2665.5),
    "atari/KungFuMaster": (258.5, 22736.3),
    "atari/MsPacman": (307.3, 6951.6),
    "atari/Pong": (-20.7, 14.6),
    "atari/PrivateEye": (24.9, 69571.3),
    "atari/Qbert": (163.9, 13455.0),
    "atari/RoadRunner": (11.5, 7845.0),
    "atari/Seaquest": (68.4, 42054.7),
    "atari/UpNDown": (533.4, 11693.2),
}
"""By task: the scores of random play and of a human player."""


def human_normalized(scores: Sequence[TaskScore]) -> dict[str, Any]:
    """Compare the scores of games with a human's: 0 is random play, 1 the human.

    Rows with another instruction than the game's own are left out, and so are tasks that are none
    of the 26 games, and episodes that were cut or played in a changed environment.

    Returns:
        `games`: by task `random`, `human`, `normalized` and its 95% `interval`. Where there is a
        game also `at_human_level`, how many are at 1 or above, and each of `AGGREGATES` over the
        games with its interval: `median`, `median_interval`, .... An interval is None where the
        error of a game in it is not known, for want of episodes.
    """
    kept = [
        score
        for score in scores
        if score.instruction == OWN and score.task in HUMAN and not is_changed(score)
    ]
    if not kept:
        return {"games": {}}
    floors, humans = np.array([HUMAN[score.task] for score in kept]).T
    gaps = humans - floors
    points = (np.array([score.mean for score in kept]) - floors) / gaps  # (K,)
    rng = np.random.default_rng(0)
    means = np.stack([score.estimate().draws(rng, RESAMPLES) for score in kept], axis=-1)
    drawn = (means - floors) / gaps  # (R, K)
    known = [score.stderr is not None for score in kept]
    games = {
        score.task: {
            "random": float(floors[k]),
            "human": float(humans[k]),
            "normalized": float(points[k]),
            "interval": percentile_interval(drawn[:, k]) if known[k] else None,
        }
        for k, score in enumerate(kept)
    }
    result: dict[str, Any] = {"games": games, "at_human_level": int((points >= 1).sum())}
    for name, statistic in AGGREGATES.items():
        result[name] = float(statistic(points))
        result[f"{name}_interval"] = percentile_interval(statistic(drawn)) if all(known) else None
    return result


def human_line(found: dict[str, Any]) -> str:
    """One sentence on what `human_normalized` returns; nothing where there is no game."""
    games = found["games"]
    if not games:
        return ""
    return (
        f"Beside a human player (0 random, 1 human) over {len(games)} of 26 Atari games: mean "
        f"{found['mean']:.2f}, median {found['median']:.2f}, interquartile mean "
        f"{found['iqm']:.2f}; {found['at_human_level']} at the human's level or above."
    )
