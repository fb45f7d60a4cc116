"""Layouts in words, for cards and errors."""

from __future__ import annotations

from dataclasses import fields

from generalist.tokenization.layout import Layout, Role


def parts_in_words(layout: Layout, role: Role) -> str:
    """Name, shape, data type and tokens of each part of a role; documents choose their text."""
    if layout.is_document:
        return "text" if role == "action" else ""
    said = []
    for part in layout.parts_of(role):
        shape = " x ".join(map(str, part.codec.shape))
        kind = f"{part.codec.dtype} {shape}".strip()
        tokens = f"{part.tokens} token{'s' if part.tokens > 1 else ''}"
        said.append(f"`{part.name}`: {kind}, {tokens}")
    return "; ".join(said)


def difference_in_words(one: Layout, other: Layout) -> str:
    """The first part in which two layouts differ, and how; they are not equal."""
    assert one != other
    for ours, theirs in zip(one.parts, other.parts, strict=False):
        if ours == theirs:
            continue
        if ours.name != theirs.name:
            return f"one has {ours.name} where the other has {theirs.name}"
        if type(ours.codec) is not type(theirs.codec) or ours.start != theirs.start:
            return f"{ours.name} is coded in another way"
        names = [field.name for field in fields(ours.codec)]
        differ = [
            name for name in names if getattr(ours.codec, name) != getattr(theirs.codec, name)
        ]
        return f"{ours.name} has another {' and another '.join(differ)}"
    return "one has more parts than the other"
