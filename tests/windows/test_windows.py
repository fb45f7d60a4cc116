"""Windows: every token accounted for, targets where they belong, rows pure functions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.shards.reader import DamagedShard, TaskData
from generalist.tokenization.layout import document_layout
from generalist.vocabulary import Vocabulary
from generalist.windows.windows import IGNORE, Batch, Row, WindowSampler, rows_for
from tests.dataset_folders import VOCABULARY, control_layout, grid_layout, make_header, write_task
from tests.shards.test_reader import flipped_bit

BEGIN = VOCABULARY.special("begin")
PAD = VOCABULARY.special("pad")
DEMONSTRATION_END = VOCABULARY.special("demonstration_end")
INSTRUCTIONS = ("go to the red ball", "go to the box", "go to the grey key")


def header_of(data: TaskData, instruction: str | None) -> np.ndarray:
    """begin, a token for the task, one for the instruction."""
    if data.layout.is_document:
        return np.array([BEGIN])
    ids = [BEGIN, 100 + len(data.task)]
    if instruction is not None:
        ids += [VOCABULARY.special("instruction"), 200 + INSTRUCTIONS.index(instruction)]
    return np.array(ids)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[TaskData]:
    """Long, medium and short episodes with and without labels and instructions, and text."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    short = [int(n) for n in rng.integers(1, 20, 60)]
    texts = [int(n) for n in rng.integers(20, 900, 30)]
    document = document_layout(VOCABULARY)
    folders = [
        write_task(root, "gym/Long-v0", control_layout(), [500] * 20, True, block_tokens=20_000),
        write_task(root, "dmc/wide", control_layout(8, 3), [120] * 20),
        write_task(root, "babyai/Short", grid_layout(), short, True, INSTRUCTIONS),
        write_task(root, "text/words", document, texts),
    ]
    return [TaskData(folder) for folder in folders]


def sampler(tasks: list[TaskData], length: int = 512, **options: Any) -> WindowSampler:
    return WindowSampler(tasks, [1.0] * len(tasks), header_of, length, **options)


@dataclass
class Segment:
    """A segment read back from a row by the rules, not by the sampler's code."""

    task: int
    header: np.ndarray
    demonstration: np.ndarray
    tokens: np.ndarray  # (n, S)
    targets: np.ndarray  # (n, S)
    ordinal: np.ndarray  # (n, S)


def segments_of(row: Row, tasks: list[TaskData]) -> list[Segment]:
    found = []
    used = int((row.task_index >= 0).sum())
    starts = [j for j in range(used) if row.position_ids[j] == 0]
    for start, stop in zip(starts, [*starts[1:], used], strict=True):
        ids, targets = row.input_ids[start:stop], row.targets[start:stop]
        np.testing.assert_array_equal(row.position_ids[start:stop], np.arange(stop - start))
        assert ids[0] == BEGIN and len(set(row.task_index[start:stop])) == 1
        task = int(row.task_index[start])
        layout = tasks[task].layout
        size = layout.tokens_per_timestep
        header = (
            1 if layout.is_document else 4 if ids[2] == VOCABULARY.special("instruction") else 2
        )
        ends = np.nonzero(ids == DEMONSTRATION_END)[0]
        body = int(ends[0]) + 1 if len(ends) else header
        assert (targets[:body] == IGNORE).all() and not row.ordinal[start : start + body].any()
        assert (stop - start - body) % size == 0 and stop - start > body
        parts = (array.reshape(-1, size) for array in (ids[body:], targets[body:]))
        ordinal = row.ordinal[start + body : stop].reshape(-1, size)
        demonstration = ids[header : max(header, body - 1)].reshape(-1, size)
        found.append(Segment(task, ids[:header], demonstration, *parts, ordinal))
    return found


def identify(tokens: np.ndarray, data: TaskData) -> tuple[int, int]:
    """(episode, first step) of (n, S) timesteps, which must be those of one episode."""
    start = data.layout.fields[0].start
    if data.layout.is_document:
        for episode in range(len(data)):
            windows = np.lib.stride_tricks.sliding_window_view(
                data.tokens(episode), min(len(tokens), len(data.tokens(episode)))
            )
            if windows.shape[1] == len(tokens):
                hits = np.nonzero((windows == tokens.ravel()).all(axis=1))[0]
                if len(hits):
                    return episode, int(hits[0])
        raise AssertionError("this text is in no document")
    first, episode = int(tokens[0, 0] - start), int(tokens[0, 1] - start)
    size = data.layout.tokens_per_timestep
    expected = data.tokens(episode)[first * size : (first + len(tokens)) * size]
    np.testing.assert_array_equal(tokens.ravel(), expected)
    return episode, first


