"""Checkpoints to resume from: safetensors and JSON, whole on disk or not there at all.

A checkpoint gets its name when all of it is on the disk, with its manifest (see
`integrity.write_folder`). Saving removes older ones only after that. Loading takes the newest
checkpoint that passes verification.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from generalist.errors import GeneralistError
from generalist.integrity import verify, write_folder

MODEL, OPTIMIZER, RANDOM, SOURCE, STATE, DATA, RECIPE = (
    "model.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "source.safetensors",
    "state.json",
    "data.json",
    "recipe.yaml",
)


@dataclass
class RunState:
    """The progress of a run.

    Attributes:
        step: optimizer steps so far, skipped ones included.
        elapsed_seconds: wall-clock time of training, over all starts.
        skipped: steps without an update, because loss or gradient was not finite.
        rounds: finished rounds of corrections.
        improvements: finished rounds of improvement.
        labels: task -> number of its targets so far, in all forward passes.
    """

    step: int = 0
    elapsed_seconds: float = 0.0
    skipped: int = 0
    rounds: int = 0
    improvements: int = 0
    labels: dict[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class Snapshot:
    """All that resuming needs, as whole tensors on the CPU, whatever the run's strategy.

    Attributes:
        state: the progress of the run.
        weights: float32 weights by name.
        moments: state of the optimizers, as kind/name.
        random: states of torch's random number generators; see `random_states`.
        source: what the run's source needs besides the step.
    """

    state: RunState
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    random: dict[str, Tensor]
    source: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    root: Path, snapshot: Snapshot, *, recipe_yaml: str, data: dict[str, Any], keep: int
) -> Path:
    """Save a snapshot as `root/step-XXXXXXXX`, then remove all but the `keep` newest.

    Args:
        root: folder of the run's checkpoints.
        snapshot: the state to save.
        recipe_yaml: the resolved recipe of the run.
        data: facts of the run's data, as JSON.
        keep: number of checkpoints that stay.

    Returns:
        The folder of the checkpoint.

    Raises:
        GeneralistError: the disk is full; older checkpoints are untouched.
    """

    def write(folder: Path) -> None:
        save_file(snapshot.weights, folder / MODEL)
        save_file(snapshot.moments, folder / OPTIMIZER)
        save_file(snapshot.random, folder / RANDOM)
        if snapshot.source:
            save_file(snapshot.source, folder / SOURCE)
        (folder / STATE).write_text(json.dumps(asdict(snapshot.state), indent=2) + "\n")
        (folder / DATA).write_text(json.dumps(data, indent=2) + "\n")
        (folder / RECIPE).write_text(recipe_yaml)

    folder = root / f"step-{snapshot.state.step:08d}"
    write_folder(folder, write)
    remove_older(root, keep)
    return folder


def remove_older(root: Path, keep: int) -> None:
    """Remove all checkpoints below `root` but the `keep` newest, and what was left half removed."""
    for old in list_checkpoints(root)[keep:]:
        os.rename(
            old, old.with_name(f".{old.name}.gone")
        )  # no half-removed folder has a checkpoint's name
    for leftover in [*root.glob(".step-*.gone"), *root.glob(".step-*.tmp")]:
        shutil.rmtree(leftover, ignore_errors=True)


def load_checkpoint(folder: Path) -> Snapshot:
    """Read the snapshot of a verified checkpoint folder."""
    return Snapshot(
        state=RunState(**json.loads((folder / STATE).read_text())),
        weights=load_file(folder / MODEL),
        moments=load_file(folder / OPTIMIZER),
        random=load_file(folder / RANDOM),
        source=load_file(folder / SOURCE) if (folder / SOURCE).is_file() else {},
    )


def random_states() -> dict[str, Tensor]:
    """States of torch's random number generators: `cpu`, and `cuda` where there is a GPU."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Tensor]) -> None:
    """Restore what `random_states` returned."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def list_checkpoints(root: Path) -> list[Path]:
    """Folders of checkpoints, newest first, verified or not."""
    return sorted(root.glob("step-*"), reverse=True) if root.is_dir() else []


def newest_checkpoint(root: Path) -> Path | None:
    """The newest checkpoint that passes verification; None where none does.

    Warns of each newer checkpoint that is damaged.
    """
    _put_back(root)
    for folder in list_checkpoints(root):
        try:
            verify(folder)
        except GeneralistError as error:
            warnings.warn(f"Checkpoint {folder} is left out: {error}", stacklevel=2)
        else:
            return folder
    return None


def _put_back(root: Path) -> None:
    """Undo a replacement that an interruption cut short between its two renames."""
    for aside in root.glob(".step-*.old"):
        folder = aside.with_name(aside.name.removeprefix(".").removesuffix(".old"))
        if not folder.exists():
            with suppress(OSError):  # another rank did it
                os.rename(aside, folder)
