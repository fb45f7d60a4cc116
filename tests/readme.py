"""The code blocks of README.md and docs/, with what the comment above each says about testing it.

    <!-- test: fast -->                            runs with `make test`
    <!-- test: slow -->                            runs with `make test-slow`
    <!-- test: slow; "--steps 900" -> "--steps 9" -->  with one text replaced
    <!-- test: make -->                            runs in a bare clone, with `make test-slow`
    <!-- test: part of examples/courier.py -->     stands word for word in that file
    <!-- test: recipe -->                          is read as a recipe; also `dataset` and `suite`

Blocks of one page run top to bottom in one folder, so that a later one finds what an earlier
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
DOCS = ROOT / "docs"
TREE = DOCS / "files.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- test: (\w+|part of [\w./-]+)((?:; \"[^\"]*\" -> \"[^\"]*\")*) -->\n\Z")
_REPLACEMENT = re.compile(r"; \"([^\"]*)\" -> \"([^\"]*)\"")

SPEEDS = ("fast", "slow", "make")
SPECS = ("recipe", "dataset", "suite")
PART_OF = "part of "
NOT_RUN = ("console", "text")
TREE_START = "generalist/\n"
_DESCRIPTION_COLUMN = 32


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: the file it stands in.
        language: the word behind the opening fence.
        text: what stands between the fences.
        line: its first line in the file.
        test: what its comment says: a speed, a kind of spec, `part of FILE`, or None.
        replacements: texts of the block, and what a test runs in their place.
    """

    page: Path
    language: str
    text: str
    line: int
    test: str | None
    replacements: tuple[tuple[str, str], ...] = field(default=())

    @property
    def where(self) -> str:
        """Page and line, for messages."""
        inside = self.page.is_relative_to(ROOT)
        return f"{self.page.relative_to(ROOT) if inside else self.page.name}:{self.line}"

    @property
    def code(self) -> str:
        """The text as a test runs it; raises ValueError where a replacement finds nothing."""
        text = self.text
        for old, new in self.replacements:
            if old not in text:
                raise ValueError(f"{self.where}: no {old!r} to replace in this block.")
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
                page=path,
                language=fence[1],
                text=fence[2],
                line=text.count("\n", 0, fence.start()) + 1,
                test=comment[1] if comment else None,
                replacements=tuple(_REPLACEMENT.findall(comment[2])) if comment else (),
            )
        )
    return found


def pages() -> list[Path]:
    """README.md and every page of the documentation, the file tree apart."""
    return [README, *sorted(path for path in DOCS.rglob("*.md") if path != TREE)]


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
