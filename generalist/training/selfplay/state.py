"""The progress of a run of self-play."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SelfplayState:
    """The progress of a run.

    Attributes:
        games: finished games.
        positions: positions of these.
        simulations: simulations of all searches.
        plies: moves, also of games that go on.
        steps: optimizer steps.
        owed: steps that the positions are worth beyond those taken.
        cpu_seconds: CPU time of the process, over all starts.
        wall_seconds: wall-clock time, over all starts.
        matches: matches against the anchor.
        record_bytes: size of the record of games.
        scores: board -> last score against the anchor.
        weights: board -> how often new games begin there.
    """

    games: int = 0
    positions: int = 0
    simulations: int = 0
    plies: int = 0
    steps: int = 0
    owed: float = 0.0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    matches: int = 0
    record_bytes: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
