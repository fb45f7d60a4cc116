"""The causal language model, built from a recipe: a plain Hugging Face `AutoModelForCausalLM`."""
