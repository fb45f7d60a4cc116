"""Windows: every token accounted for, targets where they belong, rows pure functions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.shards.reader import DamagedShard, TaskData
from generalist.vocabulary import Vocabulary
from generalist.windows.batch import IGNORE, Batch
from generalist.windows.windows import WindowSampler
from tests.dataset_folders import VOCABULARY, control_layout, make_header, write_task
from tests.shards.test_reader import flipped_bit
from tests.windows.segments import END, PAD, header_of, identify, row_of, sampler, segments_of


def test_every_segment_is_what_the_dataset_holds(tasks: list[TaskData]) -> None:
    packed = sampler(tasks, seed=3)
    kinds: Counter[int] = Counter()
    for number in range(60):
        for segment in segments_of(row_of(packed, number), tasks):
            data = tasks[segment.task]
            layout, kinds[segment.task] = data.layout, kinds[segment.task] + 1
            episode, first = identify(segment.tokens, data)
            header = header_of(data, data.record(episode)["instruction"])
            np.testing.assert_array_equal(segment.header, header)
            actions, count = layout.positions.of_role("action"), len(segment.tokens)
            k = len(actions)
            labels = data.labels(episode)
            expected = (
                segment.tokens[:, actions]
                if labels is None
                else labels[first * k : (first + count) * k].reshape(count, k)
            )
            found = segment.targets[:, actions]
            np.testing.assert_array_equal(found, expected)
            others = np.delete(segment.targets, actions, axis=1)
            assert (others == IGNORE).all()
            flags = np.repeat([f.codec.ordinal and f.role == "action" for f in layout.fields],
                              [f.tokens for f in layout.fields])  # fmt: skip
            ordinal = np.insert(flags, len(flags) - k, [False] * (not layout.is_document))
            assert (segment.ordinal == ordinal).all()
    assert set(kinds) == {0, 1, 2, 3}


def test_rows_are_full_and_padding_is_small(tasks: list[TaskData]) -> None:
    for length in (256, 512, 1024):
        packed = sampler(tasks, length)
        batch = packed.batch(0, 200)
        assert batch.input_ids.shape == (200, length) and batch.input_ids.dtype == np.int64
        padding = batch.task_index < 0
        assert padding.mean() < 0.03 and padding.mean() == packed.usage(200).padding
        assert (batch.input_ids[padding] == PAD).all()
        assert (batch.targets[padding] == IGNORE).all() and not batch.ordinal[padding].any()
        assert ((batch.targets != IGNORE).sum(axis=1) > 0).all()
        for row in (row_of(packed, number) for number in range(200)):
            used = int((row.task_index >= 0).sum())
            assert (row.task_index[:used] >= 0).all()
            np.testing.assert_array_equal(row.position_ids[used:], np.arange(length - used))


def equal(one: Batch, other: Batch) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def test_a_row_depends_on_seed_and_number_alone(tasks: list[TaskData]) -> None:
    first, again = sampler(tasks, seed=1), sampler(tasks, seed=1)
    whole = first.batch(10, 12)
    again.batch(500, 3)  # what was read before does not matter
    for split in (1, 5, 11):
        left, right = again.batch(10, split), again.batch(10 + split, 12 - split)
        names = [name for name, value in vars(left).items() if value is not None]
        joined = Batch(
            **{name: np.concatenate([vars(left)[name], vars(right)[name]]) for name in names}
        )
        assert equal(whole, joined)
    assert not equal(whole, sampler(tasks, seed=2).batch(10, 12))
    assert len({row.tobytes() for row in first.batch(0, 200).input_ids}) > 180


def test_documents_end(tasks: list[TaskData]) -> None:
    data = tasks[3]
    packed = sampler([data], 256, seed=4)
    ends, rows = 0, 400
    for number in range(rows):
        for segment in segments_of(row_of(packed, number), [data]):
            tokens, targets = segment.tokens.ravel(), segment.targets.ravel()
            np.testing.assert_array_equal(tokens, targets)
            place = np.flatnonzero(tokens == END)
            episode, first = identify(segment.tokens, data)
            if len(place):
                ends += 1
                assert place.tolist() == [len(tokens) - 1]
                assert first + len(tokens) == data.record(episode)["steps"] + 1
            else:
                assert first + len(tokens) <= data.record(episode)["steps"]
    # The end is seen as often as any other token of a document.
    total = packed.usage(rows).tokens[data.task] * rows * 256
    assert ends / total == pytest.approx(len(data) / (data.steps + len(data)), rel=0.25)


def test_episodes_of_other_tasks_do_not_end_so(tasks: list[TaskData]) -> None:
    assert not (sampler(tasks[:3]).batch(0, 100).input_ids == END).any()


def test_mistakes_are_sentences(tasks: list[TaskData], tmp_path: Path) -> None:
    with pytest.raises(GeneralistError, match="make the window larger"):
        sampler(tasks, 32)
    with pytest.raises(GeneralistError, match="weights"):
        WindowSampler(tasks, [1.0], header_of)
    with pytest.raises(GeneralistError, match="negative"):
        WindowSampler(tasks, [1, 1, 1, -1], header_of)
    empty = write_task(tmp_path, "gym/Empty-v0", control_layout(), [])
    with pytest.raises(GeneralistError, match="no episodes"):
        sampler([TaskData(empty)])


def test_two_layouts_of_a_task_are_refused_by_name_and_folders(tmp_path: Path) -> None:
    one = write_task(tmp_path / "one", "gym/A-v0", control_layout(3), [10])
    other = write_task(tmp_path / "other", "gym/A-v0", control_layout(4), [10])
    with pytest.raises(GeneralistError, match="two layouts") as error:
        sampler([TaskData(one), TaskData(other)])
    for part in ("gym/A-v0", str(one), str(other)):
        assert part in str(error.value)


def test_tasks_of_two_vocabularies_do_not_mix(tasks: list[TaskData], tmp_path: Path) -> None:
    from generalist.shards.manifest import DatasetHeader
    from generalist.shards.shards import ShardWriter
    from tests.dataset_folders import make_episode

    layout = control_layout()
    other = Vocabulary([*((r.name, r.size) for r in VOCABULARY)][:-1] + [("mouse", 10)])
    header = DatasetHeader.create("gym/Toy-v0", layout, other, "processor-1")
    with ShardWriter(tmp_path, header) as writer:
        writer.add(make_episode(layout, 10, 0))
    with pytest.raises(GeneralistError) as error:
        sampler([tasks[0], TaskData(tmp_path)])
    assert other.fingerprint in str(error.value) and VOCABULARY.fingerprint in str(error.value)
    assert make_header("a/b", layout).vocabulary_fingerprint != header.vocabulary_fingerprint


def test_damage_met_in_the_middle_of_training_is_named(folder: Path) -> None:
    flipped_bit(folder)
    data = TaskData(folder)  # a flipped bit in a payload shows only when it is read
    with pytest.raises(DamagedShard, match="00001-0001"):
        sampler([data], 256).batch(0, 100)
    batch = sampler([TaskData(folder, skip_damaged=True)], 256).batch(0, 100)
    assert (batch.task_index == 0).mean() > 0.9


def test_action_dropout_hides_the_actions_taken_and_nothing_else(tasks: list[TaskData]) -> None:
    plain, dropped = sampler(tasks, seed=5), sampler(tasks, seed=5, action_dropout=1.0)
    changed = 0
    for number in range(40):
        row, other = row_of(plain, number), row_of(dropped, number)
        for name in ("position_ids", "targets", "ordinal", "task_index"):
            np.testing.assert_array_equal(getattr(row, name), getattr(other, name))
        pairs = zip(segments_of(row, tasks), segments_of(other, tasks), strict=True)
        for before, after in pairs:
            layout = tasks[before.task].layout
            np.testing.assert_array_equal(before.header, after.header)
            np.testing.assert_array_equal(before.demonstration, after.demonstration)
            if layout.is_document:
                np.testing.assert_array_equal(before.tokens, after.tokens)
                continue
            is_action = layout.positions.chosen
            np.testing.assert_array_equal(before.tokens[:, ~is_action], after.tokens[:, ~is_action])
            ids = after.tokens[:, is_action]
            low, high = np.array(layout.legal).T
            assert ((ids >= low) & (ids < high)).all()
            changed += int((ids != before.tokens[:, is_action]).sum())
    assert changed > 1000
    np.testing.assert_array_equal(dropped.batch(7, 3).input_ids[2], row_of(dropped, 9).input_ids)


def test_action_dropout_is_a_share_of_segments(tasks: list[TaskData]) -> None:
    plain, dropped = sampler(tasks[:1], seed=5), sampler(tasks[:1], seed=5, action_dropout=0.3)
    hidden = [
        (before.tokens != after.tokens).any()
        for number in range(300)
        for before, after in zip(
            segments_of(row_of(plain, number), tasks),
            segments_of(row_of(dropped, number), tasks),
            strict=True,
        )
    ]
    assert np.mean(hidden) == pytest.approx(0.3, abs=0.06)


def test_instruction_dropout_leaves_out_the_words_of_a_share_of_segments(
    tasks: list[TaskData],
) -> None:
    """The rest of what is drawn follows the same numbers; documents and other tasks stay."""
    dropped = sampler(tasks, seed=5, instruction_dropout=0.3)
    never, always = (sampler(tasks, seed=5, instruction_dropout=share) for share in (0.0, 1.0))
    told: dict[float, list[bool]] = {}
    for share, packed in ((0.0, never), (0.3, dropped), (1.0, always)):
        told[share] = []
        for number in range(200):
            for segment in segments_of(row_of(packed, number), tasks):
                of_words = tasks[segment.task].task == "babyai/Short"
                has_words = VOCABULARY.special("instruction") in segment.header
                assert of_words or not has_words
                told[share] += [has_words] if of_words else []
    assert np.mean(told[0.3]) == pytest.approx(0.7, abs=0.05)
    assert all(told[0.0]) and not any(told[1.0])
