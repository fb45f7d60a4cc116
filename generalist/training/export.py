"""Export the final checkpoint: a plain Hugging Face model, and what acting needs besides.

`generalist/acting/checkpoint.py` describes its files; `Agent` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from generalist.acting.boards import SELFPLAY, played_before
from generalist.acting.checkpoint import Checkpoint
from generalist.errors import GeneralistError
from generalist.modeling.embedders import Embedders, embedders_of
from generalist.modeling.lora import merged
from generalist.modeling.values import values_of
from generalist.tokenization.layout import Layout
from generalist.training.card import new_card
from generalist.training.card_sections import interface
from generalist.training.checkpoint import RunState
from generalist.training.data import TrainingData
from generalist.training.recipe import Recipe, dump_recipe
from generalist.training.repetition import times_seen


def export(
    folder: Path,
    model: PreTrainedModel,
    weights: Mapping[str, Tensor],
    *,
    data: TrainingData,
    recipe: Recipe,
    state: RunState,
) -> Path:
    """Write a checkpoint to act with; it replaces an older one in one piece.

    Args:
        folder: folder of the checkpoint.
        model: the model; its own weights may be sharded over several processes.
        weights: the whole weights, float32, by name.
        data: the data it was trained on.
        recipe: the resolved recipe.
        state: the progress of the run.

    Returns:
        `folder`.

    Raises:
        GeneralistError: `weights` lacks a parameter of the model.
    """
    lora, played = recipe.model.lora, played_before(recipe.model.init_from)
    checkpoint = Checkpoint(
        model=_whole(model, weights if lora is None else merged(weights, lora)),
        processor=data.processor,
        layouts={task: Layout.from_dict(layout) for task, layout in data.layouts.items()},
        facts={
            "steps": state.step,
            "minutes": round(state.elapsed_seconds / 60, 2),
            "tokens": state.step * recipe.data.rows_per_step * recipe.data.window_tokens,
            "window_tokens": recipe.data.window_tokens,
            "context_steps": recipe.data.context_steps,
            "temperature": recipe.acting.temperature,
            "environments": data.environments(),
            "returns": {task: each.to_dict() for task, each in data.returns.items()},
            "worlds": {task: each.to_dict() for task, each in data.worlds.items()},
            "experts": data.teachers(),
            "labels_seen": times_seen(state.labels, data.labels),
            **({SELFPLAY: played} if played else {}),
        },
        recipe=dump_recipe(recipe),
    )
    card = new_card(checkpoint.all_facts, title=recipe.output_dir.name)
    card += interface(checkpoint.layouts)
    replace(checkpoint, card=card).write(folder)
    return folder


def _whole(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """A model of the same class and config that holds these tensors themselves."""
    with torch.device("meta"):
        whole = type(model)(model.config)
    if (embedders := embedders_of(model)) is not None:
        whole.embedders = Embedders(embedders.form, model.config.hidden_size)
    if (values := values_of(model)) is not None:
        whole.values = type(values)(values.tasks, model.config.hidden_size)
    whole.load_state_dict(weights, strict=False, assign=True)  # a tied head has no entry
    whole.tie_weights()
    if absent := [name for name, weight in whole.named_parameters() if weight.is_meta]:
        raise GeneralistError(f"The run holds no weights for {absent[0]}; nothing was exported.")
    return whole
