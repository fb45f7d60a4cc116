"""YAML as a typed model wants it: a key of text takes the text, whatever YAML would make of it.

YAML 1.1 reads 2024-01-01 as a date, 010 as 8, 1:30 as 90, yes as true and null as nothing. Where a
model wants a text or a path, that is what the user wrote; and a number is a decimal number.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

if TYPE_CHECKING:
    from pydantic import BaseModel

NULL_TAG, BOOL_TAG = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"
# A date that no calendar has is a ValueError, and lists in lists without end a RecursionError.
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


def parse_yaml(text: str, wanted: Any) -> Any:
    """What YAML text says where `wanted`, an annotation such as a pydantic model, is expected.

    Raises one of NOT_YAML where it is not YAML.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node, [wanted])
    finally:
        loader.dispose()


def parse_setting(text: str, wanted: Any) -> Any:
    """The value of a single setting that stands on the command line, as `parse_yaml` gives it.

    A text or a path is all that stands there. `null` alone is nothing, where that is allowed, and
    [...] a list, where one is.
    """
    alternatives = list(_alternatives([wanted]))
    if not _wants_text(alternatives):
        return parse_yaml(text, wanted)
    if text == "null" and type(None) in alternatives:
        return None
    if text.startswith("[") and text.endswith("]") and _elements(alternatives, list):
        return parse_yaml(text, wanted)
    return text


def split_key(key: str, model: type[BaseModel]) -> list[str]:
    """Parts of a dotted key of a model; names in a mapping, such as of tasks, may hold dots."""
    parts: list[str] = []
    wanted: list[Any] = [model]
    while key:
        names = _elements(_alternatives(wanted), dict)
        if not names or _models(wanted):
            part, _, key = key.partition(".")
        else:
            # A mapping of models: what follows the last dot may be one of their keys.
            part, _, last = key.rpartition(".")
            known = {field for each in _models(names) for field in each.model_fields}
            part, key = (part, last) if part and last in known else (key, "")
        parts.append(part)
        wanted = _below(wanted, part)
    return parts


def annotation_at(model: type[BaseModel], keys: Sequence[str]) -> Any:
    """The annotation of what stands below a key of a model; Any where there is no such key."""
    wanted: list[Any] = [model]
    for key in keys:
        wanted = _below(wanted, key)
    return typing.Union[tuple(wanted)] if wanted else Any  # noqa: UP007  # of a number of them


def expand_home(value: str) -> str:
    """A path or a name with the home folder in place of a leading `~` or `~user`."""
    return os.path.expanduser(value)


def _construct(loader: yaml.SafeLoader, node: yaml.Node, wanted: Sequence[Any]) -> Any:
    """A node as YAML reads it, but for texts."""
    alternatives = list(_alternatives(wanted))
    if isinstance(node, yaml.ScalarNode):
        if node.tag == NULL_TAG and type(None) in alternatives:
            return None
        as_written = _wants_text(alternatives) or _is_misread(node, alternatives)
        return node.value if as_written else loader.construct_object(node)
    if isinstance(node, yaml.SequenceNode) and (elements := _elements(alternatives, list)):
        return [_construct(loader, child, elements) for child in node.value]
    keyed = _models(alternatives) or _elements(alternatives, dict)
    if isinstance(node, yaml.MappingNode) and keyed:
        loader.flatten_mapping(node)  # merges what `<<` names
        if all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            return {
                key.value: _construct(loader, child, _below(alternatives, key.value))
                for key, child in node.value
            }
    return loader.construct_object(node, deep=True)


def _alternatives(wanted: Sequence[Any]) -> Iterator[Any]:
    """The types that annotations allow, out of their unions and without what is added to them."""
    for annotation in wanted:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            yield from _alternatives(typing.get_args(annotation)[:1])
        elif origin in (typing.Union, types.UnionType):
            yield from _alternatives(typing.get_args(annotation))
        else:
            yield annotation


def _wants_text(alternatives: Sequence[Any]) -> bool:
    """Whether a scalar is a text here, and nothing that YAML would read out of it."""
    texts = [each for each in alternatives if each in (str, Path) or _is_of_words(each)]
    return bool(texts) and not any(each in (bool, int, float, Any) for each in alternatives)


def _is_misread(node: yaml.ScalarNode, alternatives: Sequence[Any]) -> bool:
    """Whether a decimal number is wanted, and YAML would find another one in what is written."""
    number = any(each in (int, float) for each in alternatives) and bool not in alternatives
    return number and (node.tag == BOOL_TAG or bool(re.match(r"[-+]?0[\d_]|.*:", node.value)))


def _is_of_words(annotation: Any) -> bool:
    words = typing.get_args(annotation)
    return typing.get_origin(annotation) is Literal and all(isinstance(w, str) for w in words)


def _elements(alternatives: Any, container: type[list] | type[dict]) -> list[Any]:
    """Annotations of the elements of the lists, or of the values of the mappings, among types."""
    origins = (dict, Mapping) if container is dict else (list, tuple, Sequence)
    found: list[Any] = []
    for each in alternatives:
        if typing.get_origin(each) in origins:
            arguments = [argument for argument in typing.get_args(each) if argument is not ...]
            found += arguments[1:] if container is dict else arguments
    return found


def _models(alternatives: Any) -> list[type[BaseModel]]:
    return [each for each in _alternatives(alternatives) if hasattr(each, "model_fields")]


def _below(wanted: Sequence[Any], key: str) -> list[Any]:
    """Annotations of what stands under a key of any of these."""
    alternatives = list(_alternatives(wanted))
    models = [model for model in _models(alternatives) if key in model.model_fields]
    fields = [model.model_fields[key].annotation for model in models]
    return fields + _elements(alternatives, dict)
