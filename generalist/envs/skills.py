"""The skills of instructed tasks in 3D: what stands in a room, and what is asked for.

Each room has things of which only the words say which is meant: another of the same colour, and
another of the same kind, stand beside the one that is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from generalist.envs.missions import (
    GESTURES,
    Face,
    Gesture,
    Goal,
    LeaveAlone,
    Open,
    PutNext,
    Reach,
    Take,
)
from generalist.envs.scene import Thing

Pairs = Literal["seen", "heldout"]
PAIRS = ("seen", "heldout")
FROM_WALLS = 0.9  # metres

Clause = tuple[str, Thing | None]


@dataclass(frozen=True)
class Kit:
    """The things of a world.

    Attributes:
        pairs: of colour and kind.
        held_out: those that stand in no room of training.
        radius_of: metres, by kind and size.
        portable: the kinds that can be picked up.
    """

    pairs: tuple[tuple[str, str], ...]
    held_out: tuple[tuple[str, str], ...]
    radius_of: Callable[[str, str], float]
    portable: tuple[str, ...]

    def allowed(self, pairs: Pairs, portable: bool = False) -> list[tuple[str, str]]:
        """The pairs of training, or those that are held out."""
        return [
            pair
            for pair in self.pairs
            if (pair in self.held_out) == (pairs == "heldout")
            and not (portable and pair[1] not in self.portable)
        ]

    @property
    def colours(self) -> list[str]:
        """All colours, in order."""
        return list(dict.fromkeys(colour for colour, _ in self.pairs))


@dataclass
class Plan:
    """What a skill asks for.

    Attributes:
        things: that stand in the room.
        goals: one after the other.
        clauses: the verb of each goal, and the thing that it names.
        agent_from_walls: metres between the agent and the walls, at least, at the start.
    """

    things: list[Thing]
    goals: list[Goal]
    clauses: list[Clause]
    agent_from_walls: float = FROM_WALLS


@dataclass(frozen=True)
class Skill:
    """A task of the family.

    Attributes:
        plan: draws what is asked for.
        steps: after which an episode is truncated.
        description: what to do, in a few words.
        names_a_pair: whether it names a thing by colour and kind, which can be a held-out pair.
    """

    plan: Callable[[Palette], Plan]
    steps: int
    description: str
    names_a_pair: bool = True


@dataclass
class Palette:
    """Draws things.

    Args:
        rng: draws.
        kit: the things of the world.
        pairs: whether the thing that is named is of a held-out pair.
    """

    rng: np.random.Generator
    kit: Kit
    pairs: Pairs = "seen"
    _used: set[tuple[str, str]] = field(default_factory=set)

    def named(self, size: str = "", *, portable: bool = False) -> Thing:
        """A thing to be named."""
        return self._thing(self._draw(self.kit.allowed(self.pairs, portable)), size)

    def like(self, thing: Thing, *, size: str = "") -> list[Thing]:
        """One thing of the same colour, and one of the same kind."""
        found = []
        for part, word in enumerate((thing.colour, thing.kind)):
            alike = [pair for pair in self._free() if pair[part] == word]
            found.append(self._thing(self._draw(alike or self._free()), size))
        return found

    def others(self, count: int) -> list[Thing]:
        """Things that are none of those before."""
        return [self._thing(self._draw(self._free())) for _ in range(count)]

    def doors(self, count: int) -> list[Thing]:
        """Doors of different colours."""
        colours, radius = self.kit.colours, self.kit.radius_of("door", "")
        drawn = self.rng.permutation(len(colours))[:count]
        return [Thing(colours[i], "door", radius=radius) for i in drawn]

    def choice(self, options: Sequence[str]) -> str:
        """One of some words."""
        return options[int(self.rng.integers(len(options)))]

    def _free(self) -> list[tuple[str, str]]:
        return [pair for pair in self.kit.allowed("seen") if pair not in self._used]

    def _draw(self, pairs: Sequence[tuple[str, str]]) -> tuple[str, str]:
        return pairs[int(self.rng.integers(len(pairs)))]

    def _thing(self, pair: tuple[str, str], size: str = "") -> Thing:
        self._used.add(pair)
        return Thing(*pair, size=size, radius=self.kit.radius_of(pair[1], size))


def _one(goal: type[Goal], verb: str, others: int = 2) -> Callable[[Palette], Plan]:
    """One goal that names a thing among those like it and some others."""

    def plan(palette: Palette) -> Plan:
        thing = palette.named(portable=goal is Take)
        things = [thing, *palette.like(thing), *palette.others(others)]
        return Plan(things, [goal((thing,))], [(verb, thing)])

    return plan


def _by_one_word(word: Literal["colour", "kind"]) -> Callable[[Palette], Plan]:
    """Go to the only thing of a colour, or of a kind."""

    def plan(palette: Palette) -> Plan:
        thing = palette.named()
        things = [thing]
        while len(things) < 4:
            (other,) = palette.others(1)
            if getattr(other, word) not in {getattr(each, word) for each in things}:
                things.append(other)
        said = Thing(thing.colour, "thing") if word == "colour" else Thing("", thing.kind)
        return Plan(things, [Reach((thing,))], [("reach", said)])

    return plan


def _by_size(palette: Palette) -> Plan:
    size = palette.choice(("big", "small"))
    other = "small" if size == "big" else "big"
    thing = palette.named(size)
    radius = palette.kit.radius_of(thing.kind, other)
    twin = Thing(thing.colour, thing.kind, other, radius=radius)
    things = [thing, twin, *palette.like(thing, size=size)]
    return Plan(things, [Reach((thing,))], [("reach", thing)])


def _door(goal: type[Goal], verb: str) -> Callable[[Palette], Plan]:
    def plan(palette: Palette) -> Plan:
        doors = palette.doors(4)
        return Plan([*doors, *palette.others(1)], [goal((doors[0],))], [(verb, doors[0])])

    return plan


def _leave_alone(palette: Palette) -> Plan:
    thing = palette.named()
    things = [thing, *palette.like(thing)]
    return Plan(things, [LeaveAlone((thing,))], [("leave", thing)])


def _gesture(palette: Palette) -> Plan:
    what = palette.choice(GESTURES)
    return Plan(palette.others(3), [Gesture(what=what)], [(what, None)], agent_from_walls=2.0)


def _put_next(palette: Palette) -> Plan:
    thing = palette.named(portable=True)
    things = [thing, *palette.like(thing), *palette.others(1)]
    goals: list[Goal] = [Take((thing,)), PutNext((things[-1],))]
    return Plan(things, goals, [("take", thing), ("put", things[-1])])


def _take_then_reach(palette: Palette) -> Plan:
    thing = palette.named(portable=True)
    things = [thing, *palette.like(thing), *palette.others(1)]
    target = things[int(palette.rng.integers(1, len(things)))]
    return Plan(things, [Take((thing,)), Reach((target,))], [("take", thing), ("reach", target)])


def _open_then_reach(palette: Palette) -> Plan:
    door, *doors = palette.doors(3)
    thing = palette.named()
    things = [thing, *palette.like(thing), door, *doors]
    return Plan(things, [Open((door,)), Reach((thing,))], [("open", door), ("reach", thing)])


_ONE_GOAL, _LONG = 60, 120
SKILLS = {
    "GoTo": Skill(_one(Reach, "reach"), _ONE_GOAL, "go to the thing of a colour and kind"),
    "GoToColour": Skill(_by_one_word("colour"), _ONE_GOAL, "go to the thing of a colour"),
    "GoToKind": Skill(_by_one_word("kind"), _ONE_GOAL, "go to the thing of a kind"),
    "GoToSize": Skill(_by_size, _ONE_GOAL, "go to the big or the small one of two alike"),
    "GoToDoor": Skill(_door(Reach, "reach"), _ONE_GOAL, "go to the door of a colour", False),
    "PickUp": Skill(_one(Take, "take"), _ONE_GOAL, "pick up the thing of a colour and kind"),
    "OpenDoor": Skill(_door(Open, "open"), _ONE_GOAL, "open the door of a colour", False),
    "Face": Skill(_one(Face, "face"), _ONE_GOAL, "turn to a thing and look at it"),
    "LeaveAlone": Skill(_leave_alone, _LONG, "touch every thing but the one that is named"),
    "Gesture": Skill(_gesture, _ONE_GOAL, "turn, look up or down, walk, or stand still", False),
    "PutNext": Skill(_put_next, _LONG, "pick up a thing and put it next to another"),
    "PickUpGoTo": Skill(_take_then_reach, _LONG, "pick up a thing, then go to another"),
    "OpenGoTo": Skill(_open_then_reach, _LONG, "open a door, then go to a thing"),
}


def any_of(skills: Mapping[str, Skill]) -> Skill:
    """The skill that is one of these; the words alone say which."""

    def plan(palette: Palette) -> Plan:
        names = [
            name for name, skill in skills.items() if palette.pairs == "seen" or skill.names_a_pair
        ]
        return skills[palette.choice(names)].plan(palette)

    return Skill(plan, _LONG, "do any of these; the words alone say which")
