"""A soft label's loss is the cross entropy against its distribution, in both forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from generalist.modeling.build import build_model
from generalist.modeling.embedder_files import start_embedders
from generalist.modeling.recipe import ModelRecipe
from generalist.shards.reader import TaskData
from generalist.shards.shards import ShardWriter
from generalist.shards.soft_labels import soft_label_rows
from generalist.tokenization.compact import CompactForm
from generalist.training.losses import OrdinalTargets
from generalist.training.objective import TokenObjective
from generalist.training.passes import ForwardPass
from generalist.training.tensors import to_tensors
from tests.dataset_folders import VOCABULARY, control_layout, grid_layout, make_episode, make_header
from tests.windows.segments import sampler

LAYOUT = grid_layout(6)
FIRST, STOP = LAYOUT.legal[0]
TABLE = np.random.default_rng(0).integers(0, 4, (STOP - FIRST, STOP - FIRST))
TABLE[np.diag_indices(4)] += 2  # the first half of the labels have a distribution
TABLE[4:] = 0
HARD = np.eye(STOP - FIRST, dtype=np.int64)
BINS = VOCABULARY["continuous"]


def folders_of(root: Path, table: np.ndarray | None) -> list[TaskData]:
    """Two tasks; the weights of the first one's ids are a row of the table, that of the label."""
    with ShardWriter(root / "a", make_header("board/A", LAYOUT), block_tokens=300) as writer:
        for seed in range(8):  # a cell has ten codes, and the first two tell step and seed
            episode = make_episode(LAYOUT, 2 + seed, seed, labelled=True)
            if table is not None:
                weights = table[episode.labels - FIRST]
                ids = np.broadcast_to(np.arange(FIRST, STOP), weights.shape)
                episode.soft_labels = soft_label_rows(ids, weights, VOCABULARY)
            writer.add(episode)
    with ShardWriter(root / "b", make_header("gym/B", control_layout())) as writer:
        for seed in range(3):
            writer.add(make_episode(control_layout(), 20, seed))
    return [TaskData(root / name) for name in "ab"]


def case(root: Path, table: np.ndarray | None, *, form: str, segments: bool, **options: object):
    """An objective and a pass."""
    tasks = folders_of(root, table)
    compact = None
    if form == "compact":
        layouts = {data.task: data.layout for data in tasks}
        compact = CompactForm(positions=1, width=4).extended(layouts)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "layers": 1, "heads": 2}
    model = build_model(ModelRecipe(form=form, **sizes), VOCABULARY, 64, 0)
    if compact is not None:
        model.embedders = start_embedders(compact, 16, seed=0, coordinates={}, source=None)
    ordinal = OrdinalTargets(BINS.start, BINS.stop, 2.0)
    ranges = [(each.start, each.stop) for each in VOCABULARY]
    objective = TokenObjective(model, ordinal, ranges=ranges)
    batch = sampler(tasks, 64, form=compact, seed=3, prompt_fraction=0.3, **options).batch(0, 12)
    halves = [to_tensors(each, np.ones(2), segments=segments) for each in batch.split(7)]
    return objective, halves


def reference(objective: TokenObjective, batch: ForwardPass, table: np.ndarray) -> np.ndarray:
    """Cross entropies of the first task's targets, in numpy from the model's hidden states."""
    (hidden,) = objective._hidden_at(batch, [batch.targets.index])
    head = objective.model.get_output_embeddings().weight
    logits = hidden.detach().double().numpy() @ head.detach().double().numpy().T
    logits -= logits.max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    label = batch.targets.ids.numpy() - FIRST
    mine = batch.targets.task.numpy() == 0
    weights = np.where(table.any(axis=1, keepdims=True), table, HARD)[label[mine]]
    shares = weights / weights.sum(axis=1, keepdims=True)
    return -(shares * logs[mine, FIRST:STOP]).sum(axis=1)


@pytest.mark.parametrize("form", ["flat", "compact"])
@pytest.mark.parametrize("segments", [False, True])
def test_the_loss_is_the_cross_entropy_in_numpy(tmp_path: Path, form: str, segments: bool) -> None:
    objective, halves = case(tmp_path, TABLE, form=form, segments=segments)
    for batch in halves:
        mine = batch.targets.task == 0
        assert batch.soft is not None and 5 < len(batch.soft.number) < mine.sum()
        expected = reference(objective, batch, TABLE)
        found = objective(batch)
        np.testing.assert_allclose(found[mine].detach().numpy(), expected, atol=1e-5)
        assert found[~mine].isfinite().all()


@pytest.mark.parametrize("form", ["flat", "compact"])
def test_a_distribution_of_one_is_the_hard_label_bit_for_bit(tmp_path: Path, form: str) -> None:
    results = []
    for name, table in (("soft", HARD), ("hard", None)):
        objective, halves = case(tmp_path / name, table, form=form, segments=True)
        for full_every in (1, 3):
            objective.full_every = full_every
            losses = torch.cat([objective(batch) for batch in halves])
            objective.zero_grad()
            losses.mean().backward()
            gradients = [p.grad.clone() for p in objective.parameters() if p.grad is not None]
            results.append((losses.detach(), gradients))
        assert all((batch.soft is None) == (table is None) for batch in halves)
    for (soft, of_soft), (hard, of_hard) in zip(results[:2], results[2:], strict=True):
        assert torch.equal(soft, hard)
        assert all(torch.equal(a, b) for a, b in zip(of_soft, of_hard, strict=True))


def test_by_range_the_softmax_is_over_the_range(tmp_path: Path) -> None:
    """Against the loss with all other ids out of reach."""
    objective, (batch, _) = case(tmp_path, TABLE, form="compact", segments=True)
    objective.full_every = 1_000_000
    found = objective(batch).detach().numpy()
    head = objective.model.get_output_embeddings()
    discrete = VOCABULARY["discrete"]
    with torch.no_grad():
        (hidden,) = objective._hidden_at(batch, [batch.targets.index])
        logits = (hidden @ head.weight.T).double()
        logits[:, : discrete.start] = logits[:, discrete.stop :] = -1e9
        logs = logits.log_softmax(1).numpy()
    mine = (batch.targets.task == 0).numpy() & (batch.targets.order % 1_000_000 != 0).numpy()
    weights = np.where(TABLE.any(axis=1, keepdims=True), TABLE, HARD)
    weights = weights[batch.targets.ids.numpy()[mine] - FIRST]
    shares = weights / weights.sum(axis=1, keepdims=True)
    expected = -(shares * logs[mine, FIRST:STOP]).sum(axis=1)
    np.testing.assert_allclose(found[mine], expected, atol=1e-5)


def test_what_was_executed_is_learned_without_labels(tmp_path: Path) -> None:
    _, halves = case(tmp_path, TABLE, form="flat", segments=True, labels=False)
    assert all(batch.soft is None for batch in halves)
