"""The code blocks of README.md, with what the comment above each says about running it.

    <!-- test: fast -->                            runs with `make test`
    <!-- test: slow -->                            runs with `make test-slow`
    <!-- test: slow; "--steps 900" -> "--steps 9" -->  with one text replaced

Blocks of one README run top to bottom in one folder, so that a later one finds what an earlier
one wrote. `console` blocks show output and do not run; every other block must have its comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- test: (\w+)((?:; \"[^\"]*\" -> \"[^\"]*\")*) -->\n\Z")
_REPLACEMENT = re.compile(r"; \"([^\"]*)\" -> \"([^\"]*)\"")

SPEEDS = ("fast", "slow", "make")
NOT_RUN = ("console", "text")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, text, first line in the file, and how it is tested."""

    language: str
    text: str
    line: int
    speed: str | None
    replacements: tuple[tuple[str, str], ...] = field(default=())

    @property
    def code(self) -> str:
        """The text as a test runs it."""
        text = self.text
        for old, new in self.replacements:
            if old not in text:
                raise ValueError(f"README line {self.line}: no {old!r} to replace in this block.")
            text = text.replace(old, new)
        return text


def blocks(path: Path) -> list[Block]:
    """Every fenced block of a Markdown file, in order."""
    text = path.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        comment = _COMMENT.search(text[: fence.start()])
        found.append(
            Block(
                language=fence[1],
                text=fence[2],
                line=text.count("\n", 0, fence.start()) + 1,
                speed=comment[1] if comment else None,
                replacements=tuple(_REPLACEMENT.findall(comment[2])) if comment else (),
            )
        )
    return found
