"""Instructions in words: templates with synonyms, a share of which training never sees.

A clause is said by a template of its verb. `seen` draws from what training says. `paraphrases`
draws sentences that training never says, made of words that it says. `synonyms` has words that it
never says, for verbs and for things.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from generalist.envs.scene import Thing

Words = Literal["seen", "paraphrases", "synonyms"]
WORDS = ("seen", "paraphrases", "synonyms")

NUMBERS = ("one", "two", "three")

# {x} is the thing that is named, {y} the other one of a clause that names two.
_SEEN = {
    "reach": ("go to {x}", "walk to {x}", "get to {x}", "reach {x}", "find {x}", "go and find {x}"),
    "take": ("pick up {x}", "take {x}", "get {x}", "go and get {x}", "grab {x}"),
    "open": ("open {x}", "go and open {x}", "get {x} open", "find {x} and open it"),
    "put": ("put it next to {x}", "put it down by {x}", "leave it next to {x}", "drop it by {x}"),
    "face": ("turn to {x}", "look at {x}", "face {x}", "turn and look at {x}"),
    "leave": ("touch all but {x}", "leave {x} alone and touch the others", "get all but {x}"),
    "left": ("turn left", "turn to the left", "look left"),
    "right": ("turn right", "turn to the right", "look right"),
    "up": ("look up", "look at the ceiling", "turn up"),
    "down": ("look down", "look at the floor", "turn down"),
    "ahead": ("walk ahead", "go ahead", "walk straight on"),
    "back": ("walk back", "go back", "step back"),
    "still": ("stop", "stand still", "do not move"),
    "wall-left": ("follow the wall on your left", "walk along the wall on your left"),
    "wall-right": ("follow the wall on your right", "walk along the wall on your right"),
    "exit": ("find the exit", "leave the room", "go out of the room", "get out"),
    "shoot": ("shoot {x}", "fire at {x}", "find and shoot {x}", "turn to {x} and shoot it"),
    **{n: (f"touch {n} of {{x}}", f"go and touch {n} of {{x}}") for n in NUMBERS},
}
_PARAPHRASES = {
    "reach": ("go and reach {x}", "find and walk to {x}", "walk and get to {x}"),
    "take": ("go and pick up {x}", "find {x} and take it", "go to {x} and pick it up"),
    "open": ("go to {x} and open it", "walk to {x} and get it open"),
    "put": ("leave it by {x}", "put it by {x}", "drop it next to {x}"),
    "face": ("turn and face {x}", "find {x} and look at it"),
    "leave": ("leave {x} alone and get the others", "do not touch {x} but get the others"),
    "left": ("turn and look left", "look to the left"),
    "right": ("turn and look right", "look to the right"),
    "up": ("look up at the ceiling", "turn up to the ceiling"),
    "down": ("look down at the floor", "turn down to the floor"),
    "ahead": ("go straight on", "walk on ahead"),
    "back": ("step back and go back", "go and walk back"),
    "still": ("stop and stand still", "stand still and do not move"),
    "wall-left": ("go along the wall on your left", "walk and follow the wall to your left"),
    "wall-right": ("go along the wall on your right", "walk and follow the wall to your right"),
    "exit": ("go and find the exit", "get out of the room", "find the exit and go out"),
    "shoot": ("turn and fire at {x}", "find {x} and shoot it", "look at {x} and fire"),
    **{n: (f"find {n} of {{x}} and touch all {n}", f"get to {n} of {{x}}") for n in NUMBERS},
}
_SYNONYMS = {
    "reach": ("head for {x}", "approach {x}", "move over to {x}"),
    "take": ("collect {x}", "lift {x}", "fetch {x}"),
    "open": ("unlock {x}", "swing {x} wide"),
    "put": ("set it beside {x}", "place it near {x}"),
    "face": ("point yourself at {x}", "watch {x}"),
    "leave": ("visit everything except {x}", "ignore {x} but visit the rest"),
    "left": ("rotate anticlockwise", "swing round leftwards"),
    "right": ("rotate clockwise", "swing round rightwards"),
    "up": ("raise your eyes", "gaze upwards"),
    "down": ("lower your eyes", "gaze downwards"),
    "ahead": ("advance", "move forward"),
    "back": ("retreat", "move backwards"),
    "still": ("wait", "freeze", "remain where you are"),
    "wall-left": ("hug the wall to your left", "keep beside the wall on your left"),
    "wall-right": ("hug the wall to your right", "keep beside the wall on your right"),
    "exit": ("escape from here", "depart", "make your way outside"),
    "shoot": ("blast {x}", "put a bullet into {x}", "gun down {x}"),
    **{n: (f"tag {n} of {{x}}", f"visit exactly {n} of {{x}}") for n in NUMBERS},
}
_TEMPLATES = {"seen": _SEEN, "paraphrases": _PARAPHRASES, "synonyms": _SYNONYMS}
_KINDS = {
    "ball": ("ball", "ball", "round thing"),
    "box": ("box", "box", "cube"),
    "column": ("column", "column", "post"),
    "key": ("key",),
    "torch": ("torch", "torch", "lamp"),
    "card": ("card", "card", "key card"),
    "skull": ("skull",),
    "door": ("door", "door", "gate"),
    "soldier": ("soldier",),
    "imp": ("imp",),
    "demon": ("demon",),
    "thing": ("thing",),
    "things": ("things",),
}
_OTHER_KINDS = {
    "ball": ("sphere", "globe"),
    "box": ("crate", "block"),
    "column": ("pillar", "pole"),
    "torch": ("light", "burner"),
    "card": ("pass", "badge"),
    "door": ("entrance", "doorway"),
    "soldier": ("trooper", "guard"),
    "imp": ("goblin",),
    "demon": ("fiend", "beast"),
    "thing": ("object", "item"),
    "things": ("objects", "items"),
}
_THEN = {
    "seen": ("{a}, then {b}", "{a} and then {b}", "first {a}, then {b}"),
    "paraphrases": ("first {a} and then {b}", "then {b}, but first {a}"),
    "synonyms": ("{a}, after that {b}", "{a} and afterwards {b}"),
}
_SIZES = {"big": ("big", "large"), "small": ("small", "little")}
_OTHER_SIZES = {"big": ("huge",), "small": ("tiny",)}


def say(clauses: Sequence[tuple[str, Thing | None]], words: Words, rng: np.random.Generator) -> str:
    """One instruction for one clause or two.

    Args:
        clauses: the verb of each, a key of the templates, and the thing that it names.
        words: from which part of the language.
        rng: draws.
    """
    said = [_clause(verb, thing, words, rng) for verb, thing in clauses]
    if len(said) == 1:
        return said[0]
    return _draw(_THEN[words], rng).format(a=said[0], b=said[1])


def _clause(verb: str, thing: Thing | None, words: Words, rng: np.random.Generator) -> str:
    template = _draw(_TEMPLATES[words][verb], rng)
    return template if thing is None else template.format(x=_noun(thing, words, rng))


def _noun(thing: Thing, words: Words, rng: np.random.Generator) -> str:
    """Such as `the big red box`; what is left empty of a thing is not said."""
    new = words == "synonyms"
    kinds = (_OTHER_KINDS if new else {}).get(thing.kind, _KINDS[thing.kind])
    sizes = (_OTHER_SIZES if new else _SIZES).get(thing.size, ("",))
    return " ".join(filter(None, ["the", _draw(sizes, rng), thing.colour, _draw(kinds, rng)]))


def _draw(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
