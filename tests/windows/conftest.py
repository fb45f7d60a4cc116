"""Datasets that several tests draw windows from."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.shards.reader import TaskData
from generalist.tokenization.layout import document_layout
from tests.dataset_folders import VOCABULARY, control_layout, grid_layout, write_task
from tests.windows.segments import INSTRUCTIONS


@pytest.fixture(scope="session")
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
