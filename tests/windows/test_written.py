"""Rows with text after what is seen: each token is where it is read, filling has no loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from generalist.shards.reader import TaskData
from generalist.shards.shards import EncodedEpisode, ShardWriter
from generalist.tokenization.compact import QUERIES, CompactForm, signatures_of
from generalist.tokenization.discrete import DiscreteCodec
from generalist.tokenization.layout import Layout, Part, stored_layout
from generalist.tokenization.text_fields import WrittenCodec
from generalist.windows.batch import IGNORE, Batch
from tests.dataset_folders import VOCABULARY, control_layout, make_header, write_task
from tests.windows.segments import BEGIN, END, INSTRUCTIONS, PAD, sampler

SLOT = 6
SEPARATOR = VOCABULARY.special("separator")


def written_layout() -> Layout:
    codec = WrittenCodec((), "str", SLOT, VOCABULARY["text"].size)
    seen = DiscreteCodec((3,), "int64", (0,) * 3, (99,) * 3)
    fields = (
        Part("observation", (), seen, VOCABULARY["discrete"].start),
        Part("action", (), codec, VOCABULARY["text"].start),
    )
    return stored_layout(fields, SEPARATOR)


def text(rng: np.random.Generator) -> np.ndarray:
    """(k,) ids of a text of any length that fits."""
    length = int(rng.integers(SLOT + 1))
    ids = [*rng.integers(8192, size=length), *[END] * (length < SLOT)]
    return np.array([*ids, *[PAD] * (SLOT - len(ids))])


def write_texts(folder: Path, task: str, *, labelled: bool) -> Path:
    """Sixty pictures, whose second number is that of the episode."""
    layout, rng = written_layout(), np.random.default_rng(0)
    with ShardWriter(folder, make_header(task, layout)) as writer:
        for seed in range(60):
            seen = VOCABULARY["discrete"].start + np.array([[0, seed, int(rng.integers(9))]])
            tokens = layout.weave({"observation": seen, "action": text(rng)[None]}).ravel()
            labels = text(rng) if labelled else None
            record = {"seed": seed, "instruction": None if labelled else INSTRUCTIONS[seed % 3]}
            writer.add(EncodedEpisode(tokens, np.zeros(1), labels, record))
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[TaskData]:
    """Pictures with texts, some of which have labels, and control."""
    root: Path = tmp_path_factory.mktemp("data")
    folders = [
        write_texts(root / "vqa" / "Plain", "vqa/Plain", labelled=False),
        write_texts(root / "caption" / "Corrected", "caption/Corrected", labelled=True),
        write_task(root, "gym/Control", control_layout(), [30] * 20),
    ]
    return [TaskData(folder) for folder in folders]


def text_of(data: TaskData, episode: int) -> np.ndarray:
    """(k,) ids that should have been written, of an episode of one timestep."""
    own = data.labels(episode)
    return np.asarray(data.tokens(episode)[-SLOT:] if own is None else own, np.int64)


def texts_in(batch: Batch, tasks: list[TaskData], number: int) -> list[tuple[int, int]]:
    """(start, stop) flat places of the segments of a task."""
    owner, position = batch.task_index.ravel(), batch.position_ids.ravel()
    starts = [*np.flatnonzero(position == 0), len(owner)]
    return [(a, b) for a, b in zip(starts, starts[1:], strict=False) if owner[a] == number]


@pytest.mark.parametrize("positions", [1, 3])
def test_in_the_compact_form_text_stands_behind_what_is_seen(
    tasks: list[TaskData], positions: int
) -> None:
    form = CompactForm(positions=positions, width=4)
    form = form.extended({data.task: data.layout for data in tasks})
    assert form.queries == 1  # of the control task alone
    batch = sampler(tasks, 48, form=form, seed=3, prompt_fraction=1.0).batch(0, 30)
    ids, targets = batch.input_ids.ravel(), batch.targets.ravel()
    given = {each.name: dict(zip(each.index.tolist(), each.ids, strict=True))
             for each in batch.given}  # fmt: skip
    seen_at = given[signatures_of(tasks[0].layout)[0].name]
    for number in (0, 1):
        segments = texts_in(batch, tasks, number)
        assert len(segments) > 10
        for start, stop in segments:
            body = stop - positions - SLOT
            assert ids[start] == BEGIN and (ids[body : stop - SLOT] == SEPARATOR).all()
            seen = seen_at[body]
            episode = int(seen[1] - VOCABULARY["discrete"].start)
            text = text_of(tasks[number], episode)
            assert np.array_equal(seen, tasks[number].tokens(episode)[:3])
            assert np.array_equal(ids[stop - SLOT : stop], text)
            wanted = np.where(text == PAD, IGNORE, text)
            assert np.array_equal(targets[stop - SLOT - 1 : stop - 1], wanted)
            assert (targets[start : stop - SLOT - 1] == IGNORE).all() and targets[stop - 1] < 0
            assert batch.query.ravel()[stop - SLOT - 1 : stop - 1].all()
            assert not any(start <= place < stop for place in given[QUERIES])
    assert (batch.weight.ravel() == (targets != IGNORE)).all()
    assert texts_in(batch, tasks, 2)


def test_in_the_flat_form_filling_has_no_loss_and_text_is_never_hidden(
    tasks: list[TaskData],
) -> None:
    batch = sampler(tasks, 64, seed=3, action_dropout=1.0, prompt_fraction=1.0).batch(0, 30)
    ids, targets = batch.input_ids.ravel(), batch.targets.ravel()
    for number in (0, 1):
        for _, stop in texts_in(batch, tasks, number):
            episode = int(ids[stop - SLOT - 3] - VOCABULARY["discrete"].start)
            text = text_of(tasks[number], episode)
            assert np.array_equal(ids[stop - SLOT : stop], text)
            assert np.array_equal(targets[stop - SLOT : stop], np.where(text == PAD, IGNORE, text))
