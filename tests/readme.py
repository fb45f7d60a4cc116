"""The code blocks of README.md, with what the comment above each says about running it.

    <!-- test: fast -->                            runs with `make test`
    <!-- test: slow -->                            runs with `make test-slow`
    <!-- test: slow; "--steps 900" -> "--steps 9" -->  with one text replaced
    <!-- test: make -->                            runs in a bare clone, with `make test-slow`

Blocks of one README run top to bottom in one folder, so that a later one finds what an earlier
one wrote. `console` and `text` blocks do not run; every other block must have its comment.

`python -m tests.readme` brings the file tree in docs/files.md up to date.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TREE = ROOT / "docs" / "files.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- test: (\w+)((?:; \"[^\"]*\" -> \"[^\"]*\")*) -->\n\Z")
_REPLACEMENT = re.compile(r"; \"([^\"]*)\" -> \"([^\"]*)\"")

SPEEDS = ("fast", "slow", "make")
NOT_RUN = ("console", "text")
TREE_START = "generalist/\n"
_DESCRIPTION_COLUMN = 32


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


def tree_of(text: str) -> dict[str, str]:
    """Path to description, from the lines of the file tree (two spaces a level)."""
    found: dict[str, str] = {}
    parents: list[str] = []
    for line in text.splitlines():
        name, _, description = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], name.rstrip("/")]
        found["/".join(parents)] = description.strip()
    return found


def shown_tree() -> Block:
    """The block of docs/files.md that holds the file tree."""
    (block,) = (block for block in blocks(TREE) if block.text.startswith(TREE_START))
    return block


def package_paths() -> Iterator[Path]:
    """Every module and every folder of the package, folders after the files beside them."""

    def walk(folder: Path) -> Iterator[Path]:
        yield folder
        for path in sorted(folder.glob("*.py")):
            if path.stem not in ("__init__", "__main__"):
                yield path
        for path in sorted(folder.iterdir()):
            if (path / "__init__.py").exists():
                yield from walk(path)

    for path in walk(ROOT / "generalist"):
        yield path.relative_to(ROOT)


def write_tree() -> None:
    """Rewrite the tree in docs/files.md: new modules with their docstring, the rest as it was."""
    old = tree_of(shown_tree().text)
    lines = []
    for path in package_paths():
        lines.append(_line(path, old.get(str(path)) or _docstring(ROOT / path)))
    for name, description in old.items():
        if not name.startswith("generalist") and (ROOT / name).exists():
            lines.append(_line(Path(name), description))
    text = TREE.read_text(encoding="utf-8")
    TREE.write_text(text.replace(shown_tree().text, "\n".join(lines) + "\n"), encoding="utf-8")


def _line(path: Path, description: str) -> str:
    name = "  " * (len(path.parts) - 1) + path.name + ("/" if (ROOT / path).is_dir() else "")
    if path == Path("generalist"):
        return name
    return f"{name:<{_DESCRIPTION_COLUMN}}{description}".rstrip()


def _docstring(path: Path) -> str:
    source = path / "__init__.py" if path.is_dir() else path
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0].rstrip(".")


if __name__ == "__main__":
    write_tree()
