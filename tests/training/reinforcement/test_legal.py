"""Masks of legal actions: acting and the loss obey the same ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from generalist.tokenization.masks import token_masks
from generalist.training.loop import train
from generalist.training.reinforcement.legal import Legal, bounds_of, orders_of
from generalist.training.reinforcement.policy import FORBIDDEN, log_probs_of, tokens_of
from tests.decoding.models import text_only_processor
from tests.masks import masks_of, nested_spaces
from tests.training.reinforcement.conftest import CARTPOLE
from tests.training.runs import assert_bitwise_equal

BOARD = "board/TicTacToe"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flags_are_those_that_an_agent_obeys_token_by_token(data):
    space = data.draw(nested_spaces())
    layout = text_only_processor().layout(spaces.Box(-1, 1, (2,)), space)
    rows = 3
    masks = [data.draw(masks_of(space)) for _ in range(rows)]
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    legal, bounds, orders = Legal.of(layout, masks), bounds_of(layout), orders_of(layout)
    ids = np.zeros((rows, len(orders)), np.int64)
    for order in range(1 + max(orders, default=0)):
        legal.settle(order, ids)
        for place in np.flatnonzero(np.array(orders) == order):
            part = legal.flags[:, bounds[place] : bounds[place + 1]]
            for row in range(rows):
                chosen = random.choice(np.flatnonzero(part[row]))
                ids[row, place] = layout.legal[place][0] + chosen
    for row, mask in enumerate(masks):  # as a decoder asks, one token after the other
        for place, each in enumerate(token_masks(layout, mask)):
            flags = each(ids[row, :place].tolist()) if callable(each) else each
            wanted = np.ones(bounds[place + 1] - bounds[place], bool) if flags is None else flags
            np.testing.assert_array_equal(
                legal.flags[row, bounds[place] : bounds[place + 1]], wanted
            )


class _Head:
    """A model as far as `log_probs_of` asks for one."""

    def __init__(self, rows: int) -> None:
        self.head = nn.Linear(8, rows, bias=False)

    def get_output_embeddings(self) -> nn.Linear:
        return self.head


def test_an_illegal_id_has_no_part_in_probability_entropy_or_gradient():
    torch.manual_seed(0)
    layout = text_only_processor().layout(spaces.Box(-1, 1, (2,)), spaces.Discrete(5))
    ((start, stop),) = layout.legal
    model, hidden = _Head(stop), torch.randn(2, 8, requires_grad=True)
    flags = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1]], bool)
    ids = np.array([[start + 2], [start + 4]])
    (tokens,) = tokens_of([layout], np.zeros(2, int), np.arange(2), ids, legal={0: flags})
    ((_, log_probs),) = log_probs_of(model, hidden, [tokens])
    # Against the softmax over the legal ids alone.
    logits = (hidden @ model.head.weight[start:stop].T).detach().double().numpy()
    some = np.exp(logits[0, [0, 2]] - np.logaddexp(*logits[0, [0, 2]]))
    np.testing.assert_allclose(log_probs.exp()[0].detach(), [some[0], 0, some[1], 0, 0], atol=1e-6)
    assert log_probs.exp()[1].tolist() == [0, 0, 0, 0, 1]
    assert (log_probs.detach().numpy()[~flags] < FORBIDDEN / 2).all()
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    np.testing.assert_allclose(entropy.detach(), [-(some * np.log(some)).sum(), 0], atol=1e-6)
    (entropy.sum() + log_probs[0, 2]).backward()
    moved = model.head.weight.grad.abs().sum(dim=1)[start:stop]
    assert torch.isfinite(hidden.grad).all() and (moved > 0).tolist() == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_a_board_is_played_and_learned_by_its_rules(make_run, tmp_path):
    """Illegal moves would be failures; ratios are 1 before the first step of an unroll."""
    wanted = {
        "tasks": {BOARD: {"environments": 4}, CARTPOLE: {"environments": 2}},
        "unroll": 12, "passes": 1, "minibatches": 1, "kl": 0.1, "max_failures": 0,
    }  # fmt: skip
    sections = {"schedule": {"steps": 4, "warmup_steps": 1}, "log_every": 1}
    run = make_run(wanted, output_dir=tmp_path / "whole", **sections)
    train(run)
    first, *rows = (
        json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    )
    assert first[f"ratio/{BOARD}"] == pytest.approx(1, abs=1e-5)
    assert first[f"lag/{BOARD}"] == pytest.approx(0, abs=1e-5)
    assert first[f"kl/{BOARD}"] == pytest.approx(0, abs=1e-5)
    assert 0 < first[f"entropy/{BOARD}"] < np.log(9)
    for row in rows:
        assert row[f"ratio/{BOARD}"] == pytest.approx(1, abs=1e-4)  # acted and learned alike
    source = tmp_path / "whole" / "checkpoints" / "step-00000003"
    train(make_run(wanted, output_dir=tmp_path / "again", **sections), resume_from=source)
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "again")
