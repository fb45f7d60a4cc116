"""Builds the causal LM a recipe asks for: a plain Qwen3 or Llama, no modeling code of ours.

Shapes: V = vocabulary size, D = hidden size, N = size of the continuous range.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from generalist.errors import UsageError
from generalist.modeling.embedders import embedders_of

if TYPE_CHECKING:
    from generalist.modeling.recipe import FourierInit, ModelRecipe
    from generalist.vocabulary import TokenRange, Vocabulary

ARCHITECTURES: dict[str, tuple[type, type]] = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def build_model(
    recipe: ModelRecipe,
    vocabulary: Vocabulary,
    window_tokens: int,
    seed: int = 0,
    code_coordinates: np.ndarray | None = None,
) -> PreTrainedModel:
    """A freshly initialised model in float32, the same for the same seed.

    Args:
        recipe: architecture and sizes.
        vocabulary: gives V, the special ids and the continuous range.
        window_tokens: longest sequence it is trained on, becomes `max_position_embeddings`.
        code_coordinates: (codes, latents) float32 in [-1, 1], what the codes of the frame tokenizer
            stand for; None where there is none.
        seed: of the initial weights; the global torch generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if recipe.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise UsageError(f"Unknown architecture {recipe.architecture!r}; there are {known}.")
        config_class, model_class = ARCHITECTURES[recipe.architecture]
        model = model_class(config_class(**_config_arguments(recipe, vocabulary, window_tokens)))
        if recipe.continuous_init is not None:
            bins = bin_coordinates(vocabulary)
            initialise_by_value(model, vocabulary["continuous"], bins, recipe.continuous_init)
        if recipe.image_init is not None and code_coordinates is not None:
            initialise_by_value(model, vocabulary["image"], code_coordinates, recipe.image_init)
    return model


def _config_arguments(
    recipe: ModelRecipe, vocabulary: Vocabulary, window_tokens: int
) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary.size,
        "hidden_size": recipe.hidden_size,
        "intermediate_size": recipe.intermediate_size,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.kv_heads or recipe.heads,
        "head_dim": recipe.head_dim or recipe.hidden_size // recipe.heads,
        "initializer_range": recipe.initializer_range or recipe.hidden_size**-0.5,
        "max_position_embeddings": window_tokens,
        "rope_parameters": {"rope_type": "default", "rope_theta": recipe.rope_theta},
        "tie_word_embeddings": recipe.tie_embeddings,
        # No pad_token_id in the model: nn.Embedding would freeze that row, and rows are never
        # padded on the left. `generate` takes the ids from here.
        "bos_token_id": vocabulary.special("begin"),
        "eos_token_id": vocabulary.special("end"),
    }


def bin_coordinates(vocabulary: Vocabulary) -> np.ndarray:
    """(N, 1) float32 centre of each bin of the continuous range, in (-1, 1)."""
    count = vocabulary["continuous"].size
    return ((np.arange(count, dtype=np.float32) + 0.5) / count * 2 - 1)[:, None]


@torch.no_grad()
def initialise_by_value(
    model: PreTrainedModel, token_range: TokenRange, coordinates: np.ndarray, features: FourierInit
) -> None:
    """Make ids that stand for similar values start with similar embeddings.

    coordinates: (n, c) in [-1, 1], what the first n ids of the range stand for. Row i becomes
    sqrt(2) s cos(w . x_i + b), with s the scale, b uniform on [0, 2 pi) and w a random direction
    whose length is log-uniform between the lowest and the highest frequency (random Fourier
    features, Rahimi and Recht 2007, section 3, at many resolutions instead of one: a single
    bandwidth is either too coarse to say which bin is meant or too fine to generalise).
    An initialisation only; the model stays a plain one.
    """
    values = torch.from_numpy(coordinates)  # (n, c)
    tables = [model.get_input_embeddings().weight]
    if model.get_output_embeddings().weight is not tables[0]:
        tables.append(model.get_output_embeddings().weight)
    for table in tables:  # (V, D)
        width = table.shape[1]
        low, high = math.log(features.lowest), math.log(features.highest)
        length = torch.exp(low + (high - low) * torch.rand(width))
        direction = F.normalize(torch.randn(values.shape[1], width), dim=0)
        phase = torch.rand(width) * 2 * math.pi
        rows = math.sqrt(2) * torch.cos(values @ (direction * length) + phase)  # (n, D)
        table[token_range.start : token_range.start + len(rows)] = rows * features.scale


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Trainable parameters: `total`, and `body` without embedding tables, head and embedders."""
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    embedders = embedders_of(model)
    added = 0 if embedders is None else sum(p.numel() for p in embedders.parameters())
    tables = {
        id(layer.weight): layer.weight.numel()
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
        if layer is not None
    }
    return {"total": total, "body": total - sum(tables.values()) - added}
