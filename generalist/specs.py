"""Spec names such as `quickstart` to files, the same from a clone and from an installed wheel.

Specs live in top-level folders (`datasets/`, `recipes/`, `tokenizers/`); the wheel carries copies
under `generalist/_specs/`. A YAML file becomes a typed model that knows its keys.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from generalist.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    Model = TypeVar("Model", bound=BaseModel)

_PACKAGE = Path(__file__).resolve().parent
_SUFFIXES = (".yaml", ".yml", ".json")


def spec_folder(kind: str) -> Path:
    """The folder of all specs of a kind: the clone's own, or the copy in the package.

    `kind` may be nested: `recipes/accelerate`, or `accelerate` for short.
    """
    clone = _PACKAGE.parent
    roots = [clone] if (clone / "pyproject.toml").is_file() else []
    for root in [*roots, _PACKAGE / "_specs"]:
        for folder in (root / kind, root / "recipes" / kind):
            if folder.is_dir():
                return folder
    raise UsageError(f"This installation of generalist has no folder of {kind}.")


def list_specs(kind: str) -> list[str]:
    """Names of the specs of a kind: files without their suffix, and folders with a tokenizer."""
    folder = spec_folder(kind)
    if kind == "tokenizers":
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    return sorted(path.stem for path in folder.iterdir() if path.suffix in _SUFFIXES)


def find_spec(kind: str, name_or_path: str | Path) -> Path:
    """The file (for tokenizers: folder) of a spec given by name or by path.

    A path that exists wins over a name. Raises UsageError that lists the known names.
    """
    given = Path(name_or_path)
    # A bare name must not be taken by a folder of that name that happens to stand nearby.
    if given.is_file() or (given.is_dir() and (given.is_absolute() or len(given.parts) > 1)):
        return given
    folder = spec_folder(kind)
    for candidate in (folder / given, *(folder / f"{given}{suffix}" for suffix in _SUFFIXES)):
        if candidate.is_file() or (kind == "tokenizers" and candidate.is_dir()):
            return candidate
    known = list_specs(kind)
    hint = f"did you mean {near!r}? " if (near := nearest(str(given), known)) else ""
    raise UsageError(
        f"There is no file {str(given)!r} and no {kind.rstrip('s')} of that name; "
        f"{hint}Known: {', '.join(known) or 'none'}."
    )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, if any is like it."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping; UsageError where the file is missing, not YAML, or not a mapping."""
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not valid YAML: {reason}.") from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise UsageError(f"{path} must hold keys and values, got a {type(data).__name__}.")
    return data


def load_yaml(path: str | Path, model: type[Model]) -> Model:
    """Read a YAML file into a pydantic model; errors name the file and the key at fault."""
    return validate_data(read_yaml(path), model, str(path))


def validate_data(data: dict[str, Any], model: type[Model], source: str) -> Model:
    """A pydantic model of `data`; UsageError with `source`, the dotted key and the nearest key."""
    import pydantic

    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        problems = [_sentence(problem, model) for problem in error.errors()]
        raise UsageError(f"{source}: {'; '.join(problems)}.") from None


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    """One pydantic error in words."""
    where = tuple(problem["loc"])
    key = ".".join(map(str, where)) or "the whole file"
    if problem["type"] == "extra_forbidden":
        known = sorted(_keys_at(model, where[:-1]))
        near = nearest(str(where[-1]), known)
        hint = f"did you mean {near!r}?" if near else "known keys: " + ", ".join(known)
        return f"unknown key {key} ({hint})"
    if problem["type"] == "missing":
        return f"the key {key} is missing"
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    given = problem["input"]
    if isinstance(given, (str, int, float, bool)) or given is None:
        return f"{key} is {given!r}: {message}"
    return f"{key}: {message}"


def _keys_at(model: type[BaseModel], where: tuple[Any, ...]) -> set[str]:
    """The keys a model knows at a path, through lists, options and unions."""
    models = {model}
    for step in where:
        if isinstance(step, int):
            continue  # an index: the annotation before it already gave the element's models
        annotations = [m.model_fields[step].annotation for m in models if step in m.model_fields]
        found = {inner for annotation in annotations for inner in _models_in(annotation)}
        models = found or models  # a union's tag names no field: stay
    return {name for m in models for name in m.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    import typing

    import pydantic

    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)
