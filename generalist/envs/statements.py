"""Captions and questions about a picture, drawn so that no answer is right more often than others.

A statement is drawn before the picture: first what is asked, then what the answer is to be, then
things of which that is true. So neither the question nor its words tell the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.envs.seen import Pair, Seen, Spot

MOST_COUNTED = 3
NOTHING = "nothing"

Names = Callable[[Sequence[Spot], np.random.Generator], list[Pair]]


@dataclass(frozen=True)
class Statement:
    """What a picture is to show, and what is then true of it.

    Attributes:
        form: what is said: `caption`, or the kind of question.
        question: in words; None for a caption.
        wanted: the answer that the things are drawn for; None where any will do.
        least: fewest things of the picture.
        names: colour and kind of the thing on each spot.
        truth: the right text, from what is seen.
    """

    form: str
    question: str | None
    wanted: str | None
    least: int
    names: Names
    truth: Callable[[Sequence[Seen]], str]


Form = Callable[[Sequence[Pair], np.random.Generator], Statement]


def caption(pairs: Sequence[Pair], rng: np.random.Generator) -> Statement:
    """The nearest thing, and where it stands beside the next one."""
    return Statement("caption", None, None, 1, _any(pairs), said_of)


def said_of(seen: Sequence[Seen]) -> str:
    """The caption of things, the nearest first: `a red key left of a blue ball`."""
    if not seen:
        return NOTHING
    first, *others = seen
    if not others:
        return f"a {first.name}"
    second = others[0]
    if first.side == second.side:
        where = "in front of"
    else:
        where = "left of" if first.side < second.side else "right of"
    return f"a {first.name} {where} a {second.name}"


def colour(pairs: Sequence[Pair], rng: np.random.Generator) -> Statement:
    """What colour the only thing of a kind is."""
    kind = _drawn(_kinds(pairs), rng)
    wanted = _drawn([each for each, own in pairs if own == kind], rng)
    return Statement(
        "colour",
        f"what colour is the {kind}?",
        wanted,
        1,
        _with([(wanted, kind)], [pair for pair in pairs if pair[1] != kind]),
        lambda seen: _only(seen, kind=kind).colour,
    )


def kind(pairs: Sequence[Pair], rng: np.random.Generator) -> Statement:
    """What the only thing of a colour is."""
    own = _drawn(_colours(pairs), rng)
    wanted = _drawn([each for hue, each in pairs if hue == own], rng)
    return Statement(
        "kind",
        f"what is the {own} thing?",
        wanted,
        1,
        _with([(own, wanted)], [pair for pair in pairs if pair[0] != own]),
        lambda seen: _only(seen, colour=own).kind,
    )


def count(pairs: Sequence[Pair], rng: np.random.Generator) -> Statement:
    """How many things of a kind, or of a colour, there are."""
    part = int(rng.integers(2))
    word = _drawn((_colours(pairs), _kinds(pairs))[part], rng)
    many = int(rng.integers(MOST_COUNTED + 1))
    alike = [pair for pair in pairs if pair[part] == word]

    def names(spots: Sequence[Spot], rng: np.random.Generator) -> list[Pair]:
        counted = [_drawn(alike, rng) for _ in range(many)]
        return _with(counted, [pair for pair in pairs if pair[part] != word])(spots, rng)

    return Statement(
        "count",
        f"how many {_plural(word)} are there?" if part else f"how many {word} things are there?",
        str(many),
        max(1, many),
        names,
        lambda seen: str(sum((each.colour, each.kind)[part] == word for each in seen)),
    )


def there(pairs: Sequence[Pair], rng: np.random.Generator) -> Statement:
    """Whether there is a thing of a colour and a kind."""
    pair = _drawn(pairs, rng)
    yes = bool(rng.integers(2))
    others = [each for each in pairs if each != pair]
    # Whether or not it is there, things like it are: to have seen its colour and its kind is not
    # to have seen it.
    like = [each for each in others if each[0] == pair[0] or each[1] == pair[1]]

    def names(spots: Sequence[Spot], rng: np.random.Generator) -> list[Pair]:
        near = [_drawn(like, rng) for _ in range(min(2, len(spots) - yes))]
        return _with([pair] * yes + near, others)(spots, rng)

    return Statement(
        "there",
        f"is there a {' '.join(pair)}?",
        "yes" if yes else "no",
        1,
        names,
        lambda seen: "yes" if any((each.colour, each.kind) == pair for each in seen) else "no",
    )


def side(pairs: Sequence[Pair], rng: np.random.Generator) -> Statement:
    """Whether a thing stands to the left or to the right of another."""
    one, other = (pairs[i] for i in rng.permutation(len(pairs))[:2])
    wanted = ("left", "right")[int(rng.integers(2))]
    others = [pair for pair in pairs if pair not in (one, other)]

    def names(spots: Sequence[Spot], rng: np.random.Generator) -> list[Pair]:
        order = np.argsort([spot.side for spot in spots], kind="stable")
        apart = [
            (i, j) for n, i in enumerate(order) for j in order[n + 1 :]
            if spots[i].side < spots[j].side
        ]  # fmt: skip
        left, right = apart[int(rng.integers(len(apart)))]
        found = [_drawn(others, rng) for _ in spots]
        found[left], found[right] = (one, other) if wanted == "left" else (other, one)
        return found

    def truth(seen: Sequence[Seen]) -> str:
        first, second = (_only(seen, *pair) for pair in (one, other))
        return "left" if first.side < second.side else "right"

    asked = f"is the {' '.join(one)} left or right of the {' '.join(other)}?"
    return Statement("side", asked, wanted, 2, names, truth)


def nearest(pairs: Sequence[Pair], rng: np.random.Generator) -> Statement:
    """Which thing is nearest."""
    wanted = _drawn(pairs, rng)
    others = [pair for pair in pairs if pair != wanted]

    def names(spots: Sequence[Spot], rng: np.random.Generator) -> list[Pair]:
        return [wanted, *(_drawn(others, rng) for _ in spots[1:])]

    asked = "what is nearest?"
    return Statement("nearest", asked, " ".join(wanted), 2, names, lambda seen: seen[0].name)


QUESTIONS: dict[str, Form] = {
    "colour": colour,
    "kind": kind,
    "count": count,
    "there": there,
    "side": side,
    "nearest": nearest,
}


def question(pairs: Sequence[Pair], rng: np.random.Generator) -> Statement:
    """A question of any form."""
    return QUESTIONS[_drawn(list(QUESTIONS), rng)](pairs, rng)


def _any(pairs: Sequence[Pair]) -> Names:
    return lambda spots, rng: [_drawn(pairs, rng) for _ in spots]


def _with(given: Sequence[Pair], others: Sequence[Pair]) -> Names:
    """Names in any order: those that are given, and others."""

    def names(spots: Sequence[Spot], rng: np.random.Generator) -> list[Pair]:
        found = [*given, *(_drawn(others, rng) for _ in range(len(spots) - len(given)))]
        return [found[i] for i in rng.permutation(len(found))]

    return names


def _only(seen: Sequence[Seen], colour: str | None = None, kind: str | None = None) -> Seen:
    """The thing of this colour and kind; there is one."""
    (found,) = (
        each for each in seen if colour in (None, each.colour) and kind in (None, each.kind)
    )
    return found


def _colours(pairs: Sequence[Pair]) -> list[str]:
    return list(dict.fromkeys(colour for colour, _ in pairs))


def _kinds(pairs: Sequence[Pair]) -> list[str]:
    return list(dict.fromkeys(kind for _, kind in pairs))


def _plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith(("x", "ch")) else f"{kind}s"


def _drawn(options: Sequence[Any], rng: np.random.Generator) -> Any:
    return options[int(rng.integers(len(options)))]
