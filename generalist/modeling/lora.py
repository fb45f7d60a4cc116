"""Low-rank adapters (LoRA, Hu et al. 2021, section 4.1), put in by peft and merged here.

The body's matrices stay as they are and get a trained product of two narrow ones beside them. The
embedding tables train whole, because the rows of new tokens have nothing to adapt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import PreTrainedModel

from generalist.errors import needing
from generalist.modeling.embedders import embedders_of

if TYPE_CHECKING:
    from generalist.modeling.recipe import LoraRecipe

BASE, DOWN, UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add_adapters(model: PreTrainedModel, recipe: LoraRecipe) -> None:
    """Put adapters beside the matrices of the body; only they, tables and embedders are trained."""
    with needing("model.lora"):
        from peft import LoraConfig, inject_adapter_in_model
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules=list(recipe.matrices)
    )
    inject_adapter_in_model(config, model)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.weight.requires_grad = True
    if (embedders := embedders_of(model)) is not None:
        embedders.requires_grad_(True)


def merged(weights: Mapping[str, Tensor], recipe: LoraRecipe) -> dict[str, Tensor]:
    """Weights of the plain model by their plain names, W + alpha / rank B A for each adapter."""
    plain = {}
    for name, tensor in weights.items():
        if name.endswith((DOWN, UP)):
            continue
        if BASE in name and name.endswith(".weight"):
            place = name.removesuffix(f"{BASE}weight")
            down, up = weights[place + DOWN], weights[place + UP]
            tensor = tensor + (up @ down) * (recipe.alpha / recipe.rank)
        plain[name.replace(BASE, ".")] = tensor
    return plain
