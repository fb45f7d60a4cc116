"""A recorded episode: films, and what the model saw and chose."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Recording:
    """An episode of one task.

    Attributes:
        task: its name.
        description: the task in a line.
        metric: `return` or `success`.
        seed: of the episode.
        instruction: what was asked for; None where nothing is.
        limit: step limit of the task.
        ended: how the recording ended: `terminated`, `truncated` or `cut`.
        success: whether the task was solved; None where it says nothing.
        fps: of the films.
        stride: steps between two frames.
        film: mp4 of what the environment renders; None where it cannot.
        no_film: why there is no film.
        seen: mp4 of the frames that the model's tokens stand for; None where it sees no frame.
        header: tokens at the head of the window.
        legend: what `Reader.legend` says.
        moments: what `Reader.moment` says of each step, and its `reward`.
        temperature: of the sampling.
        bins_temperature: of the sampling of continuous actions; None where the task has none.
    """

    task: str
    description: str
    metric: str
    seed: int
    instruction: str | None
    limit: int
    ended: str
    success: bool | None
    fps: float
    stride: int
    film: bytes | None
    no_film: str | None
    seen: bytes | None
    header: list[dict[str, Any]]
    legend: dict[str, Any]
    moments: list[dict[str, Any]]
    temperature: float
    bins_temperature: float | None

    @property
    def return_(self) -> float:
        """Sum of the rewards."""
        return float(sum(each["reward"] for each in self.moments))

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without the films."""
        fields = {**asdict(self), "return": self.return_}
        return {name: value for name, value in fields.items() if name not in ("film", "seen")}
