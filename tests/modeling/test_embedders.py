"""Embedders: what they add, where, and what their rows begin as."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generalist.errors import UsageError
from generalist.modeling.embedders import Embedded, Embedders, fourier_features
from generalist.tokenization.compact import QUERIES, TASKS, CompactForm, Run, Signature

BINS = Signature("observation", (Run("bins", 3, 100, 64), Run("discrete", 1, 20, 5)))
CODES = Signature("observation", (Run("image", 2, 500, 16),))
ACTION = Signature("action", (Run("discrete", 1, 20, 5),))
FORM = CompactForm(
    positions=2, width=8, tasks=("a", "b"), signatures=(BINS, CODES, ACTION), queries=3
)


@pytest.fixture
def embedders() -> Embedders:
    torch.manual_seed(0)
    return Embedders(FORM, 16)


def test_vectors_are_added_where_they_belong(embedders: Embedders) -> None:
    hidden = torch.randn(10, 16)
    seen = torch.tensor([[100, 130, 163, 24], [101, 102, 103, 20]])
    given = [
        Embedded(TASKS, torch.tensor([[2]]), torch.tensor([0])),
        Embedded(BINS.name, seen, torch.tensor([1, 6])),
        Embedded(QUERIES, torch.tensor([[0], [2]]), torch.tensor([3, 8])),
        Embedded(ACTION.name, torch.tensor([[21]]), torch.tensor([7])),
    ]
    with torch.no_grad():
        added = embedders(hidden, given) - hidden
        vectors = embedders.vectors(BINS.name, seen)
        action = embedders.vectors(ACTION.name, torch.tensor([[21]]))
    assert vectors.shape == (2, 2, 16) and action.shape == (1, 1, 16)
    expected = torch.zeros(10, 16)
    expected[0] = embedders.tasks[2].detach()
    expected[1:3], expected[6:8] = vectors
    expected[7] += action[0, 0]
    expected[3], expected[8] = embedders.queries[0].detach(), embedders.queries[2].detach()
    torch.testing.assert_close(added, expected, atol=1e-6, rtol=1e-6)


def test_each_token_has_rows_of_its_own_kind(embedders: Embedders) -> None:
    """A change of one token changes the vectors, and ids of two kinds share no row."""
    seen = torch.tensor([[100, 130, 163, 24]])
    base = embedders.vectors(BINS.name, seen)
    for place, other in enumerate((101, 131, 162, 20)):
        changed = seen.clone()
        changed[0, place] = other
        assert not torch.allclose(embedders.vectors(BINS.name, changed), base)
    table = embedders.by_name[BINS.name].table
    assert table.shape == (64 + 5, 8)
    embedders.vectors(BINS.name, seen).sum().backward()
    assert table.grad.any(dim=1).nonzero().flatten().tolist() == [0, 30, 63, 64 + 4]


def test_what_a_pass_does_not_use_has_a_gradient_of_zero(embedders: Embedders) -> None:
    hidden = torch.randn(4, 16)
    given = [Embedded(CODES.name, torch.tensor([[500, 515]]), torch.tensor([1]))]
    embedders(hidden, given).square().sum().backward()
    used = {id(each) for each in embedders.by_name[CODES.name].parameters()}
    for parameter in embedders.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == (id(parameter) in used)


def test_ranks_call_every_embedder_in_one_order(embedders: Embedders) -> None:
    """Whatever their rows hold: weights in shards are gathered by all ranks together."""
    seen: list[list[str]] = []
    for given in (
        [],
        [Embedded(CODES.name, torch.tensor([[500, 515]]), torch.tensor([1]))],
        [Embedded(BINS.name, torch.tensor([[100, 130, 163, 24]]), torch.tensor([0]))],
    ):
        called: list[str] = []
        hooks = [
            module.register_forward_pre_hook(lambda *_, name=name, to=called: to.append(name))
            for name, module in embedders.by_name.items()
        ]
        embedders(torch.zeros(4, 16), given)
        for hook in hooks:
            hook.remove()
        seen.append(called)
    assert seen[0] == seen[1] == seen[2] and len(seen[0]) == 3


def test_an_unknown_kind_is_refused(embedders: Embedders) -> None:
    given = [Embedded("observation-bins9x64", torch.zeros(1, 9).long(), torch.tensor([0]))]
    with pytest.raises(UsageError, match="no embedder for observation-bins9x64.*Fine-tune"):
        embedders(torch.zeros(2, 16), given)


def test_near_values_begin_near_each_other() -> None:
    torch.manual_seed(0)
    wide = Embedders(CompactForm(positions=1, width=64, signatures=(BINS,)), 16)
    rows = wide.by_name[BINS.name].table[:64].detach()
    assert rows.std().item() == pytest.approx(0.5, rel=0.2)
    near = torch.cosine_similarity(rows[:-1], rows[1:]).mean()
    far = torch.cosine_similarity(rows[:-32], rows[32:]).mean()
    assert near > far + 0.2


def test_what_neighbours_form_is_known_wherever_it_lies() -> None:
    board = Signature("observation", (Run("board", 36, 20, 3),))
    torch.manual_seed(0)
    form = CompactForm(positions=1, width=8, convolutions=2, signatures=(board, BINS))
    embedders = Embedders(form, 16)
    embedder = embedders.by_name[board.name]
    here, there = torch.zeros(2, 6, 6, dtype=torch.int64)
    here[2, 1:3] = there[3, 2:4] = torch.tensor([1, 2])
    rows = embedder.rows(torch.stack([here, there]).flatten(1) + 20)
    seen = embedder._with_neighbours(rows).detach().unflatten(1, (6, 6))
    # A convolution of three cells twice: two cells from the edge no cell beyond it is seen.
    torch.testing.assert_close(seen[0, 2:3, 2:3], seen[1, 3:4, 3:4])
    assert not torch.allclose(seen[0, 3, 3], seen[1, 3, 3])
    near = embedder._with_neighbours(rows)[0].unflatten(0, (6, 6))[2, 2].sum()
    felt = torch.autograd.grad(near, rows)[0][0].any(dim=1).unflatten(0, (6, 6))
    assert felt[:5, :5].any() and not felt[5].any() and not felt[:, 5].any()
    # Tokens that are no board have no neighbours.
    assert not embedders.by_name[BINS.name].convolutions


def test_features_have_unit_variance() -> None:
    torch.manual_seed(0)
    values = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
    features = fourier_features(values, 256, lowest=1.0, highest=6.0)
    assert features.shape == (500, 256)
    assert features.square().mean().item() == pytest.approx(1.0, rel=0.1)
