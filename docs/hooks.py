"""The pages of the site that are made when it is built, so that they cannot go stale.

reference/commands.md    every command, from typer
reference/recipe.md      every key of a recipe, from pydantic; also dataset, selfplay and suite.md
results.md               benchmarks/RESULTS.md
changelog.md             CHANGELOG.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
COPIED = {"results.md": "benchmarks/RESULTS.md", "changelog.md": "CHANGELOG.md"}


def generated_pages() -> dict[str, str]:
    """The text of each page by its path in docs/."""
    from generalist.evaluation.suite import Suite
    from generalist.training.recipe import Recipe
    from generalist.training.selfplay.recipe import SelfplayRecipe
    from generalist.windows.spec import DatasetSpec

    return {
        "reference/commands.md": commands_page(),
        "reference/recipe.md": model_page(
            Recipe,
            "Recipe keys",
            "A recipe is a YAML file that says how to train. `generalist train NAME KEY=VALUE` "
            "changes single keys. An unknown key is an error that names the nearest known one.",
        ),
        "reference/dataset.md": model_page(
            DatasetSpec,
            "Dataset keys",
            "A dataset spec is a YAML file that says what `generalist collect` plays.",
        ),
        "reference/selfplay.md": model_page(
            SelfplayRecipe,
            "Self-play keys",
            "A recipe of self-play is a YAML file that says which boards `generalist selfplay` "
            "plays, and how it learns from the games.",
        ),
        "reference/suite.md": model_page(
            Suite,
            "Suite keys",
            "A suite is a YAML file that says what `generalist evaluate` measures.",
        ),
        **{page: copied_page(ROOT / file) for page, file in COPIED.items()},
    }


def copied_page(file: Path) -> str:
    """A file from outside docs/ as a page; its links into docs/ are links between pages."""
    text = file.read_text(encoding="utf-8")
    return text.replace("](../docs/", "](").replace("](docs/", "](")


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs: add the generated pages to those of docs/."""
    from mkdocs.structure.files import File

    for page, text in generated_pages().items():
        files.append(File.generated(config, page, content=text))
    return files


# Commands


def commands_page() -> str:
    """Every command of the command line, with its arguments and options."""
    from typer.main import get_command

    from generalist.cli.main import app

    lines = [
        "# Commands",
        "",
        "Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted. A failure is one sentence on "
        "stderr; `--debug`, anywhere in a command, adds the traceback.",
        "",
    ]
    for path, command in _commands(get_command(app), ("generalist",)):
        lines += _command(path, command)
    return "\n".join(lines)


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, in their order."""
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield from _commands(each, (*path, name))


def _command(path: tuple[str, ...], command: Any) -> Iterator[str]:
    """The section of a command: how it is written, what it does, what it takes."""
    below = getattr(command, "commands", {})
    arguments = [_written(each) for each in command.params if _is_argument(each)]
    usage = [*path, "[OPTIONS]", *(["COMMAND"] if below else []), *arguments]
    yield from (f"## {' '.join(path)}", "", "```text", " ".join(usage), "```", "")
    yield from (_plain(command.help or ""), "")
    if below:
        yield from ("Commands: " + ", ".join(f"`{name}`" for name in below) + ".", "")
    rows = [_parameter(each) for each in command.params if not getattr(each, "hidden", False)]
    if rows:
        yield from ("| | takes | |", "|---|---|---|")
        yield from ("| " + " | ".join(row) + " |" for row in rows)
        yield ""


def _is_argument(parameter: Any) -> bool:
    return parameter.param_type_name == "argument"


def _written(parameter: Any) -> str:
    """The name of an argument, in capitals; in brackets where it may be left out."""
    name = (parameter.metavar or parameter.name).upper().strip("[]{}.")
    name += "..." if parameter.nargs == -1 else ""
    return name if parameter.required else f"[{name}]"


def _parameter(parameter: Any) -> tuple[str, str, str]:
    """A row: how it is written, what it takes, and what it does."""
    written = [_written(parameter)] if _is_argument(parameter) else parameter.opts
    names = ", ".join(f"`{name}`" for name in [*written, *parameter.secondary_opts])
    said = _plain(parameter.help or "")
    default, shown = parameter.default, parameter.show_default
    if isinstance(shown, str):
        said += f" Default: `{shown}`."
    elif shown and isinstance(default, (str, int, float, Path)) and not isinstance(default, bool):
        said += f" Default: `{getattr(default, 'value', default)}`."
    return names, _takes(parameter), said.replace("|", "\\|").strip()


def _takes(parameter: Any) -> str:
    """What an option or argument takes, in words; nothing for a flag."""
    kind = parameter.type_descriptor.annotation
    if getattr(parameter, "is_flag", False):
        return ""
    if get_origin(kind) is not Literal:  # of a list or an option the type within
        kind = next((each for each in get_args(kind) if each is not type(None)), kind)
    if choices := get_args(kind) or getattr(kind, "__members__", ()):
        return ", ".join(f"`{each}`" for each in choices)
    names = {str: "text", int: "whole number", float: "number", Path: "path"}
    bounds = [(" of at least", parameter.min), (" of at most", parameter.max)]
    return names[kind] + "".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)


def _plain(text: str) -> str:
    """Help text as Markdown: lines joined within paragraphs, without rich's markup."""
    text = re.sub(r"\[/?(?:bold|dim|italic)?\]", "", text)
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


