"""llama.cpp with our weights: a plain model becomes a GGUF file, and many sequences are fed to it.

Token ids in, logits out: the file has no tokenizer, and its matrices have the model's dtype.
llama.cpp is compiled for the CPU on which it is installed:

    pip install llama-cpp-python gguf

Shapes: B = sequences, n = new tokens of each, V = vocabulary size.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

INSTALL = "pip install llama-cpp-python gguf"


def installed() -> bool:
    """Whether the packages are there."""
    return all(find_spec(name) is not None for name in ("llama_cpp", "gguf"))


def write_gguf(model: PreTrainedModel, path: Path) -> None:
    """Write a Llama or Qwen3 as `build_model` makes it, with matrices in its dtype.

    Raises:
        KeyError: llama.cpp is not told here how to run this kind of model, or this dtype.
    """
    import gguf

    config = model.config
    kind = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen3": gguf.MODEL_ARCH.QWEN3}[config.model_type]
    dtype = type_of(model)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[kind])
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for name, weight in model.named_parameters():  # a table that is tied comes once
        value = weight.detach().float()
        if config.model_type == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            value = neighbouring_pairs(value, config.head_dim)
        stored = dtype if value.ndim > 1 else gguf.GGMLQuantizationType.F32
        data = gguf.quantize(value.numpy(), stored)
        own = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(own, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def type_of(model: PreTrainedModel) -> Any:
    """What llama.cpp calls the dtype of a model, a `gguf.GGMLQuantizationType`."""
    import gguf

    types = gguf.GGMLQuantizationType
    return {torch.float32: types.F32, torch.bfloat16: types.BF16}[model.dtype]


def neighbouring_pairs(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of a matrix of queries or keys, as llama.cpp rotates them in a Llama.

    Hugging Face rotates row i of a head with row i + head_dim / 2; llama.cpp rotates row 2i with
    row 2i + 1. Qwen3 it rotates as Hugging Face does.

    Args:
        weight: (heads * head_dim, D).
        head_dim: rows of a head.
    """
    halves = weight.unflatten(0, (-1, 2, head_dim // 2))  # (heads, 2, head_dim / 2, D)
    return halves.transpose(1, 2).reshape(weight.shape).contiguous()


class LlamaCpp:
    """A model in llama.cpp, on the CPU.

    Args:
        model: what it is made of, in float32 or bfloat16.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        import llama_cpp

        silence()
        self.vocabulary_size = model.config.vocab_size
        self.cache_type = int(type_of(model))
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        with TemporaryDirectory() as folder:  # once mapped, the file needs no name
            path = Path(folder) / "model.gguf"
            write_gguf(model, path)
            self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self.handle:
            raise RuntimeError("llama.cpp cannot load the file that write_gguf wrote")
        weakref.finalize(self, llama_cpp.llama_model_free, self.handle)


class Sequences:
    """Sequences of equal length side by side, each with a cache of its own.

    Args:
        model: whose logits are wanted.
        count: how many sequences, B.
        window: most tokens of each.
        threads: of the CPU.
        half: cache in float16 and use flash attention, as llama.cpp does by itself; else cache in
            the model's dtype without it, because its flash attention computes in float16.

    Attributes:
        length: how many tokens of each sequence are cached.
    """

    def __init__(
        self, model: LlamaCpp, count: int, window: int, threads: int, half: bool = False
    ) -> None:
        import llama_cpp

        self._llama, self._model, self._count = llama_cpp, model, count
        self.length = 0
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = count * window
        options.n_seq_max = count
        options.kv_unified = False  # a sequence attends to its own keys, with no mask over others'
        options.n_threads = options.n_threads_batch = threads
        if not half:
            options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
            options.type_k = options.type_v = model.cache_type
        self._context = llama_cpp.llama_init_from_model(model.handle, options)
        if not self._context:
            raise RuntimeError(f"llama.cpp has no memory for {count} caches of {window} tokens")
        weakref.finalize(self, llama_cpp.llama_free, self._context)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batches: dict[tuple[int, int], Batch] = {}

    def begin(self, tokens: np.ndarray) -> None:
        """Begin all sequences, which are empty, with the same (n,) ids."""
        self.feed(tokens[None])
        for number in range(1, self._count):
            self._llama.llama_memory_seq_cp(self._memory, 0, number, -1, -1)

    def feed(self, tokens: np.ndarray) -> np.ndarray:
        """Feed (B, n) ids.

        Returns:
            (B, V) float32 logits after the last id of each sequence, valid until the next call.
        """
        count, new = tokens.shape
        if (count, new) not in self._batches:
            self._batches[count, new] = Batch(count, new)
        batch = self._batches[count, new]
        batch.tokens[:] = tokens
        batch.positions[:] = np.arange(self.length, self.length + new)
        failed = self._llama.llama_decode(self._context, batch.handle)
        if failed:
            raise RuntimeError(f"llama.cpp cannot feed {count} x {new} tokens: it says {failed}")
        self.length += new
        logits = self._llama.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, (count, self._model.vocabulary_size))

    def cut(self, length: int) -> None:
        """Drop all but the first `length` tokens of each sequence."""
        for number in range(self._count):
            self._llama.llama_memory_seq_rm(self._memory, number, length, -1)
        self.length = length


class Batch:
    """llama.cpp's arrays for n tokens of each of B sequences, the last of which has logits.

    Attributes:
        tokens: (B, n) int32 ids, to be filled in.
        positions: (B, n) int32 places in their sequences, to be filled in.
    """

    def __init__(self, count: int, new: int) -> None:
        import llama_cpp

        self.handle = handle = llama_cpp.llama_batch_init(count * new, 0, 1)
        weakref.finalize(self, llama_cpp.llama_batch_free, handle)
        handle.n_tokens = count * new
        self.tokens = np.ctypeslib.as_array(handle.token, (count, new))
        self.positions = np.ctypeslib.as_array(handle.pos, (count, new))
        np.ctypeslib.as_array(handle.n_seq_id, (count, new))[:] = 1
        np.ctypeslib.as_array(handle.logits, (count, new))[:] = np.arange(new) == new - 1
        for place in range(count * new):
            handle.seq_id[place][0] = place // new


@functools.cache
def silence() -> Any:
    """Keep llama.cpp from writing its log; what it is given must live as long as it."""
    import llama_cpp

    ignore = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(ignore, ctypes.c_void_p(0))
    return ignore
