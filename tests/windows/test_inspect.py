from __future__ import annotations

import json
from pathlib import Path

import pytest

from generalist.shards.reader import TaskData
from generalist.tokenization.layout import document_layout
from generalist.windows.inspect import describe
from tests.dataset_folders import VOCABULARY, control_layout, write_task


def test_the_summary_is_what_the_episodes_add_up_to(tmp_path: Path) -> None:
    folder = write_task(
        tmp_path, "gym/A-v0", control_layout(), [5, 10, 20], True, block_tokens=50, shard_tokens=90
    )
    write_task(tmp_path, "text/words", document_layout(VOCABULARY), [7, 9])
    control, text = describe(tmp_path)
    data = TaskData(folder)
    assert (control.task, control.episodes, control.steps) == ("gym/A-v0", 3, 35)
    assert control.tokens == 35 * control.tokens_per_timestep == 35 * 6
    returns = [float(data.rewards(i).sum(dtype="float64")) for i in range(3)]
    assert control.mean_return == pytest.approx(sum(returns) / 3)
    assert control.relabelled == sum(r["relabelled"] for r in data.records) / 35
    assert (text.tokens, text.tokens_per_timestep, text.mean_return) == (16, 1, None)
    assert json.loads(json.dumps(control.to_dict()))["episodes"] == 3


def test_an_empty_folder_is_described_too(tmp_path: Path) -> None:
    write_task(tmp_path, "gym/A-v0", control_layout(), [])
    (summary,) = describe(tmp_path)
    assert (summary.episodes, summary.tokens, summary.mean_return) == (0, 0, None)