# Models


def model_page(model: type[BaseModel], title: str, introduction: str) -> str:
    """Every key of a model and of the models below it, each in a section of its own."""
    lines = [f"# {title}", "", introduction, ""]
    for path, each in _sections(model, ""):
        if path:
            lines += [f"## {path}", ""]
        lines += [_plain(each.__doc__ or ""), ""]
        lines += ["| key | takes | default | |", "|---|---|---|---|"]
        for name, field in each.model_fields.items():
            lines.append(_row(f"{path}.{name}" if path else name, field))
        lines.append("")
    return "\n".join(lines)


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and those of its fields, with the dotted key that leads to each."""
    yield path, model
    for name, field in model.model_fields.items():
        for below, mark in _models(field.annotation):
            key = f"{path}.{name}{mark}" if path else f"{name}{mark}"
            yield from _sections(below, key)


def _models(annotation: Any, mark: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, mark
    for inner in get_args(annotation):
        kind = {list: "[]", dict: ".TASK"}.get(getattr(annotation, "__origin__", None), mark)
        yield from _models(inner, kind)


def _row(key: str, field: FieldInfo) -> str:
    said = " ".join((field.description or "").split())
    if not said:  # a section says it itself
        said = " ".join(
            (model.__doc__ or "").split("\n\n")[0] for model, _ in _models(field.annotation)
        )
    default = "required" if field.is_required() else _default(field)
    cells = (f"`{key}`", f"`{_kind(field.annotation)}`", default, said)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
        if not value:
            return "those below"
    if value is None or isinstance(value, bool):
        return {None: "`null`", True: "`true`", False: "`false`"}[value]
    shown = str(list(value) if isinstance(value, tuple) else value).replace("'", "")
    return f"`{shown}`"


def _kind(annotation: Any) -> str:
    """A type as a reader of YAML has it."""
    if annotation is type(None):
        return "null"
    arguments = get_args(annotation)
    origin = getattr(annotation, "__origin__", None)
    if type(annotation).__name__ == "_LiteralGenericAlias":
        return " | ".join(map(str, arguments))
    if hasattr(annotation, "__metadata__"):
        return _kind(arguments[0])
    if origin in (list, tuple):
        return "list of " + _kind(arguments[0])
    if origin is dict:
        return "mapping to " + _kind(arguments[1])
    if arguments:
        return " | ".join(dict.fromkeys(map(_kind, arguments)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {"int": "whole number", "float": "number", "str": "text", "bool": "true | false"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, {"Path": "path", "Any": "anything"}.get(name, name))
