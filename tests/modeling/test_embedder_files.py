"""Embedders on the disk: what is written is read, and old ones are kept when tasks are added."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from generalist.modeling import PARTS_FOLDER
from generalist.modeling.embedder_files import (
    FORM_FILE,
    load_embedders,
    save_embedders,
    start_embedders,
    stored_form,
)
from generalist.modeling.embedders import Embedders
from generalist.tokenization.compact import CompactForm, Run, Signature

SEEN = Signature("observation", (Run("bins", 3, 100, 64),))
OTHER = Signature("observation", (Run("discrete", 2, 20, 5),))
FORM = CompactForm(positions=2, width=8, tasks=("a", "b"), signatures=(SEEN,), queries=1)
WIDER = CompactForm(
    positions=2, width=8, tasks=("a", "b", "c"), signatures=(SEEN, OTHER), queries=3
)


def saved(folder: Path) -> Embedders:
    (folder / PARTS_FOLDER).mkdir(parents=True)
    torch.manual_seed(3)
    embedders = Embedders(FORM, 16)
    save_embedders(embedders, folder)
    return embedders


def test_what_is_written_is_read(tmp_path: Path) -> None:
    embedders = saved(tmp_path)
    assert stored_form(tmp_path) == FORM and stored_form(tmp_path / "elsewhere") is None
    state = torch.get_rng_state()
    again = load_embedders(tmp_path, 16)
    assert again is not None and torch.equal(torch.get_rng_state(), state)
    for name, weight in embedders.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)


def test_a_form_of_earlier_has_no_convolutions(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / PARTS_FOLDER / FORM_FILE
    form = json.loads(path.read_text())
    del form["convolutions"]
    path.write_text(json.dumps(form))
    assert stored_form(tmp_path) == FORM


def test_what_a_run_starts_from_is_kept_and_what_is_new_follows_from_the_seed(
    tmp_path: Path,
) -> None:
    old = saved(tmp_path).state_dict()
    given = {"coordinates": {}, "source": str(tmp_path)}
    one, two, other = (start_embedders(WIDER, 16, seed=seed, **given) for seed in (1, 1, 2))
    for name, weight in one.state_dict().items():
        assert torch.equal(two.state_dict()[name], weight)
        if name in old:
            assert torch.equal(weight[: len(old[name])], old[name])
    assert not torch.equal(one.tasks[3], other.tasks[3])
    assert not torch.equal(one.queries[1:], other.queries[1:])
    assert torch.equal(one.queries[:1], other.queries[:1])
