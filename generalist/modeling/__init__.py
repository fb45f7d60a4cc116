"""The causal language model, built from a recipe: a plain Hugging Face `AutoModelForCausalLM`."""

from generalist.tokenization import PARTS_FOLDER

__all__ = ["PARTS_FOLDER"]
