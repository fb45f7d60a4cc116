"""Which tasks share an embedder, and what a form knows after tasks are added."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from generalist.errors import GeneralistError, UsageError
from generalist.tokenization.compact import (
    UNKNOWN_TASK,
    CompactForm,
    Signature,
    signatures_of,
)
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor

BOX = spaces.Box(-1, 1, (3,), np.float32)


@pytest.fixture
def layout_of(without_frames: GeneralistProcessor):
    def make(observation: spaces.Space, action: spaces.Space) -> Layout:
        return without_frames.layout(observation, action)

    return make


def test_kinds_and_counts_decide_not_names_and_bounds(layout_of) -> None:
    plain = signatures_of(layout_of(BOX, spaces.Discrete(4)))
    wide = signatures_of(layout_of(spaces.Box(-9, 7, (3,), np.float32), spaces.Discrete(4)))
    parts = spaces.Dict(a=spaces.Box(0, 1, (1,), np.float32), b=spaces.Box(0, 1, (2,), np.float32))
    assert plain == wide == signatures_of(layout_of(parts, spaces.Discrete(4)))
    assert plain[0].tokens == 3 and len(plain[0].runs) == 1
    more = signatures_of(layout_of(spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(5)))
    assert more[0] != plain[0] and more[1] != plain[1]
    names = {each.name for each in (*plain, *more)}
    assert len(names) == 4 and all("." not in name for name in names)


def test_a_mixed_observation_has_a_run_of_each_kind(layout_of) -> None:
    mixed = spaces.Dict(a=BOX, b=spaces.Discrete(4), c=BOX)
    observation, _ = signatures_of(layout_of(mixed, spaces.Discrete(2)))
    assert [(run.kind, run.count) for run in observation.runs] == [
        ("bins", 3), ("discrete", 1), ("bins", 3),
    ]  # fmt: skip


def test_a_form_that_is_extended_keeps_its_numbers(layout_of) -> None:
    first = CompactForm(positions=2, width=8).extended(
        {"gym/B": layout_of(BOX, BOX), "gym/A": layout_of(BOX, spaces.Discrete(3))}
    )
    assert first.tasks == ("gym/A", "gym/B") and first.queries == 2
    assert len(first.signatures) == 3  # one observation, two actions
    second = first.extended({"aaa/First": layout_of(spaces.Discrete(9), spaces.Discrete(3))})
    assert second.tasks == (*first.tasks, "aaa/First")
    assert second.signatures[:3] == first.signatures and second.queries == 2
    assert [second.number_of(task) for task in second.tasks] == [1, 2, 3]
    assert second.number_of("gym/Never") == UNKNOWN_TASK
    assert CompactForm.from_dict(second.to_dict()) == second


def test_positions_of_a_timestep(layout_of, without_frames: GeneralistProcessor) -> None:
    form = CompactForm(positions=3, width=8)
    assert form.timestep_positions(layout_of(BOX, spaces.Discrete(3))) == 3
    assert form.timestep_positions(layout_of(spaces.Discrete(9), BOX)) == 5
    assert form.timestep_positions(without_frames.document_layout()) == 1


def test_what_a_form_cannot_act_in_is_refused(layout_of) -> None:
    form = CompactForm(positions=1, width=8).extended({"gym/A": layout_of(BOX, spaces.Discrete(3))})
    form.check("gym/New", layout_of(BOX, spaces.Discrete(9)))
    with pytest.raises(UsageError, match="gym/New.*no embedder.*observation-bins3"):
        form.check("gym/New", layout_of(spaces.Discrete(9), spaces.Discrete(3)))
    with pytest.raises(UsageError, match="actions of 3 tokens.*at most 1"):
        form.check("gym/New", layout_of(BOX, BOX))


@pytest.mark.parametrize("damage", [{"tasks": None}, {"signatures": [{"role": "x"}]}, {"more": 1}])
def test_what_is_no_form_is_said(damage: dict) -> None:
    data = {**CompactForm(positions=1, width=8).to_dict(), **damage}
    with pytest.raises(GeneralistError, match="no compact form"):
        CompactForm.from_dict(data)


def test_documents_have_no_signature(without_frames: GeneralistProcessor) -> None:
    form = CompactForm(positions=1, width=8).extended({"text/x": without_frames.document_layout()})
    assert not form.tasks and not form.signatures
    assert Signature("action", ()).tokens == 0
