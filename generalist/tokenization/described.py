"""The parts of a layout in words, for cards."""

from __future__ import annotations

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