def test_every_segment_is_what_the_dataset_holds(tasks: list[TaskData]) -> None:
    packed = sampler(tasks, seed=3)
    kinds: Counter[int] = Counter()
    for number in range(60):
        for segment in segments_of(packed.row(number), tasks):
            data = tasks[segment.task]
            layout, kinds[segment.task] = data.layout, kinds[segment.task] + 1
            episode, first = identify(segment.tokens, data)
            header = header_of(data, data.record(episode)["instruction"])
            np.testing.assert_array_equal(segment.header, header)
            k, count = layout.action_tokens, len(segment.tokens)
            labels = data.labels(episode)
            expected = (
                segment.tokens[:, layout.action_positions]
                if labels is None
                else labels[first * k : (first + count) * k].reshape(count, k)
            )
            found = segment.targets[:, layout.action_positions]
            np.testing.assert_array_equal(found, expected)
            others = np.delete(segment.targets, layout.action_positions, axis=1)
            assert (others == IGNORE).all()
            ordinal = np.zeros(layout.tokens_per_timestep, bool)
            ordinal[layout.action_positions] = layout.ordinal
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
        for row in map(batch.row, range(200)):
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
        pairs = zip(vars(left).values(), vars(right).values(), strict=True)
        joined = Batch(*(np.concatenate(pair) for pair in pairs))
        assert equal(whole, joined)
    assert not equal(whole, sampler(tasks, seed=2).batch(10, 12))
    assert len({row.tobytes() for row in first.batch(0, 200).input_ids}) > 180


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_ranks_share_the_same_rows(world: int) -> None:
    for step in (0, 1, 7):
        rows = [i for rank in range(world) for i in rows_for(step, 12, rank, world)]
        assert rows == list(range(step * 12, step * 12 + 12))


def test_rows_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(GeneralistError, match="12 rows a step"):
        rows_for(0, 12, 0, 5)


def test_demonstrations(tasks: list[TaskData]) -> None:
    length = 1024
    for task in range(3):
        data = tasks[task]
        packed = sampler([data], length, seed=7)
        # The first of a row, for a gap at its end may have no room for one.
        segments = [segments_of(packed.row(i), [data])[0] for i in range(400)]
        prompted = [s for s in segments if len(s.demonstration)]
        assert 0.19 < len(prompted) / len(segments) < 0.31
        at_end = 0
        for segment in prompted:
            other, first = identify(segment.demonstration, data)
            assert other != identify(segment.tokens, data)[0]
            assert segment.demonstration.size + 1 <= length // 4
            at_end += first + len(segment.demonstration) == data.record(other)["steps"]
        assert at_end / len(prompted) > 0.38  # half, and more where whole episodes fit
        if task == 0:
            assert at_end / len(prompted) < 0.62


def test_without_prompts_there_are_none(tasks: list[TaskData]) -> None:
    batch = sampler(tasks, prompt_fraction=0.0).batch(0, 100)
    assert not (batch.input_ids == DEMONSTRATION_END).any()
    document = sampler(tasks[3:], prompt_fraction=1.0).batch(0, 20)
    assert not (document.input_ids == DEMONSTRATION_END).any()


def test_an_agents_own_episodes_are_no_demonstrations(tmp_path: Path) -> None:
    from generalist.shards.shards import append_episodes
    from tests.dataset_folders import make_episode

    layout = control_layout()
    folder = write_task(tmp_path, "gym/Toy-v0", layout, [40] * 3)
    append_episodes(
        folder,
        [make_episode(layout, 40, s, source="dagger", instruction=None) for s in range(3, 9)],
    )
    data = TaskData(folder)
    packed = sampler([data], prompt_fraction=1.0)
    segments = [s for i in range(100) for s in segments_of(packed.row(i), [data])]
    demonstrated = {identify(s.demonstration, data)[0] for s in segments if len(s.demonstration)}
    learned = {identify(s.tokens, data)[0] for s in segments}
    assert demonstrated == {0, 1, 2} and learned == set(range(9))
    alone = write_task(tmp_path / "alone", "gym/Toy-v0", layout, [])
    append_episodes(
        alone, [make_episode(layout, 40, s, source="dagger", instruction=None) for s in range(4)]
    )
    batch = sampler([TaskData(alone)], prompt_fraction=1.0).batch(0, 50)
    assert not (batch.input_ids == DEMONSTRATION_END).any(), "corrections begin without prompts"


