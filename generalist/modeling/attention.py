"""Which attention a Hugging Face model computes by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def plain_config(source: str | Path) -> Any:
    """The config of a model that may be a stranger's, by folder or repository.

    Its own Python code is never run, nor an attention taken that it names: transformers would
    download some of those as code.

    Raises OSError or ValueError, as transformers does, where there is none or it needs such code.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    config._attn_implementation = "sdpa"
    return config


@contextmanager
def attention_by(config: Any, name: str) -> Iterator[None]:
    """Let the model of this config attend by what transformers knows under `name`."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
