"""The compact form: a timestep in a handful of positions, in place of one position a token.

In the flat form every token is a position of its own. In the compact form an *embedder* makes G
vectors of all tokens that are given before an action, and the actions are chosen at the last of
these positions and at k - 1 *queries* behind it: one forward pass finds a whole action. So a
timestep has G + k - 1 positions, whatever is observed. A demonstration has G for each timestep,
because its actions are given too.

An action that is text is written token by token. Its k tokens stand at positions of their own
behind those of what is given, each predicted one position before, so that a timestep has G + k.

A model that was trained with returns has one more position in a timestep, between what is given and
the queries. There the first action token is chosen. The return-to-go that is asked for is embedded
there; nothing is where none is. The value, what is to be expected, is read one position before,
where no return is known.

A model that was trained as a world model has one more position at the end of a timestep, where the
action that was taken is embedded, beside the observation once more. There its outcome is predicted:
see generalist.modeling.world. Later timesteps so see what was done.

There is one embedder for each *signature*, the kinds and counts of tokens. All games share one, and
so do all levels of a grid world. A task is told by one vector at the first position of a header.

Legend: G = positions of what is given, K = tokens of what is given, k = action tokens of a
timestep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from generalist.errors import GeneralistError, UsageError
from generalist.tokenization.layout import Layout, Part
from generalist.vocabulary import TokenRange

TASKS, QUERIES = "tasks", "queries"
"""Names of two tables of vectors, beside the embedders' own names."""

RETURN = "return"
"""Role of the signature of returns."""

