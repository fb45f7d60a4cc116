"""The notebooks of docs/notebooks: `python -m tests.notebooks` runs them and stores their outputs.

A notebook runs in a folder of its own, with the environment of this Python as its kernel, the
examples on its path, and no network. `CHANGED` makes the runs of the tests short.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "notebooks"
CHANGED = {"MINUTES = 3": "MINUTES = 0.05", "EPISODES = 200": "EPISODES = 6"}
TIMEOUT_SECONDS = 900


def notebooks() -> list[Path]:
    """All notebooks, in order."""
    return sorted(FOLDER.glob("*.ipynb"))


class _ThisPython(AsyncKernelManager):
    """A kernel of the Python that runs this, whatever kernels are installed for the user."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def executed(path: Path, folder: Path, changes: Mapping[str, str]) -> Any:
    """A notebook after it ran in `folder`, with texts of its cells replaced.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
    paths = [str(ROOT), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")]
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
        "PYTHONWARNINGS": "ignore",
        "TQDM_DISABLE": "1",
    }
    client = NotebookClient(
        notebook, timeout=TIMEOUT_SECONDS, kernel_manager_class=_ThisPython,
        resources={"metadata": {"path": str(folder)}}, record_timing=False,
    )  # fmt: skip
    client.execute(env={**os.environ, **settings})
    return notebook


def store(path: Path) -> None:
    """Run a notebook and write its outputs into it, without what differs from run to run."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(path, Path(folder), {})
        for cell in notebook.cells:
            if "outputs" in cell:  # warnings and bars of libraries
                cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        text = text.replace(str(Path(folder).resolve()), ".").replace(folder, ".")
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for each in notebooks():
        print(each.name, flush=True)
        store(each)
