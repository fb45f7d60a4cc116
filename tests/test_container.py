"""The Dockerfile as tests/container.py reads it; `python -m tests.container` runs it."""

from __future__ import annotations

import re

import pytest

from tests.container import BASE, Step, environment_of, read_dockerfile
from tests.readme import ROOT

TARGETS = read_dockerfile((ROOT / "Dockerfile").read_text(encoding="utf-8"))


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_every_step_of_a_target_is_one_that_is_run(target: str):
    steps = TARGETS[target]
    assert steps[0] == Step("FROM", BASE)
    known = {"FROM", "RUN", "ENV", "ARG", "WORKDIR", "COPY", "CMD"}
    assert {step.instruction for step in steps} <= known
    runs = [step.text for step in steps if step.instruction == "RUN"]
    assert "apt-get install" in runs[0] and runs[-1] == "make install"
    assert (len(runs) == 3) == (target == "cuda")  # its compiler


def test_lines_that_go_on_are_one_step_and_comments_none():
    targets = read_dockerfile(
        "# a\nFROM x AS base\nRUN one \\\n    && two\n\nFROM base AS y\nENV A=1 \n"
    )
    assert targets["base"] == [Step("FROM", "x"), Step("RUN", "one && two")]
    assert targets["y"] == [*targets["base"], Step("ENV", "A=1")]


def test_variables_are_put_in_from_what_stands_before():
    step = Step("ENV", "A=${B} C=$B-d E='x y'")
    assert environment_of(step, {"B": "1"}) == {"A": "1", "C": "1-d", "E": "x y"}


def test_the_image_has_the_python_that_the_root_is_given():
    version = re.fullmatch(r"python:(3\.\d+)-slim-bookworm", BASE)
    assert version and f"FROM {BASE} AS base" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
