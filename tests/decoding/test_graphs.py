"""The GPU's way through a model equals a full forward pass, as the other ways do.

Without a GPU the same passes run unrecorded, their kernels in Triton's interpreter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from generalist.decoding.cache import RowPlan
from generalist.decoding.decoder import Decoder
from generalist.decoding.graphs import LARGEST, GraphedPass, Shape, filled_up
from generalist.decoding.sampling import Choice
from generalist.decoding.slots import Added
from tests.decoding.models import tiny_model
from tests.decoding.test_decoder import run

# What fills a pass up is computed too, of whatever lies there; nobody reads it.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def model_of(architecture: str = "qwen3", window: int = 64) -> Any:
    return tiny_model(architecture, window, head_dim=16).to(DEVICE)


def graphed(model: Any, slots: int, window: int = 64, **options: Any) -> Decoder:
    decoder = Decoder(model, slots, window, **options)
    decoder.forward = GraphedPass(model, 2 * slots, window)
    return decoder


@pytest.mark.parametrize(
    ("architecture", "slots", "reset_chance", "backlog"),
    [
        pytest.param("qwen3", 1, 0.0, 16, marks=pytest.mark.slow),
        ("llama", 2, 0.2, 1),
        ("qwen3", 3, 0.1, None),
    ],
)
def test_cached_equals_uncached(
    architecture: str, slots: int, reset_chance: float, backlog: int | None
) -> None:
    """Before and after the window (40 tokens, 9 a timestep) fills, alone and as a ragged batch."""
    model = model_of(architecture, window=40)
    decoder = graphed(model, slots, window=40, backlog_tokens=backlog)
    run(decoder, model, 7, observation=7, action=2, reset_chance=reset_chance)


@pytest.mark.parametrize("asked", [1, 3])
def test_the_compact_form_is_that_of_the_other_passes(asked: int) -> None:
    """Vectors beside the ids, several states of a row; the window turns over."""
    model, slots = model_of(window=12), [0, 1, 2]
    decoders = graphed(model, 3, window=12), Decoder(model, 3, 12, plain=True)
    width = model.config.hidden_size
    generator = torch.Generator().manual_seed(0)
    choices = [[Choice(interval=(10, 90))] * asked] * len(slots)
    for decoder in decoders:
        for slot in slots:
            vectors = torch.ones(1, width, device=DEVICE) * slot
            decoder.reset(slot, list(range(1 + slot)), 0, [Added(0, vectors)])
    for _ in range(10):
        given = torch.randn(len(slots), 1 + asked, width, generator=generator).to(DEVICE)
        chunk = [5] * (1 + asked)
        own, other = (each.act_at_once(slots, chunk, given, choices).ids for each in decoders)
        assert own == other
    assert all(len(decoders[0].context(slot)) < 10 * (1 + asked) for slot in slots)


def test_long_contexts_are_attended_to_in_parts() -> None:
    """Of a row's keys several programs take a part each, and some get none."""
    model = model_of(window=256)
    decoder = graphed(model, 1, window=256)
    assert decoder.forward.kernels._parts(programs=4) == 2
    run(decoder, model, 3, observation=60, action=2)


def test_weights_that_change_are_followed() -> None:
    model = model_of()
    decoder = graphed(model, 2)
    run(decoder, model, 2, observation=5, action=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    run(decoder, model, 2, observation=5, action=2)


def test_there_are_few_shapes() -> None:
    """So few graphs are recorded; none is more than an eighth larger than what it is for."""
    sizes = [filled_up(number) for number in range(1, LARGEST + 1)]
    assert len(set(sizes)) < 100
    for number, size in enumerate(sizes, 1):
        assert number <= size <= 1.125 * number
    device = torch.device("cpu")
    plan = RowPlan(range(17), [9] * 17, [1] * 17, device, padded=False)
    # A token a row, in those that fill up too.
    assert Shape.of(plan, every=False, added=False) == (18, 18, 1, True, False)
    plan = RowPlan(range(17), [9] * 17, [1] * 16 + [2], device, padded=False)
    # Told from the one before by more tokens than rows.
    assert Shape.of(plan, every=False, added=False) == (19, 18, 2, False, False)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recorded_passes_are_as_exact_as_the_models_own(dtype: torch.dtype) -> None:
    exact = tiny_model("qwen3", head_dim=16)
    model = model_of().to(dtype)
    decoders = Decoder(model, 8), Decoder(model, 8, plain=True), Decoder(exact, 8)
    assert isinstance(decoders[0].forward, GraphedPass)
    rng = np.random.default_rng(0)
    slots = list(range(8))
    for decoder in decoders:
        for slot in slots:
            decoder.reset(slot, list(range(1 + slot)))
    errors: list[list[float]] = []
    for _ in range(30):
        chunks = [rng.integers(0, 128, 5).tolist() for _ in slots]
        logits = []
        for decoder in decoders:
            hidden = decoder.feed(slots, chunks, [1] * len(slots))
            logits.append(decoder.logits(hidden, (0, 128)).float().cpu())
        errors.append([float((each - logits[2]).abs().mean()) for each in logits[:2]])
    own, plain = np.mean(errors, axis=0)
    assert own < 1.2 * plain + 1e-4
