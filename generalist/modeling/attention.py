"""Which attention a Hugging Face model computes by, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def attention_by(config: Any, name: str) -> Iterator[None]:
    """Let the model of this config attend by what transformers knows under `name`."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
