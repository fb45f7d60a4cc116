"""Packed rows attended to segment by segment give what transformers' mask gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from generalist.modeling import flash
from generalist.training.losses import OrdinalTargets
from generalist.training.objective import TokenObjective
from generalist.training.tensors import to_tensors
from generalist.windows.batch import IGNORE, Batch
from tests.decoding.models import VOCABULARY_SIZE, tiny_model

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ROWS, LENGTH = 3, 64


def by_segments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scaling: float,
) -> torch.Tensor:
    """What the operator computes on a GPU, one segment at a time."""
    sizes = starts.diff().tolist()
    assert max(sizes) <= longest
    parts = []
    for q, k, v in zip(*(x.split(sizes) for x in (query, key, value)), strict=True):
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        out = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=True
        )
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


def some_batch(seed: int = 0) -> Batch:
    """Rows of segments of any length, the first row with padding at its end."""
    rng = np.random.default_rng(seed)
    shape = ROWS, LENGTH
    positions = np.zeros(shape, np.int64)
    for row in positions:
        cuts = np.sort(rng.choice(np.arange(1, LENGTH), 4, replace=False))
        row[:] = np.arange(LENGTH) - np.repeat([0, *cuts], np.diff([0, *cuts, LENGTH]))
    ids = rng.integers(0, VOCABULARY_SIZE, shape)
    targets = np.where(rng.random(shape) < 0.3, ids, IGNORE)
    task_index = np.zeros(shape, np.int32)
    padding = np.arange(LENGTH) >= LENGTH - positions[0, -1] - 1
    targets[0, padding], task_index[0, padding] = IGNORE, -1
    has_target = (targets != IGNORE).astype(np.float32)
    return Batch(
        input_ids=ids,
        position_ids=positions,
        targets=targets,
        query=np.zeros(shape, bool),
        ordinal=np.zeros(shape, bool),
        task_index=task_index,
        role=np.zeros(shape, np.uint8),
        weight=has_target,
        count=has_target,
    )


def losses_and_gradient(
    model: Any, use_flash: bool, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    batch = to_tensors(some_batch(), np.ones(1), segments=False).to(torch.device(device))
    objective = TokenObjective(model, OrdinalTargets(0, 16, 0.0))
    objective.flash = use_flash
    model.zero_grad()
    losses = objective(batch)
    losses.mean().backward()
    gradient = torch.cat([p.grad.flatten().float() for p in model.parameters()])
    return losses.detach().float().cpu(), gradient.cpu()


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_equals_the_mask(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With grouped heads and padding; and the model attends as before afterwards."""
    monkeypatch.setattr(flash, "_flash", by_segments)
    model = tiny_model(architecture, LENGTH).train()
    before = model.config._attn_implementation
    masked = losses_and_gradient(model, use_flash=False)
    own = losses_and_gradient(model, use_flash=True)
    assert model.config._attn_implementation == before
    for one, other in zip(own, masked, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@needs_gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_equals_the_mask_on_a_gpu(compiled: bool) -> None:
    """In bfloat16: no farther from float32 than what the mask gives."""
    exact = losses_and_gradient(tiny_model("qwen3", LENGTH).train(), use_flash=False)
    model = tiny_model("qwen3", LENGTH).train().to("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        masked = losses_and_gradient(model, use_flash=False, device="cuda")
        if compiled:
            for block in model.get_decoder().layers:
                block.compile()
        own = losses_and_gradient(model, use_flash=True, device="cuda")
    for one, other, truth in zip(own, masked, exact, strict=True):
        error, usual = ((x - truth).norm() / truth.norm() for x in (one, other))
        assert error < 1.5 * usual + 1e-3
