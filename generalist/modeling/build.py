"""Builds the causal LM a recipe asks for: a plain Qwen3 or Llama, no modeling code of ours.

Shapes: V = vocabulary size, D = hidden size, N = size of the continuous range.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from generalist.errors import UsageError

if TYPE_CHECKING:
    from generalist.training.recipe import ModelRecipe
    from generalist.vocabulary import Vocabulary

ARCHITECTURES: dict[str, tuple[type, type]] = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def build_model(
    recipe: ModelRecipe, vocabulary: Vocabulary, window_tokens: int, seed: int = 0
) -> PreTrainedModel:
    """A freshly initialised model in float32, the same for the same seed.

    Args:
        recipe: architecture and sizes.
        vocabulary: gives V, the special ids and the continuous range.
        window_tokens: longest sequence it is trained on, becomes `max_position_embeddings`.
        seed: of the initial weights; the global torch generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if recipe.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise UsageError(f"Unknown architecture {recipe.architecture!r}; there are {known}.")
        config_class, model_class = ARCHITECTURES[recipe.architecture]
        config = config_class(**_config_arguments(recipe, vocabulary, window_tokens))
        config._attn_implementation = recipe.attention
        model = model_class(config)
        if recipe.fourier_init:
            initialise_continuous_rows(model, vocabulary, recipe.fourier_bandwidth)
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
        "max_position_embeddings": window_tokens,
        "rope_parameters": {"rope_type": "default", "rope_theta": recipe.rope_theta},
        "tie_word_embeddings": recipe.tie_embeddings,
        # No pad_token_id in the model: nn.Embedding would freeze that row, and rows are never
        # padded on the left. `generate` takes the ids from here.
        "bos_token_id": vocabulary.special("begin"),
        "eos_token_id": vocabulary.special("end"),
    }


@torch.no_grad()
def initialise_continuous_rows(
    model: PreTrainedModel, vocabulary: Vocabulary, bandwidth: float
) -> None:
    """Makes neighbouring bins start with similar embeddings: random Fourier features of the value.

    Row i becomes sqrt(2) s cos(w x_i + b) with x_i the bin's centre in (-1, 1), w normal with the
    bandwidth as its deviation, b uniform on [0, 2 pi) and s the scale of the other rows. Inner
    products of rows then approximate a Gaussian kernel of the difference in value (Rahimi and
    Recht 2007, section 3). An initialisation only; the model stays a plain one.
    """
    bins = vocabulary["continuous"]
    tables = [model.get_input_embeddings().weight]
    if model.get_output_embeddings().weight is not tables[0]:
        tables.append(model.get_output_embeddings().weight)
    value = (torch.arange(bins.size, dtype=torch.float32) + 0.5) / bins.size * 2 - 1  # (N,)
    for table in tables:  # (V, D)
        frequency = torch.randn(table.shape[1]) * bandwidth
        phase = torch.rand(table.shape[1]) * 2 * math.pi
        features = math.sqrt(2) * torch.cos(value[:, None] * frequency + phase)  # (N, D)
        table[bins.start : bins.stop] = features * model.config.initializer_range


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Trainable parameters: `total`, and `body` without the embedding tables and the head."""
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    tables = {
        id(layer.weight): layer.weight.numel()
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
        if layer is not None
    }
    return {"total": total, "body": total - sum(tables.values())}
