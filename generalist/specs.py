"""Spec names such as `quickstart` to files, the same from a clone and from an installed wheel.

Specs live in top-level folders (`datasets/`, `recipes/`, `tokenizers/`, `checkpoints/`); the wheel
carries copies under `generalist/_specs/`. A YAML file becomes a typed model that knows its keys.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from generalist.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    Model = TypeVar("Model", bound=BaseModel)

_PACKAGE = Path(__file__).resolve().parent
_SUFFIXES = (".yaml", ".yml", ".json")
_FOLDERS = ("tokenizers", "checkpoints")  # kinds whose specs are folders


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
    """Names of the specs of a kind: files without their suffix, or folders."""
    folder = spec_folder(kind)
    if kind in _FOLDERS:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    return sorted(path.stem for path in folder.iterdir() if path.suffix in _SUFFIXES)


def find_spec(kind: str, name_or_path: str | Path) -> Path:
    """The file (for tokenizers and checkpoints: folder) of a spec given by name or by path.

    A path that exists wins over a name.

    Raises:
        UsageError: there is none; the known names are told.
    """
    given = Path(name_or_path).expanduser()
    # A bare name must not be taken by a folder of that name that happens to stand nearby.
    if given.is_file() or (given.is_dir() and (given.is_absolute() or len(given.parts) > 1)):
        return given
    folder = spec_folder(kind)
    for candidate in (folder / given, *(folder / f"{given}{suffix}" for suffix in _SUFFIXES)):
        if candidate.is_file() or (kind in _FOLDERS and candidate.is_dir()):
            return candidate
    known = list_specs(kind)
    hint = f"did you mean {near!r}? " if (near := nearest(str(given), known)) else ""
    raise UsageError(
        f"There is no file {str(given)!r} and no {kind.rstrip('s')} of that name; "
        f"{hint}Known: {', '.join(known) or 'none'}."
    )


def shipped_checkpoint(name: str | Path) -> Path | None:
    """The folder of a checkpoint that ships with the package; None where no such one ships."""
    given = str(name)
    return spec_folder("checkpoints") / given if given in list_specs("checkpoints") else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, if any is like it."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def read_yaml(path: str | Path, model: type[BaseModel] | None = None) -> dict[str, Any]:
    """A YAML mapping.

    Args:
        path: the file.
        model: whose keys of text and paths take what is written, such as 2024-01-01, 007 or yes.

    Raises:
        UsageError: the file is missing, not YAML, or not a mapping.
    """
    import yaml

    from generalist.yaml_values import NOT_YAML, parse_yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        data = yaml.safe_load(text) if model is None else parse_yaml(text, model)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except NOT_YAML as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not valid YAML: {reason}.") from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise UsageError(f"{path} must hold keys and values, got a {type(data).__name__}.")
    return data


def load_yaml(path: str | Path, model: type[Model]) -> Model:
    """Read a YAML file into a pydantic model; errors name the file and the key at fault."""
    return validate_data(read_yaml(path, model), model, str(path))


def validate_data(data: dict[str, Any], model: type[Model], source: str) -> Model:
    """A pydantic model of `data`; UsageError with `source`, the dotted key and the nearest key."""
    import pydantic

    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        sentences = "; ".join(_sentences(error.errors(), data, model))
        raise UsageError(f"{source}: {sentences}.") from None


# What pydantic expected, by the beginning of its name for the error.
_EXPECTED = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_": "text",
    "path_": "a path",
    "list_": "a list",
    "tuple_": "a list",
    "dict_": "keys and values",
    "model_": "keys and values",
    "greater_than_equal": "{ge} or more",
    "greater_than": "a number greater than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "a number less than {lt}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "literal_error": "{expected}",
}


def _sentences(problems: Sequence[Any], data: Any, model: type[BaseModel]) -> Iterator[str]:
    """Pydantic's errors in words, one for each key."""
    by_key: dict[tuple[Any, ...], list[Any]] = {}
    for problem in problems:
        by_key.setdefault(_key_of(problem, data), []).append(problem)
    for key, mine in by_key.items():
        # Of alternatives that a key allows, the one that was meant is the one that fits furthest.
        if not any(other[: len(key)] == key for other in by_key if other != key):
            yield _sentence(key, mine, model)


def _key_of(problem: Any, data: Any) -> tuple[Any, ...]:
    """The place of an error in the data; pydantic's also names alternatives that a key allows."""
    key: list[Any] = []
    for step in problem["loc"]:
        at_hand = step in data if isinstance(data, dict) else _is_index(step, data)
        if at_hand:
            data = data[step]
            key.append(step)
    return (*key, problem["loc"][-1]) if problem["type"] == "missing" else tuple(key)


def _is_index(step: Any, data: Any) -> bool:
    return isinstance(data, list) and isinstance(step, int) and step < len(data)


def _sentence(key: tuple[Any, ...], problems: Sequence[Any], model: type[BaseModel]) -> str:
    """The errors of one key in words."""
    name = ".".join(map(str, key)) or "the whole file"
    first = problems[0]
    if first["type"] == "extra_forbidden":
        known = sorted(_keys_at(model, key[:-1]))
        near = nearest(str(key[-1]), known)
        hint = f"did you mean {near!r}?" if near else "known keys: " + ", ".join(known)
        return f"unknown key {name} ({hint})"
    if first["type"] == "missing":
        return f"the key {name} is missing"
    given, subject = first["input"], name
    if not isinstance(given, (dict, list)) and key:
        subject = f"{name} is {given!r}"
    if first["type"] == "value_error":
        return f"{subject}: {str(first['ctx']['error']).rstrip('.')}"
    return f"{subject}, expected {' or '.join(dict.fromkeys(map(_expected, problems)))}"


def _expected(problem: Any) -> str:
    for kind, words in _EXPECTED.items():
        if problem["type"].startswith(kind):
            numbers = problem.get("ctx", {})
            return words.format(**{k: int(v) if v == 0 else v for k, v in numbers.items()})
    return problem["msg"].removeprefix("Input should be ").rstrip(".")


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
