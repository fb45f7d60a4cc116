"""Returns that an agent is asked for: how they are written, and what is asked for at each step.

    expert    at each step a return is drawn, as probable as it is to follow and as the better it is
    250       an episode that returns 250
    80%       one that is so far on the way from the worst to the best of the data

The first is Multi-Game Decision Transformer's (Lee et al. 2022, section 3.4): R is drawn from
log P(R) + kappa (R - low) / (high - low). With a number the return-to-go of each later step follows
from the rewards, as in Decision Transformer (Chen et al. 2021, section 3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from generalist.acting.forms import Asked
from generalist.errors import UsageError
from generalist.numbers import NUMBER, exactly
from generalist.tokenization.returns import TaskReturns

_FORM = (
    "A wanted return is 'expert', a number or a percentage (250, 80%), perhaps with options: "
    "'expert:kappa=10,low=0,high=100' or '250:clip=no'"
)

MOST_KAPPA = 1e6
"""Beyond it the log-probabilities that it is added to are lost in rounding."""


@dataclass(frozen=True)
class WantedReturn:
    """A return that is asked for.

    Attributes:
        kind: `expert`, `number` or `percent`.
        number: the return of an episode, or the percentage.
        kappa: of `expert`, how strongly better returns are preferred.
        low, high: of `expert`, returns-to-go that are taken for the worst and the best; None for
            those of the data.
        clip: whether a number beyond the data is replaced by their nearest.
    """

    kind: Literal["expert", "number", "percent"]
    number: float = 0.0
    kappa: float = 10.0
    low: float | None = None
    high: float | None = None
    clip: bool = True

    @classmethod
    def parse(cls, given: str | float | WantedReturn) -> WantedReturn:
        """From how it is written, or from a number.

        Raises:
            UsageError: it is written otherwise.
        """
        if isinstance(given, WantedReturn):
            return given
        text = given if isinstance(given, str) else repr(float(given))
        what, _, options = text.strip().partition(":")
        if what == "expert":
            found = cls("expert")
            return replace(found, **_options(text, options, ("kappa", "low", "high")))
        match = re.fullmatch(rf"({NUMBER})(%?)", what)
        if match is None or not math.isfinite(float(match[1])):
            raise UsageError(f"{_FORM}; got {text!r}.")
        kind: Literal["percent", "number"] = "percent" if match[2] else "number"
        return replace(cls(kind, float(match[1])), **_options(text, options, ("clip",)))

    def tilt(self, returns: TaskReturns) -> torch.Tensor:
        """(R,) float32, what `expert` adds to the log-probabilities of returns."""
        low = returns.low if self.low is None else self.low
        high = returns.high if self.high is None else self.high
        if not low < high:
            raise UsageError(
                f"A wanted return of expert prefers {high:g} (high) to {low:g} (low); high must be "
                "above low."
            )
        if not abs(self.kappa) <= MOST_KAPPA:
            raise UsageError(
                f"kappa of a wanted return is {self.kappa:g}; it may be up to {MOST_KAPPA:g}."
            )
        tilt = self.kappa * ((returns.centres - low) / (high - low)).clip(0, 1)
        return torch.from_numpy(tilt.astype(np.float32))

    def total(self, returns: TaskReturns) -> float:
        """The return of the episode that is asked for, with a number or a percentage."""
        worst, best = returns.range
        if self.kind == "percent":
            asked = worst + self.number / 100 * (best - worst)
        else:
            asked = self.number
        return min(max(asked, worst), best) if self.clip else asked

    def note(self, returns: TaskReturns, task: str) -> str | None:
        """What to say of a return that lies beyond the data; None where it does not."""
        if self.kind == "expert":
            return None
        worst, best = returns.range
        asked = replace(self, clip=False).total(returns)
        if worst <= asked <= best:
            return None
        then = f"so {self.total(returns):.6g} is asked for" if self.clip else "it is tried"
        where = f"{worst:.6g} to {best:.6g}"
        return f"{task}: a return of {asked:.6g} is beyond the data, {where}; {then}."

    def __str__(self) -> str:
        if self.kind == "expert":
            given = {"kappa": self.kappa, "low": self.low, "high": self.high}
            said = (f"{k}={exactly(v)}" for k, v in given.items() if v is not None)
            return f"expert:{','.join(said)}"
        number = exactly(self.number)
        return f"{number}{'%' * (self.kind == 'percent')}{':clip=no' * (not self.clip)}"


def _options(text: str, options: str, known: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key == "clip" and key in known and value in ("yes", "no"):
            found[key] = value == "yes"
        elif (
            key != "clip"
            and key in known
            and re.fullmatch(NUMBER, value)
            and math.isfinite(float(value))
        ):
            found[key] = float(value)
        else:
            raise UsageError(f"{_FORM}; got {text!r}.")
    return found


class WantedReturns:
    """What is asked for in the running episodes of an agent.

    Args:
        returns: of the task.
        first_id: id of the first bin of returns.
    """

    def __init__(self, returns: TaskReturns, first_id: int) -> None:
        self.returns, self._first_id = returns, first_id
        self._tilts: dict[int, torch.Tensor] = {}
        self._to_go: dict[int, float] = {}  # what was asked for at the step before
        self._next: dict[int, float] = {}  # what is asked for at this step
        self._begun: set[int] = set()

    def begin(self, slot: int, wanted: WantedReturn | None) -> None:
        """Begin an episode in a slot; None asks for nothing."""
        self.end([slot])
        if wanted is None:
            return
        if wanted.kind == "expert":
            self._tilts[slot] = wanted.tilt(self.returns)
        else:
            self._to_go[slot] = self.returns.at_start(wanted.total(self.returns))
            self._begun.add(slot)

    def asked(self, slots: Sequence[int], infos: Sequence[Mapping[str, Any]]) -> Asked:
        """What is asked for at this step.

        Raises:
            UsageError: a number is asked for, and nobody says what the last action earned.
        """
        self._next = {
            slot: self._now(slot, info)
            for slot, info in zip(slots, infos, strict=True)
            if slot in self._to_go
        }
        known = list(self._next)
        codes = self.returns.encode(np.array([self._next[slot] for slot in known]))
        ids = dict(zip(known, (codes + self._first_id).tolist(), strict=True))
        return Asked(
            ids=[ids.get(slot) for slot in slots], tilts=[self._tilts.get(slot) for slot in slots]
        )

    def _now(self, slot: int, info: Mapping[str, Any]) -> float:
        if slot in self._begun:
            return self._to_go[slot]
        if (reward := info.get("reward")) is None:
            raise UsageError(
                "A return was asked for as a number, which counts down by what is earned: pass "
                "rewards=, or infos with the reward of the step before."
            )
        return self.returns.after(self._to_go[slot], float(reward))

    def settle(self) -> None:
        """Note that the actions of this step were chosen."""
        self._to_go |= self._next
        self._begun -= set(self._next)
        self._next = {}

    def end(self, slots: Sequence[int]) -> None:
        """Forget the episodes in these slots."""
        for slot in slots:
            self._tilts.pop(slot, None)
            self._to_go.pop(slot, None)
            self._begun.discard(slot)
