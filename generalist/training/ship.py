"""A checkpoint to give away: weights of half the size, and a card that says how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import yaml

from generalist.acting.checkpoint import RECIPE_FILE, Checkpoint, check_replaceable
from generalist.acting.hub import FOLDER_IN_CARD, checkpoint_folder
from generalist.modeling import PARTS_FOLDER
from generalist.specs import list_specs, spec_folder
from generalist.training.card import LICENCE_HEADING, card_scores, new_card, score_table
from generalist.training.card_sections import interface
from generalist.training.recipe import Recipe, differences, load_recipe

Rounded = Literal["float32", "bfloat16"]
_BITS = {"float32": 32, "bfloat16": 16}
_SHOWN = 6  # keys of a recipe that was changed


def ship(
    checkpoint: str | Path,
    folder: Path,
    *,
    dtype: Rounded = "bfloat16",
    license: str = "Apache-2.0",
) -> int:
    """Copy a checkpoint, with its weights rounded to a smaller type.

    Loaded again, the weights are float32 by default, and differ from the original ones by the
    rounding alone.

    Args:
        checkpoint: what is copied, as `checkpoint_folder` takes it.
        folder: of the copy; an older checkpoint is replaced in one piece.
        dtype: data type of the weights on disk.
        license: SPDX identifier of the copy's licence.

    Returns:
        Size of the copy, in bytes.

    Raises:
        UsageError: `folder` holds other things than a checkpoint.
        GeneralistError: `checkpoint` is none, or is damaged.
    """
    check_replaceable(folder)
    source = checkpoint_folder(checkpoint)
    found = Checkpoint.read(source, device=torch.device("cpu"), dtype=dtype)
    card = new_card(
        found.all_facts,
        title=folder.name,
        license=license,
        made="\n".join(filter(None, (_recipe_line(source), _rounding_line(dtype)))),
        scores=_scores_before(found.card or "", dtype),
    )
    card = card.replace(LICENCE_HEADING, interface(found.layouts) + LICENCE_HEADING, 1)
    if folder.resolve().parent == spec_folder("checkpoints").resolve():
        card = card.replace(FOLDER_IN_CARD, folder.name)
    recipe = None if found.recipe is None else without_own_folders(found.recipe)
    replace(found, card=card, recipe=recipe).write(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def without_own_folders(recipe: str) -> str:
    """The text of a recipe, with defaults for absolute folders, which mean nothing elsewhere."""
    values, defaults = yaml.safe_load(recipe), Recipe().model_dump(mode="json")
    kept = (("data", "root"), ("data", "cache"), ("data", "processor"), ("corrections", "earlier"))
    for section, key in kept:
        given = values[section].get(key)  # a recipe of an earlier version lacks later keys
        each = given if isinstance(given, list) else [given]
        if any(Path(str(folder)).is_absolute() for folder in each):
            values[section][key] = defaults[section][key]
    if Path(values["output_dir"]).is_absolute():
        values["output_dir"] = defaults["output_dir"]
    return yaml.safe_dump(values, sort_keys=False)


def _recipe_line(source: Path) -> str:
    """Which shipped recipe the checkpoint was made by, and which keys were changed."""
    path = source / PARTS_FOLDER / RECIPE_FILE
    if not path.exists():
        return ""
    used = load_recipe(path)
    changed = {name: differences(load_recipe(name), used) for name in list_specs("recipes")}
    name = min(changed, key=lambda each: len(changed[each]))
    keys = [change.partition(":")[0] for change in changed[name]]
    said = ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" * (len(keys) > _SHOWN))
    other = f", with other values of {said}" if keys else ""
    return f"Made by the recipe `{name}`{other}: `generalist train {name}`."


def _rounding_line(dtype: Rounded) -> str:
    """What was done to the weights since."""
    if dtype == "float32":
        return ""
    return f"The weights were then rounded to {dtype}, {_BITS[dtype]} bits each."


def _scores_before(card: str, dtype: Rounded) -> str:
    """The scores of the checkpoint that was copied, and the word that they are its own."""
    rows: Mapping[tuple[str, str], Mapping[str, str]] = card_scores(card)
    if not rows:
        return "Not evaluated yet: `generalist evaluate` fills this in."
    note = "" if dtype == "float32" else f"Measured before the weights were rounded to {dtype}.\n\n"
    return note + score_table(rows)
