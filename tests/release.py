"""Tries the distributions of a folder in bare environments: `python -m tests.release dist`.

First the core alone is installed, by the pins of constraints.txt, and acts with the shipped
checkpoint; what it took is printed. Then come the extras that a page of films needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    ["--version"], ["tasks", "gym"], ["info"], ["recipe", "quickstart"],
    ["rollout", "gym", "CartPole-v1", "--checkpoint", "catalogue", "--episodes", "1"],
)  # fmt: skip
"""What is run with the core alone."""
WATCH_EXTRAS = "video,classic"
WATCH = ["watch", "gym/CartPole-v1", "gym/Pendulum-v1", "--steps", "30", "--out", "watch.html"]
"""What is run with these extras."""


def distributions(folder: Path) -> list[Path]:
    """The wheel and the source distribution in a folder; SystemExit where one is missing."""
    found = [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]
    if len(found) != 2:
        names = ", ".join(path.name for path in found) or "nothing"
        sys.exit(f"{folder} should hold a wheel and a source distribution; it holds {names}.")
    return found


def attempt(distribution: Path, folder: Path, constraints: Path) -> str:
    """Install a distribution into a new environment and run `COMMANDS`; what it took, in words."""
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q"]
    began = time.monotonic()
    _run(*pip, "-c", constraints, distribution, where=folder)
    seconds = time.monotonic() - began
    for arguments in COMMANDS:
        _run(folder / "bin" / "generalist", *arguments, where=folder)
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    _run(*pip, "-c", constraints, f"{distribution}[{WATCH_EXTRAS}]", where=folder)
    _run(folder / "bin" / "generalist", *WATCH, where=folder)
    if not (folder / "watch.html").stat().st_size:
        sys.exit(f"{distribution.name} wrote an empty page.")
    return f"{distribution.name}: the core installed in {seconds:.0f} s, {size / 1e6:.0f} MB in all"


def _run(*command: object, where: Path) -> None:
    print("$", *command, flush=True)
    # A PYTHONPATH of this shell would put other code in the place of what is tried.
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([str(part) for part in command], cwd=where, env=own, check=True)


def main(folder: str) -> None:
    """Try all distributions of a folder."""
    own = ROOT / ".venv" / "constraints.txt"  # with the torch that `make` was told
    constraints = own if own.exists() else ROOT / "constraints.txt"
    for distribution in distributions(Path(folder).resolve()):
        with tempfile.TemporaryDirectory() as scratch:
            print(attempt(distribution, Path(scratch) / "venv", constraints))


if __name__ == "__main__":
    main(*sys.argv[1:])
