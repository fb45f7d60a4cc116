"""The causal language model, built from a recipe: a plain Hugging Face `AutoModelForCausalLM`."""

PARTS_FOLDER = "generalist"  # of a checkpoint: what acting needs beside the weights
