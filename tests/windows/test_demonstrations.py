"""A demonstration is another episode of the same task and instruction, each equally likely."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.shards.reader import TaskData
from generalist.shards.shards import ShardWriter
from generalist.windows.demonstrations import Demonstrations
from tests.dataset_folders import control_layout, make_episode, make_header

LAYOUT = control_layout()

episodes = st.lists(
    st.tuples(
        st.sampled_from(["expert", "import", "dagger"]), st.sampled_from([None, "", "a", "b"])
    ),
    min_size=1,
    max_size=8,
)


def write(folder: Path, entries: list[tuple[str, str | None]]) -> TaskData:
    with ShardWriter(folder, make_header("gym/Toy-v0", LAYOUT), block_tokens=20) as writer:
        for seed, (source, instruction) in enumerate(entries):
            writer.add(make_episode(LAYOUT, 2, seed, source=source, instruction=instruction))
    return TaskData(folder)


@settings(max_examples=40, deadline=None)
@given(st.lists(episodes, min_size=1, max_size=3), st.data())
def test_what_may_be_shown_before_an_episode(folders, data) -> None:
    with TemporaryDirectory() as root:
        opened = [write(Path(root) / str(i), entries) for i, entries in enumerate(folders)]
        if data.draw(st.booleans(), label="select"):
            chosen = [
                data.draw(st.permutations(range(len(each))), label="which")[: len(each) // 2 + 1]
                for each in opened
            ]
            opened = [each.select(np.array(own)) for each, own in zip(opened, chosen, strict=True)]
        facts = [[(r["source"], r["instruction"]) for r in each.records] for each in opened]
        demonstrations = Demonstrations(opened)
        for folder, entries in enumerate(facts):
            for episode, (_, instruction) in enumerate(entries):
                expected = {
                    (i, j)
                    for i, others in enumerate(facts)
                    for j, (source, other) in enumerate(others)
                    if source != "dagger" and other == instruction and (i, j) != (folder, episode)
                }
                number = opened[folder].row(episode).instruction
                count = demonstrations.others(folder, episode, number)
                assert count == len(expected)
                drawn = [
                    demonstrations.draw(
                        folder, episode, instruction=number, uniform=(place + 0.5) / max(1, count)
                    )
                    for place in range(max(1, count))
                ]
                # As likely as another: each stands for one part of [0, 1), and all are there.
                assert Counter(drawn) == Counter(expected or [None])


def test_without_instructions_nothing_is_kept_for_each_episode(tmp_path: Path) -> None:
    data = write(tmp_path, [("expert", None)] * 200)
    demonstrations = Demonstrations([data])
    kept = [value for value in vars(demonstrations).values() if isinstance(value, np.ndarray)]
    assert not kept
    with pytest.raises(IndexError):
        demonstrations.draw(0, 0, instruction=5, uniform=0.5)
