"""Tiny randomly initialised language models, and the slow way to their logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import generalist
from generalist.acting.agent import Agent
from generalist.modeling.embedders import Embedders
from generalist.specs import find_spec
from generalist.tokenization.compact import CompactForm
from generalist.tokenization.outcomes import TaskWorld
from generalist.tokenization.processor import GeneralistProcessor
from generalist.tokenization.returns import TaskReturns
from generalist.tokenization.text import TextCodec
from generalist.training.forms import outcome_ids
from generalist.vocabulary import Vocabulary

VOCABULARY_SIZE = 128


def tiny_model(
    architecture: str = "qwen3",
    window: int = 64,
    seed: int = 0,
    size: int = 128,
    head_dim: int = 8,
) -> Any:
    """A 2-layer causal LM in fp32 with weights large enough that contexts matter."""
    shape = {
        "vocab_size": size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": head_dim,
        "max_position_embeddings": window,
        "tie_word_embeddings": True,
        "initializer_range": 0.3,
    }
    torch.manual_seed(0)
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape)).eval()
    return Qwen3ForCausalLM(Qwen3Config(**shape)).eval()


@torch.no_grad()
def full_logits(model: Any, context: np.ndarray) -> torch.Tensor:
    """(vocabulary,) logits after `context` by one plain forward pass without any cache."""
    ids = torch.tensor(np.asarray(context)[None], device=model.device)
    return model(input_ids=ids, use_cache=False).logits[0, -1]


def text_only_processor() -> GeneralistProcessor:
    """The shipped text tokenizer and vocabulary, without frames."""
    text = TextCodec.from_pretrained(find_spec("tokenizers", "text"))
    return GeneralistProcessor(Vocabulary.default(text.size), text)


def tiny_agent(
    *tasks: str, window: int = 128, processor: GeneralistProcessor | None = None, **options: Any
) -> Agent:
    """An untrained agent for these tasks, the first of which it acts in.

    Tasks with frames need a processor that has codes for them.
    """
    processor = processor or text_only_processor()
    layouts = {}
    for task in tasks:
        env = generalist.make(task)
        layouts[task] = processor.layout(env.observation_space, env.action_space)
        env.close()
    model = tiny_model(window=window, size=processor.vocabulary.size)
    return Agent(model, processor, layouts, task=tasks[0], **options)


def compact_agent(
    *tasks: str,
    window: int = 64,
    positions: int = 1,
    plain: bool = False,
    returns: TaskReturns | None = None,
    world: TaskWorld | None = None,
    processor: GeneralistProcessor | None = None,
    **options: Any,
) -> Agent:
    """As `tiny_agent`, in the compact form; with returns and outcomes of its tasks, where given."""
    agent = tiny_agent(*tasks, window=window, processor=processor)
    ids = None if returns is None else agent.processor.vocabulary["return"]
    outcomes = None if world is None else outcome_ids(agent.processor.vocabulary)
    form = CompactForm(positions=positions, width=8).extended(agent.layouts, ids, outcomes)
    if world is not None:
        options["worlds"] = dict.fromkeys(tasks, world.to_dict())
    if returns is not None:
        options["returns"] = dict.fromkeys(tasks, returns.to_dict())
    torch.manual_seed(1)
    agent.model.embedders = Embedders(form, agent.model.config.hidden_size).eval()
    given = {"plain": plain, **options}
    return Agent(agent.model, agent.processor, agent.layouts, task=tasks[0], **given)