def test_context_steps_cut_segments_but_not_texts(tasks: list[TaskData]) -> None:
    packed = sampler(tasks, prompt_fraction=0.2, context_steps=2)
    rows = 400
    lengths: dict[int, list[int]] = {}
    for i in range(rows):
        for segment in segments_of(packed.row(i), tasks):
            lengths.setdefault(segment.task, []).append(len(segment.tokens))
    assert [max(lengths[task]) for task in (0, 1, 2)] == [2, 2, 2]
    assert max(lengths[3]) > 100  # a document
    # Shorter segments are drawn more often: the shares of tokens stay those of the weights.
    usage = packed.usage(rows)
    assert all(abs(share - 0.25) < 0.03 for share in usage.tokens.values()), usage
    assert usage.padding < 0.03


def test_context_steps_differ_by_task(tasks: list[TaskData]) -> None:
    packed = sampler(tasks, context_steps={tasks[0].task: 1, "default": 2})
    longest = [0] * len(tasks)
    for i in range(200):
        for segment in segments_of(packed.row(i), tasks):
            longest[segment.task] = max(longest[segment.task], len(segment.tokens))
    assert longest[:3] == [1, 2, 2]


@pytest.mark.parametrize("task", [0, 1, 2])
def test_the_first_step_is_seen_as_often_as_others(tasks: list[TaskData], task: int) -> None:
    data = tasks[task]
    packed = sampler([data], seed=11, prompt_fraction=0.0)
    seen = np.zeros(500)
    for i in range(400):
        for segment in segments_of(packed.row(i), [data]):
            first = identify(segment.tokens, data)[1]
            seen[first : first + len(segment.tokens)] += 1
    alive = np.array([(data.episodes["steps"] > t).sum() for t in range(500)])
    rates = seen[alive > 0] / alive[alive > 0]
    assert rates[0] > 0.7 * np.median(rates)
    assert rates.min() > 0.3 * np.median(rates)


def test_weights_are_shares_of_tokens(tasks: list[TaskData]) -> None:
    packed = WindowSampler(tasks, [4, 2, 3, 1], header_of, 512, seed=0)
    usage = packed.usage(3000)
    for data, share in zip(tasks, [0.4, 0.2, 0.3, 0.1], strict=True):
        assert usage.tokens[data.task] == pytest.approx(share, abs=0.03)
    assert sum(usage.targets.values()) == pytest.approx(1)
    assert sum(usage.tokens.values()) + usage.padding == pytest.approx(1)


def test_a_task_of_weight_zero_is_never_drawn(tasks: list[TaskData]) -> None:
    batch = WindowSampler(tasks, [1, 0, 1, 0], header_of, 512).batch(0, 100)
    assert set(np.unique(batch.task_index)) <= {-1, 0, 2}


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
        row, other = plain.row(number), dropped.row(number)
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
            is_action = np.zeros(layout.tokens_per_timestep, bool)
            is_action[layout.action_positions] = True
            np.testing.assert_array_equal(before.tokens[:, ~is_action], after.tokens[:, ~is_action])
            ids = after.tokens[:, is_action]
            low, high = np.array(layout.legal).T
            assert ((ids >= low) & (ids < high)).all()
            changed += int((ids != before.tokens[:, is_action]).sum())
    assert changed > 1000
    np.testing.assert_array_equal(dropped.batch(7, 3).input_ids[2], dropped.row(9).input_ids)


def test_action_dropout_is_a_share_of_segments(tasks: list[TaskData]) -> None:
    plain, dropped = sampler(tasks[:1], seed=5), sampler(tasks[:1], seed=5, action_dropout=0.3)
    hidden = [
        (before.tokens != after.tokens).any()
        for number in range(300)
        for before, after in zip(
            segments_of(plain.row(number), tasks),
            segments_of(dropped.row(number), tasks),
            strict=True,
        )
    ]
    assert np.mean(hidden) == pytest.approx(0.3, abs=0.06)
