"""The skills of instructed tasks in 3D: what stands in a room, and what is asked for.

Each room has things of which only the words say which is meant: another of the same colour, and
another of the same kind, stand beside the one that is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from generalist.envs.mission_words import NUMBERS
from generalist.envs.missions import (
    GESTURES,
    Face,
    FollowWall,
    Gesture,
    Goal,
    LeaveAlone,
    Open,
    PutNext,
    Reach,
    Shoot,
    Stop,
    Take,
    Touch,
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
        foes: pairs of colour and kind of what can be shot.
    """

    pairs: tuple[tuple[str, str], ...]
    held_out: tuple[tuple[str, str], ...]
    radius_of: Callable[[str, str], float]
    portable: tuple[str, ...]
    foes: tuple[tuple[str, str], ...] = ()

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
        things_from_walls: the same of the things.
    """

    things: list[Thing]
    goals: list[Goal]
    clauses: list[Clause]
    agent_from_walls: float = FROM_WALLS
    things_from_walls: float = FROM_WALLS


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

    def like(self, thing: Thing, *, size: str = "", portable: bool = False) -> list[Thing]:
        """One thing of the same colour, and one of the same kind."""
        found = []
        for part, word in enumerate((thing.colour, thing.kind)):
            free = self._free(portable)
            alike = [pair for pair in free if pair[part] == word]
            found.append(self._thing(self._draw(alike or free), size))
        return found

    def others(self, count: int, *, without: str = "") -> list[Thing]:
        """Things that are none of those before, and not of the colour `without`."""
        found = []
        for _ in range(count):
            free = [pair for pair in self._free() if pair[0] != without]
            found.append(self._thing(self._draw(free)))
        return found

    def alike(self, count: int) -> list[Thing]:
        """Things of one colour that can be picked up; some may be of the same kind too."""
        portable = self.kit.allowed("seen", portable=True)
        colour, _ = self._draw(portable)
        mine = [pair for pair in portable if pair[0] == colour]
        return [self._thing(self._draw(mine)) for _ in range(count)]

    def foes(self, others: int) -> list[Thing]:
        """What can be shot: one to be named, one of its colour, one of its kind, and others."""
        first = self._draw(self.kit.foes)
        found = [first]
        for part in (0, 1, *[None] * others):
            free = [pair for pair in self.kit.foes if pair not in found]
            alike = free if part is None else [p for p in free if p[part] == first[part]]
            found.append(self._draw(alike))
        return [self._thing(pair) for pair in found]

    def doors(self, count: int) -> list[Thing]:
        """Doors of different colours."""
        colours, radius = self.kit.colours, self.kit.radius_of("door", "")
        drawn = self.rng.permutation(len(colours))[:count]
        return [Thing(colours[i], "door", radius=radius) for i in drawn]

    def choice(self, options: Sequence[str]) -> str:
        """One of some words."""
        return options[int(self.rng.integers(len(options)))]

    def _free(self, portable: bool = False) -> list[tuple[str, str]]:
        return [pair for pair in self.kit.allowed("seen", portable) if pair not in self._used]

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


def _by_one_word(
    goal: type[Goal], verb: str, word: Literal["colour", "kind"]
) -> Callable[[Palette], Plan]:
    """One goal that names the only thing of a colour, or of a kind."""

    def plan(palette: Palette) -> Plan:
        thing = palette.named(portable=goal is Take)
        things = [thing]
        while len(things) < 4:
            (other,) = palette.others(1)
            if getattr(other, word) not in {getattr(each, word) for each in things}:
                things.append(other)
        said = Thing(thing.colour, "thing") if word == "colour" else Thing("", thing.kind)
        return Plan(things, [goal((thing,))], [(verb, said)])

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
    thing = palette.named(portable=True)
    things = [thing, *palette.like(thing, portable=True)]
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


def _open_then_take(palette: Palette) -> Plan:
    door, *doors = palette.doors(3)
    thing = palette.named(portable=True)
    things = [thing, *palette.like(thing), door, *doors]
    return Plan(things, [Open((door,)), Take((thing,))], [("open", door), ("take", thing)])


def _two(goal: type[Goal], verb: str) -> Callable[[Palette], Plan]:
    """One goal that names a thing, then another thing to go to."""

    def plan(palette: Palette) -> Plan:
        thing = palette.named()
        things = [thing, *palette.like(thing), *palette.others(1)]
        target = things[int(palette.rng.integers(1, len(things)))]
        goals: list[Goal] = [goal((thing,)), Reach((target,))]
        return Plan(things, goals, [(verb, thing), ("reach", target)])

    return plan


def _reach_then_stop(palette: Palette) -> Plan:
    thing = palette.named()
    things = [thing, *palette.like(thing), *palette.others(1)]
    return Plan(things, [Reach((thing,)), Stop()], [("reach", thing), ("still", None)])


def _exit(palette: Palette) -> Plan:
    (door,) = palette.doors(1)
    return Plan([door, *palette.others(3)], [Open((door,))], [("exit", None)])


def _follow_wall(palette: Palette) -> Plan:
    """The things stand in the middle of the room, away from where one walks."""
    side = palette.choice(("left", "right"))
    goals: list[Goal] = [FollowWall(side=side)]
    return Plan(palette.others(2), goals, [(f"wall-{side}", None)], things_from_walls=2.1)


def _count(palette: Palette) -> Plan:
    """Touch so many of three things of a colour, then stop."""
    number = int(palette.rng.integers(len(NUMBERS)))
    alike = palette.alike(len(NUMBERS))
    things = [*alike, *palette.others(2, without=alike[0].colour)]
    goals: list[Goal] = [Touch(tuple(alike), number=number + 1), Stop(tuple(things))]
    said = Thing(alike[0].colour, "things")
    return Plan(things, goals, [(NUMBERS[number], said), ("still", None)])


def _shoot(palette: Palette) -> Plan:
    foes = palette.foes(others=1)
    return Plan(foes, [Shoot((foes[0],))], [("shoot", foes[0])])


def _shoot_then_reach(palette: Palette) -> Plan:
    foes, thing = palette.foes(others=0), palette.named()
    things = [*foes, thing, *palette.like(thing)]
    goals: list[Goal] = [Shoot((foes[0],)), Reach((thing,))]
    return Plan(things, goals, [("shoot", foes[0]), ("reach", thing)])


_ONE_GOAL, _LONG = 60, 120
SKILLS = {
    "GoTo": Skill(_one(Reach, "reach"), _ONE_GOAL, "go to the thing of a colour and kind"),
    "GoToColour": Skill(
        _by_one_word(Reach, "reach", "colour"), _ONE_GOAL, "go to the thing of a colour"
    ),
    "GoToKind": Skill(_by_one_word(Reach, "reach", "kind"), _ONE_GOAL, "go to the thing of a kind"),
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
    "PickUpColour": Skill(
        _by_one_word(Take, "take", "colour"), _ONE_GOAL, "pick up the thing of a colour"
    ),
    "PickUpKind": Skill(
        _by_one_word(Take, "take", "kind"), _ONE_GOAL, "pick up the thing of a kind"
    ),
    "FaceColour": Skill(
        _by_one_word(Face, "face", "colour"), _ONE_GOAL, "look at the thing of a colour"
    ),
    "FaceKind": Skill(_by_one_word(Face, "face", "kind"), _ONE_GOAL, "look at the thing of a kind"),
    "Exit": Skill(_exit, _ONE_GOAL, "find the only door, and open it", False),
    "FollowWall": Skill(
        _follow_wall, _ONE_GOAL, "walk along the walls, on the left or on the right", False
    ),
    "Count": Skill(_count, _LONG, "touch one, two or three things of a colour, then stop", False),
    "GoToStop": Skill(_reach_then_stop, _LONG, "go to a thing, then stop"),
    "GoToGoTo": Skill(_two(Reach, "reach"), _LONG, "go to a thing, then to another"),
    "FaceGoTo": Skill(_two(Face, "face"), _LONG, "look at a thing, then go to another"),
    "OpenPickUp": Skill(_open_then_take, _LONG, "open a door, then pick up a thing"),
}
SHOOTING = {
    "Shoot": Skill(_shoot, _ONE_GOAL, "shoot the foe of a colour and kind", False),
    "ShootGoTo": Skill(_shoot_then_reach, _LONG, "shoot a foe, then go to a thing"),
}
"""The skills of worlds that have foes."""


def any_of(skills: Mapping[str, Skill]) -> Skill:
    """The skill that is one of these; the words alone say which."""

    def plan(palette: Palette) -> Plan:
        names = [
            name for name, skill in skills.items() if palette.pairs == "seen" or skill.names_a_pair
        ]
        return skills[palette.choice(names)].plan(palette)

    return Skill(plan, _LONG, "do any of these; the words alone say which")