UNKNOWN_TASK = 0
"""Row of the table of tasks for a task that the model was not trained on."""


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens of one kind.

    Attributes:
        kind: what their ids stand for, such as `bins` or `grid`.
        count: how many tokens there are.
        start: first id of their range.
        rows: how many ids, from `start` on, they can have.
    """

    kind: str
    count: int
    start: int
    rows: int


@dataclass(frozen=True)
class Signature:
    """What an embedder embeds: the kinds and counts of tokens, whatever task they are of.

    Attributes:
        role: `observation` for what is given before an action, `action`, or `return`.
        runs: of the tokens, in order.
    """

    role: str
    runs: tuple[Run, ...]

    @classmethod
    def of(cls, role: str, parts: Iterable[Part]) -> Signature:
        """The signature of some parts; neighbours of one kind become one run."""
        runs: list[Run] = []
        for part in parts:
            codec = part.codec
            kind = "bins" if codec.ordinal else codec.kind
            rows = max(stop for _, stop in codec.legal)
            last = runs[-1] if runs else None
            if last is not None and (last.kind, last.start) == (kind, part.start):
                runs[-1] = Run(kind, last.count + codec.tokens, part.start, max(last.rows, rows))
            else:
                runs.append(Run(kind, codec.tokens, part.start, rows))
        return cls(role, tuple(runs))

    @property
    def name(self) -> str:
        """Readable and unique, such as `observation-grid49x97-discrete1x4`."""
        return "-".join([self.role, *(f"{run.kind}{run.count}x{run.rows}" for run in self.runs)])

    @property
    def tokens(self) -> int:
        """K."""
        return sum(run.count for run in self.runs)

    @property
    def side(self) -> int | None:
        """S where the tokens are the S x S cells of a board, row by row; else None."""
        only = self.runs[0] if len(self.runs) == 1 else None
        return math.isqrt(only.count) if only is not None and only.kind == "board" else None


@dataclass(frozen=True)
class OutcomeIds:
    """Ids by which the outcomes of actions are predicted.

    Attributes:
        goes_on, is_over: what stands for an episode that goes on, and for one that is over.
        first: of the bins of rewards and of returns-to-go.
        bins: how many.
    """

    goes_on: int
    is_over: int
    first: int
    bins: int


@dataclass(frozen=True, kw_only=True)
class CompactForm:
    """How a model in the compact form is shown timesteps; what is stored beside its weights.

    Attributes:
        positions: G.
        width: of the rows of an embedder's table.
        convolutions: how many the cells of a board pass through.
        tasks: names of the tasks that have a vector; the first has number 1.
        signatures: of the embedders.
        queries: the largest k - 1 of the tasks.
        world: how outcomes are predicted at the position of the action that was taken; None where
            there is no such position.
    """

    positions: int
    width: int
    convolutions: int = 0
    tasks: tuple[str, ...] = ()
    signatures: tuple[Signature, ...] = ()
    queries: int = 0
    world: OutcomeIds | None = None

    def extended(
        self,
        layouts: Mapping[str, Layout],
        returns: TokenRange | None = None,
        world: OutcomeIds | None = None,
    ) -> CompactForm:
        """The form that serves these tasks too; what it has keeps its number.

        With `returns`, the ids of returns, it has a position for them from now on; with `world`
        one for the action that was taken.
        """
        own = {task: each for task, each in sorted(layouts.items()) if not each.is_document}
        if world is not None and (texts := [task for task in own if own[task].is_written]):
            raise UsageError(
                f"{', '.join(texts)}: nothing comes of text that is written, so a world model has "
                "nothing to learn; train without `world`, or without these tasks."
            )
        # Text that is written is never embedded as a whole, nor asked for by queries.
        found = [
            each
            for layout in own.values()
            for each in signatures_of(layout)[: 2 - layout.is_written]
        ]
        asked = [len(layout.legal) - 1 for layout in own.values() if not layout.is_written]
        if returns is not None:
            found.append(Signature(RETURN, (Run("bins", 1, returns.start, returns.size),)))
        return CompactForm(
            positions=self.positions,
            width=self.width,
            convolutions=self.convolutions,
            tasks=tuple(dict.fromkeys([*self.tasks, *own])),
            signatures=tuple(dict.fromkeys([*self.signatures, *found])),
            queries=max([self.queries, *asked]),
            world=self.world or world,
        )

    @property
    def returns(self) -> Signature | None:
        """The signature of returns; None where a model was trained without."""
        return next((each for each in self.signatures if each.role == RETURN), None)

    def timestep_positions(self, layout: Layout) -> int:
        """Positions of a timestep, G + k - 1; one more with returns, one more with a world model.

        One more where it is written, too. A document's has 1.
        """
        if layout.is_document:
            return 1
        more = (self.returns is not None) + (self.world is not None) + layout.is_written
        return self.positions + len(layout.legal) - 1 + more

    def number_of(self, task: str) -> int:
        """Row of a task in the table of tasks; UNKNOWN_TASK where it has none.

        A board game of a size that has no row of its own has the row of the game, if any.
        """
        for name in (task, without_size(task)):
            if name in self.tasks:
                return self.tasks.index(name) + 1
        return UNKNOWN_TASK

    def check(self, task: str, layout: Layout) -> None:
        """Raise UsageError where a model of this form cannot act in a task of this layout."""
        known = {each.name for each in self.signatures if each.role != RETURN}
        observation, _ = signatures_of(layout)
        if observation.name not in known:
            raise UsageError(
                f"{task} has observations of the kind {observation.name}, for which the checkpoint "
                f"has no embedder; it has {', '.join(sorted(known)) or 'none'}. Fine-tune it on "
                "demonstrations of the task first (model.init_from)."
            )
        if len(layout.legal) - 1 > self.queries and not layout.is_written:
            raise UsageError(
                f"{task} has actions of {len(layout.legal)} tokens, and the checkpoint was trained "
                f"on at most {self.queries + 1}. Fine-tune it on demonstrations of the task first "
                "(model.init_from)."
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CompactForm:
        """Inverse of `to_dict`; raises GeneralistError where the data are none."""
        try:
            signatures = tuple(
                Signature(each["role"], tuple(Run(**run) for run in each["runs"]))
                for each in data["signatures"]
            )
            world = None if data.get("world") is None else OutcomeIds(**data["world"])
            tasks = tuple(data["tasks"])
            return cls(**{**data, "tasks": tasks, "signatures": signatures, "world": world})
        except (KeyError, TypeError) as error:
            raise GeneralistError(f"This describes no compact form: {error!r}.") from None


def without_size(task: str) -> str:
    """The name of a board game: `board/Hex` for `board/Hex-7x7`. Other names stay what they are."""
    return re.sub(r"^(board/.+)-\d+x\d+$", r"\1", task)


def signatures_of(layout: Layout) -> tuple[Signature, Signature]:
    """Of what is given before an action as it is stored, and of the action."""
    observation, action = (
        Signature.of(role, layout.parts_of(role)) for role in ("observation", "action")
    )
    return observation, action
