"""Which segments are drawn: each step as often as any other, prompts that fit, shares of tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.shards.reader import TaskData
from generalist.shards.shards import append_episodes
from generalist.windows.windows import WindowSampler
from tests.dataset_folders import control_layout, make_episode, write_task
from tests.windows.segments import (
    BEGIN,
    DEMONSTRATION_END,
    INSTRUCTIONS,
    header_of,
    identify,
    identify_by_seed,
    row_of,
    sampler,
    segments_of,
)


def test_demonstrations(tasks: list[TaskData]) -> None:
    length = 1024
    for task in range(3):
        data = tasks[task]
        packed = sampler([data], length, seed=7)
        # The first of a row, for a gap at its end may have no room for one.
        segments = [segments_of(row_of(packed, i), [data])[0] for i in range(400)]
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


def test_a_demonstration_has_the_instruction_of_what_it_is_shown_for(
    tasks: list[TaskData],
) -> None:
    data = tasks[2]
    packed = sampler([data], seed=8, prompt_fraction=1.0)
    prompted = 0
    for number in range(300):
        for segment in segments_of(row_of(packed, number), [data]):
            if len(segment.demonstration):
                prompted += 1
                other = identify(segment.demonstration, data)[0]
                asked = data.record(identify(segment.tokens, data)[0])["instruction"]
                assert data.record(other)["instruction"] == asked
    assert prompted > 500


def test_an_instruction_of_its_own_goes_without_a_demonstration(tmp_path: Path) -> None:
    lengths = [10, 10, 10, 10]
    folder = write_task(
        tmp_path, "babyai/Own", control_layout(), lengths, instructions=(*INSTRUCTIONS[:2], None)
    )  # the first and the last episode have the same one
    data = TaskData(folder)
    packed = sampler([data], seed=1, prompt_fraction=1.0)
    for number in range(100):
        for segment in segments_of(row_of(packed, number), [data]):
            own = identify(segment.tokens, data)[0]
            if len(segment.demonstration):
                assert {own, identify(segment.demonstration, data)[0]} == {0, 3}
            assert own in {0, 3} or not len(segment.demonstration)
    usage = packed.usage(500)
    (name,) = usage.segments
    # Two of four episodes have nothing like them, and each is drawn as often.
    assert usage.unmatched[name] / usage.segments[name] == pytest.approx(0.5, abs=0.06)
    assert usage.prompted[name] + usage.unmatched[name] <= usage.segments[name]
    none = sampler([data], prompt_fraction=0.0).usage(50)
    assert none.prompted == none.unmatched == {name: 0}


def test_an_agents_own_episodes_are_no_demonstrations(tmp_path: Path) -> None:
    layout = control_layout()
    folder = write_task(tmp_path, "gym/Toy-v0", layout, [40] * 3)
    append_episodes(
        folder,
        [make_episode(layout, 40, s, source="dagger", instruction=None) for s in range(3, 9)],
    )
    data = TaskData(folder)
    packed = sampler([data], prompt_fraction=1.0)
    segments = [s for i in range(100) for s in segments_of(row_of(packed, i), [data])]
    demonstrated = {identify(s.demonstration, data)[0] for s in segments if len(s.demonstration)}
    learned = {identify(s.tokens, data)[0] for s in segments}
    assert demonstrated == {0, 1, 2} and learned == set(range(9))
    alone = write_task(tmp_path / "alone", "gym/Toy-v0", layout, [])
    append_episodes(
        alone, [make_episode(layout, 40, s, source="dagger", instruction=None) for s in range(4)]
    )
    batch = sampler([TaskData(alone)], prompt_fraction=1.0).batch(0, 50)
    assert not (batch.input_ids == DEMONSTRATION_END).any(), "nobody demonstrated"


def test_corrections_begin_with_demonstrations_of_the_same_instruction(tmp_path: Path) -> None:
    layout, task = control_layout(), "babyai/Both"
    collected = TaskData(
        write_task(tmp_path / "a", task, layout, [20] * 6, instructions=INSTRUCTIONS[:2])
    )
    folder = write_task(tmp_path / "b", task, layout, [])
    # Numbered otherwise in this folder's index; the last of them nobody demonstrated.
    asked = [INSTRUCTIONS[2], INSTRUCTIONS[1], INSTRUCTIONS[0]] * 2
    append_episodes(
        folder,
        [
            make_episode(layout, 20, 10 + number, source="dagger", instruction=instruction)
            for number, instruction in enumerate(asked)
        ],
    )
    corrections = TaskData(folder)
    both = [collected, corrections]
    packed = sampler(both, seed=5, prompt_fraction=1.0)
    shown: Counter[str] = Counter()
    for number in range(200):
        for segment in segments_of(row_of(packed, number), both):
            if segment.task == 1:
                own = corrections.record(identify_by_seed(segment.tokens, corrections))
                if len(segment.demonstration):
                    other = collected.record(identify(segment.demonstration, collected)[0])
                    assert other["instruction"] == own["instruction"]
                shown[own["instruction"]] += len(segment.demonstration) > 0
    assert shown[INSTRUCTIONS[2]] == 0
    assert min(shown[INSTRUCTIONS[0]], shown[INSTRUCTIONS[1]]) > 100


def test_context_steps_cut_segments_but_not_texts(tasks: list[TaskData]) -> None:
    packed = sampler(tasks, prompt_fraction=0.2, context_steps=2)
    rows = 400
    lengths: dict[int, list[int]] = {}
    for i in range(rows):
        for segment in segments_of(row_of(packed, i), tasks):
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
        for segment in segments_of(row_of(packed, i), tasks):
            longest[segment.task] = max(longest[segment.task], len(segment.tokens))
    assert longest[:3] == [1, 2, 2]


def seen_steps(packed: WindowSampler, data: TaskData, rows: int) -> list[np.ndarray]:
    """How often each step of each episode is shown and learned."""
    seen = [np.zeros(steps) for steps in data.episodes["steps"]]
    for number in range(rows):
        for segment in segments_of(row_of(packed, number), [data]):
            episode, first = identify(segment.tokens, data)
            seen[episode][first : first + len(segment.tokens)] += 1
    return seen


@pytest.mark.parametrize("context_steps", [None, 1, 7])
def test_each_step_is_as_likely_as_any_other(tmp_path: Path, context_steps: int | None) -> None:
    layout = control_layout()
    data = TaskData(write_task(tmp_path, "gym/Uneven-v0", layout, [10] * 150 + [500] * 3))
    packed = sampler([data], seed=1, prompt_fraction=0.0, context_steps=context_steps)
    seen = seen_steps(packed, data, 700)
    short, long = np.stack(seen[:150]), np.stack(seen[150:])
    assert short.mean() == pytest.approx(long.mean(), rel=0.1)
    # Within an episode too: its first steps, where an agent always has to act, and its last.
    by_step = short.mean(axis=0) / short.mean()
    assert by_step.min() > 0.85 and by_step.max() < 1.15
    for part in np.array_split(long.mean(axis=0) / long.mean(), 20):
        assert 0.75 < part.mean() < 1.25


def test_prompts_and_instructions_leave_steps_as_likely(tasks: list[TaskData]) -> None:
    """Where a prompt takes room, about: it is the same room in each window of a task."""
    data = tasks[2]  # 1 to 19 steps
    seen = seen_steps(sampler([data], seed=2, prompt_fraction=0.5), data, 1500)
    short, long = (np.concatenate([s for s in seen if len(s) in r]) for r in
                   (range(1, 6), range(14, 20)))  # fmt: skip
    assert short.mean() == pytest.approx(long.mean(), rel=0.15)


def test_a_selection_is_drawn_by_steps_too(tmp_path: Path) -> None:
    lengths = [10, 400] * 20
    data = TaskData(write_task(tmp_path, "gym/Uneven-v0", control_layout(), lengths))
    chosen = data.select(np.array([39, 1, 0, 2, 4, 6, 8, 10]))
    packed = sampler([chosen], seed=3, prompt_fraction=0.0, context_steps=5)
    seen = seen_steps(packed, data, 500)
    assert sum(s.sum() for i, s in enumerate(seen) if i not in {39, 1, 0, 2, 4, 6, 8, 10}) == 0
    rates = [seen[i].mean() for i in (39, 1)], np.mean([seen[i].mean() for i in range(0, 12, 2)])
    assert rates[0] == pytest.approx([rates[1]] * 2, rel=0.1)


def test_weights_are_shares_of_tokens(tasks: list[TaskData]) -> None:
    packed = WindowSampler(tasks, [4, 2, 3, 1], header_of, window_tokens=512, seed=0)
    usage = packed.usage(3000)
    for data, share in zip(tasks, [0.4, 0.2, 0.3, 0.1], strict=True):
        assert usage.tokens[data.task] == pytest.approx(share, abs=0.03)
    assert sum(usage.targets.values()) == pytest.approx(1)
    assert sum(usage.tokens.values()) + usage.padding == pytest.approx(1)


def test_a_task_of_weight_zero_is_never_drawn(tasks: list[TaskData]) -> None:
    batch = WindowSampler(tasks, [1, 0, 1, 0], header_of, window_tokens=512).batch(0, 100)
    assert set(np.unique(batch.task_index)) <= {-1, 0, 2}


def test_an_instruction_too_long_for_the_window_is_named_when_data_are_opened(
    tmp_path: Path,
) -> None:
    layout, long = control_layout(), "go to " + "the red ball and then to " * 40 + "the box"
    folder = write_task(tmp_path, "babyai/Long", layout, [5] * 40)
    append_episodes(folder, [make_episode(layout, 5, 90, instruction=long)])

    def by_words(data: TaskData, instruction: str | None) -> np.ndarray:
        return np.array([BEGIN, *(200 + i for i in range(len((instruction or "").split())))])

    data = TaskData(folder)
    with pytest.raises(GeneralistError, match=r"episode 40 of babyai/Long .* 24\d tokens"):
        WindowSampler([data], [1.0], by_words, window_tokens=250)
    with pytest.raises(GeneralistError, match="make the window larger"):
        WindowSampler([data], [1.0], by_words, window_tokens=250)
    tokens = 1 + len(long.split())
    smallest = tokens + layout.tokens_per_timestep
    batch = WindowSampler(
        [data], [1.0], by_words, window_tokens=smallest, prompt_fraction=1.0
    ).batch(0, 300)
    assert (batch.task_index >= 0).any(axis=1).all()
    with pytest.raises(GeneralistError, match="episode 40"):
        WindowSampler([data], [1.0], by_words, window_tokens=smallest - 1)
    alone = data.select(np.array([40]))
    with pytest.raises(GeneralistError, match="episode 40 of babyai/Long"):
        WindowSampler([alone], [1.0], by_words, window_tokens=smallest - 1)
    fine = data.select(np.arange(40))  # it is not trained on
    assert WindowSampler([fine], [1.0], by_words, window_tokens=64).batch(0, 10) is not None
