"""Embedders in a checkpoint: two files beside the plain weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from generalist.errors import GeneralistError
from generalist.modeling import PARTS_FOLDER
from generalist.modeling.embedders import Embedders
from generalist.tokenization.compact import CompactForm

FORM_FILE, WEIGHTS_FILE = "embedders.json", "embedders.safetensors"


def save_embedders(embedders: Embedders, checkpoint: Path) -> None:
    """Write embedders into the folder of a checkpoint."""
    parts = checkpoint / PARTS_FOLDER
    text = json.dumps(embedders.form.to_dict(), indent=1) + "\n"
    (parts / FORM_FILE).write_text(text, encoding="utf-8")
    weights = {name: each.contiguous() for name, each in embedders.state_dict().items()}
    save_file(weights, parts / WEIGHTS_FILE)


def stored_form(checkpoint: str | Path) -> CompactForm | None:
    """The compact form of a checkpoint; None where it is in the flat form, or is none of ours.

    Raises GeneralistError where its file is damaged.
    """
    path = Path(checkpoint) / PARTS_FOLDER / FORM_FILE
    if not path.is_file():
        return None
    try:
        return CompactForm.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, GeneralistError) as error:
        raise GeneralistError(f"{path} is damaged: {error} Copy the checkpoint again.") from None


def load_embedders(checkpoint: Path, hidden_size: int) -> Embedders | None:
    """The embedders of a checkpoint; None where it is in the flat form.

    Raises GeneralistError where their weights are missing, damaged, or of other shapes.
    """
    form = stored_form(checkpoint)
    if form is None:
        return None
    path = checkpoint / PARTS_FOLDER / WEIGHTS_FILE
    with torch.random.fork_rng(devices=[]):
        embedders = Embedders(form, hidden_size)
    try:
        embedders.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise GeneralistError(
            f"{path} does not hold the embedders that {FORM_FILE} describes: "
            f"{str(error).splitlines()[0]} Copy the checkpoint again."
        ) from error
    return embedders


def start_embedders(
    form: CompactForm,
    hidden_size: int,
    *,
    seed: int,
    coordinates: Mapping[str, np.ndarray],
    source: str | None = None,
) -> Embedders:
    """The embedders of a run as it starts; the same for the same seed.

    Args:
        form: of the run; it extends the form of the checkpoint it starts from.
        hidden_size: D.
        seed: of what is new; the global torch generator is left as it was.
        coordinates: by kind of run, what codes stand for, as `Embedders` takes them.
        source: a checkpoint whose embedders, tasks and queries are kept.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embedders = Embedders(form, hidden_size, coordinates)
    before = None if source is None else load_embedders(Path(source), hidden_size)
    if before is not None:
        own = embedders.state_dict()
        with torch.no_grad():
            for name, weight in before.state_dict().items():
                own[name][: len(weight)] = weight  # rows of tasks and queries are appended
    return embedders
