"""The list of faults that were found once: each has a test that is there, or a reason."""

from __future__ import annotations

import ast

import pytest
import yaml

from tests.readme import ROOT

FAULTS = yaml.safe_load((ROOT / "tests" / "faults.yaml").read_text(encoding="utf-8"))


def test_every_row_is_in_the_list():
    wanted = {f"A{n}" for n in range(1, 24)} | {f"B{n}" for n in range(1, 17)} | {"D", "E"}
    assert wanted <= FAULTS.keys()
    assert len([name for name in FAULTS if name.startswith("C-")]) == 15


@pytest.mark.parametrize("name", FAULTS)
def test_its_tests_are_there_or_a_reason_is(name: str):
    fault = FAULTS[name]
    assert fault["right"] and (fault["tests"] or fault["reason"])
    for each in fault["tests"]:
        file, _, function = each.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function in names or (not function and any(n.startswith("test_") for n in names))
