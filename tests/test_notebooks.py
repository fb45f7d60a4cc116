"""The notebooks run from top to bottom, and the outputs that they show are stored in them."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.notebooks import CHANGED, executed, notebooks

NOTEBOOKS = [pytest.param(path, id=path.stem) for path in notebooks()]
MOST_BYTES = 200_000


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell) -> str:
    return "".join(each.get("text", "") for each in cell.outputs)


def test_there_are_three():
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_outputs_are_stored_and_name_no_machine(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= MOST_BYTES
    assert "/tmp/" not in text and "/home/" not in text and "/work/" not in text
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert printed(cells[-1]) and not [
        each for cell in cells for each in cell.outputs if each.output_type == "error"
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS)
def test_it_runs_from_top_to_bottom(path: Path, tmp_path: Path):
    stored = code_cells(nbformat.read(path, as_version=4))
    for cell, before in zip(code_cells(executed(path, tmp_path, CHANGED)), stored, strict=True):
        assert bool(printed(cell)) == bool(printed(before)), cell.source
