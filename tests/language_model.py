"""A small language model in Hugging Face format, made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from generalist.specs import find_spec

TEXT_IDS = 8192 + 2  # two special tokens, as language models have
ROWS = TEXT_IDS + 30  # and rows that pad the table


def save_language_model(folder: Path) -> Path:
    """Write one into `folder`; its tokenizer is byte-level and not the shipped one."""
    config = Qwen3Config(
        vocab_size=ROWS, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=256,
        tie_word_embeddings=False, pad_token_id=3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(find_spec("tokenizers", "text") / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder
