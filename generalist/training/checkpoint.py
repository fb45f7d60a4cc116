"""Checkpoints that survive anything: safetensors and JSON, whole on disk or not there at all.

A folder is written under a temporary name, every file is flushed, the manifest of hashes comes
last, then the folder is renamed and its parent flushed; older ones are removed only after that.
Loading takes the newest whose manifest verifies.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from generalist.errors import GeneralistError

MANIFEST = "manifest.json"
CARD = "README.md"
MODEL, OPTIMIZER, RANDOM, STATE, RECIPE = (
    "model.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "state.json",
    "recipe.yaml",
)


@dataclass
class RunState:
    """Where a run stands."""

    step: int = 0  # optimizer steps done, skipped ones included
    elapsed_seconds: float = 0.0  # wall-clock time of training, over all starts
    skipped: int = 0  # steps left out because loss or gradient was not finite
    rounds: int = 0  # rounds of corrections that training goes on with


def save_checkpoint(
    root: Path,
    state: RunState,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    recipe_yaml: str,
    keep: int,
) -> Path:
    """Save what resuming needs as `root/step-XXXXXXXX`, then remove all but the `keep` newest."""

    def write(folder: Path) -> None:
        save_file(_own_tensors(model), folder / MODEL)
        save_file(_optimizer_tensors(model, optimizers), folder / OPTIMIZER)
        save_file(_random_states(), folder / RANDOM)
        (folder / STATE).write_text(json.dumps(asdict(state), indent=2) + "\n")
        (folder / RECIPE).write_text(recipe_yaml)

    folder = root / f"step-{state.step:08d}"
    write_folder(folder, write)
    for old in list_checkpoints(root)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def load_checkpoint(
    folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> RunState:
    """Put a checkpoint's weights, moments and random states in place; returns where it stood."""
    # A tied head is stored once, under its first name; strict=False lets the second be missing.
    result = model.load_state_dict(load_file(folder / MODEL), strict=False)
    missing = set(result.missing_keys) - _tied_names(model)
    if missing or result.unexpected_keys:
        raise GeneralistError(
            f"{folder} holds the weights of another model: "
            f"{len(missing)} missing, {len(result.unexpected_keys)} unknown."
        )
    _load_optimizers(load_file(folder / OPTIMIZER), model, optimizers)
    random = load_file(folder / RANDOM)
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])
    return RunState(**json.loads((folder / STATE).read_text()))


def list_checkpoints(root: Path) -> list[Path]:
    """Folders of checkpoints, newest first, verified or not."""
    return sorted(root.glob("step-*"), reverse=True) if root.is_dir() else []


def newest_checkpoint(root: Path) -> Path | None:
    """The newest checkpoint that verifies; warns about each newer one that does not."""
    for folder in list_checkpoints(root):
        if (problem := verify(folder)) is None:
            return folder
        warnings.warn(f"Checkpoint {folder} is left out: {problem}.", stacklevel=2)
    return None


# Folders


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Make `folder` with what `write` puts into it, whole or not at all; replaces an old one."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        _write_manifest(temporary)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GeneralistError(
                f"No space left on the disk of {folder.parent}: {folder.name} was not saved, "
                "older checkpoints are untouched. Free some space and run the same command."
            ) from error
        raise
    if folder.exists():
        aside = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)
        os.rename(temporary, folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(temporary, folder)
    _flush(folder.parent)


def verify(folder: Path) -> str | None:
    """None if every file is there with the size and hash of the manifest, else what is wrong."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return f"its manifest cannot be read ({error})"
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, not {expected['bytes']}"
        if _sha256(path) != expected["sha256"]:
            return f"{name} was changed"
    return None


def _write_manifest(folder: Path) -> None:
    """Flush every file below `folder`, then write their sizes and hashes, and flush that."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        _flush(path)
        if path.name == CARD:
            continue  # evaluation writes its scores into the card later
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": files}, indent=2) + "\n")
    _flush(manifest)
    _flush(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Tensors


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without the second names of tied tensors, contiguous on the CPU."""
    tied = _tied_names(model)
    return {k: v.cpu().contiguous() for k, v in model.state_dict().items() if k not in tied}


def _tied_names(model: nn.Module) -> set[str]:
    """State-dict names whose tensor already stands under an earlier name."""
    seen: set[int] = set()
    tied = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            tied.add(name)
        seen.add(id(tensor))
    return tied


def _optimizer_tensors(
    model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """`state-name/parameter-name` -> tensor; safetensors needs each to own its memory."""
    names = {id(p): name for name, p in model.named_parameters()}
    tensors = {}
    for optimizer in optimizers:
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                tensors[f"{key}/{names[id(parameter)]}"] = torch.as_tensor(value).cpu().clone()
    return tensors


def _load_optimizers(
    tensors: dict[str, Tensor], model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> None:
    parameters = dict(model.named_parameters())
    owner = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    for optimizer in optimizers:
        optimizer.state.clear()
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        parameter = parameters[name]
        # AdamW's step counter stays on the CPU unless the optimizer is fused on a GPU.
        value = tensor.to(parameter.device)
        owner[id(parameter)].state[parameter][kind] = value


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states
