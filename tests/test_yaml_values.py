"""Texts and paths are what was written; numbers are decimal; YAML reads the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from generalist.yaml_values import NOT_YAML, annotation_at, parse_setting, parse_yaml, split_key

# What YAML 1.1 takes for a date, a number, a boolean or nothing.
PLAIN = ["2024-01-01", "2024-13-45", "007", "1e3", "1_000", "0x10", "1:30", "yes", "No", "on",
         "null", "Null", "~", ".inf", "true", "1.5"]  # fmt: skip
# What it cuts off as a comment, takes for something else, or refuses.
ODD = ["seed #2", "a: b", "- a", "*a", "&a", "!x", "@a", "%a", "'", '"', "{a", "[a", "", " a "]


class Part(BaseModel):
    name: str
    count: int = 0


class Model(BaseModel):
    text: str
    path: Path | None
    paths: str | Path | list[str | Path]
    kind: Literal["auto", "no"]
    number: float | dict[str, float] | None
    flag: bool | None
    part: Part
    parts: dict[str, Part]
    anything: dict[str, Any]


@given(st.text() | st.sampled_from(PLAIN + ODD))
def test_a_text_on_the_command_line_is_all_that_stands_there(text):
    for wanted in (str, Path, Literal["auto", "no"], dict | str):
        assert parse_setting(text, wanted) == text
    assert parse_setting(text, str | None) == (None if text == "null" else text)


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_text_in_a_file_is_what_is_written(text):
    assert parse_yaml(f"text: {text}\npath: {text}x", Model) == {"text": text, "path": f"{text}x"}


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_quoted_text_in_a_file_is_that_text(text):
    file = yaml.safe_dump({"text": text, "part": {"name": text}}, allow_unicode=True)
    assert parse_yaml(file, Model) == {"text": text, "part": {"name": text}}


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("[2024-01-01, 7]", str | list[str], ["2024-01-01", "7"]),
        ("[a]", str, "[a]"),
        ("010", int, "010"),
        ("yes", int, "yes"),
        ("yes", bool, True),
        ("1:30", float | None, "1:30"),
        ("null", float | None, None),
        ("{a: 010}", float | dict[str, float], {"a": "010"}),
        ("{a: 010}", dict[str, Any], {"a": 8}),
        ("{name: 7, count: 3}", Part, {"name": "7", "count": 3}),
        ("{x: {name: no}}", dict[str, Part], {"x": {"name": "no"}}),
        ("2024-01-01", Any, yaml.safe_load("2024-01-01")),
    ],
)
def test_what_a_setting_is_follows_from_what_is_wanted(text, wanted, value):
    assert parse_setting(text, wanted) == value


def test_nothing_is_nothing_where_that_is_allowed():
    assert parse_yaml("path: ~\ntext: ~\nflag:\n", Model) == {
        "path": None, "text": "~", "flag": None,
    }  # fmt: skip


def test_anchors_and_merges_are_followed():
    text = "part: &p {name: 7}\nparts: {a: {<<: *p, count: 2}, b: *p}\n"
    assert parse_yaml(text, Model) == {
        "part": {"name": "7"},
        "parts": {"a": {"name": "7", "count": 2}, "b": {"name": "7"}},
    }


@pytest.mark.parametrize("text", ["a: [", "number: 2024-13-45", "anything: &a [*a", "[" * 5000])
def test_what_is_no_yaml_is_told_by_one_kind_of_error(text):
    with pytest.raises(NOT_YAML):
        parse_yaml(text, Model)


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("part.name", ["part", "name"]),
        ("number.dmc/a.b-c", ["number", "dmc/a.b-c"]),
        ("parts.gym/A.b.count", ["parts", "gym/A.b", "count"]),
        ("parts.gym/A.b", ["parts", "gym/A.b"]),
        ("anything.a.b", ["anything", "a.b"]),
        ("no.such.key", ["no", "such", "key"]),
    ],
)
def test_keys_are_split_at_dots_but_not_within_names(key, parts):
    assert split_key(key, Model) == parts


def test_what_a_key_wants():
    assert annotation_at(Model, ["part", "count"]) is int
    assert annotation_at(Model, ["parts", "gym/A", "name"]) is str
    assert annotation_at(Model, ["no", "such"]) is Any
