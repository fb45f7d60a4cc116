"""A picture task that nobody configured: collected, continued, mixed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generalist.collecting.collect import collect
from generalist.collecting.worker import CollectJob, Worker
from generalist.errors import GeneralistError
from generalist.shards.manifest import DatasetHeader
from generalist.shards.reader import TaskData
from generalist.tokenization import fit_backgrounds
from generalist.tokenization.fit_backgrounds import has_fitted
from generalist.tokenization.processor import GeneralistProcessor
from generalist.windows.mixture import open_mixture
from generalist.windows.spec import DatasetSpec, dataset_spec
from tests.bits import flipped

TASK = "gym/ALE/Seaquest-v5"
GREY = {"obs_type": "grayscale"}  # (210, 160) uint8


def seaquest(episodes: int = 1, **task: Any) -> DatasetSpec:
    entry = {"task": TASK, "episodes": episodes, "expert": "random", "max_steps": 20, **task}
    return dataset_spec({"tasks": [entry]})


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("grey")
    collect(seaquest(options=GREY), root, 0, progress=False)
    return root


def test_a_picture_task_needs_nothing_to_be_configured(grey: Path) -> None:
    data = TaskData(grey / TASK)
    assert has_fitted(data.layout)
    processor = GeneralistProcessor.default()
    assert processor.frames is not None
    (part,) = data.layout.parts_of("observation")
    codes = data.tokens(0).reshape(20, -1)[:, :36].astype(int) - part.start
    assert (codes == processor.frames.still_code).mean() > 0.4
    episode = processor.decode(data.tokens(0), data.layout, TASK)
    assert episode.observations.shape == (20, 210, 160)
    assert (grey / TASK / "dataset.json").stat().st_size < 60_000


def test_a_process_encodes_with_the_layout_of_the_folder_and_fits_none(
    grey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_backgrounds, "MOST_EPISODES", 0)
    data = TaskData(grey / TASK)
    worker = Worker(GeneralistProcessor.default())
    result = worker.run(CollectJob(seaquest(options=GREY).tasks[0], 0, 0.2, layout=data.layout))
    np.testing.assert_array_equal(result.episodes[0].tokens, data.tokens(0))


def test_a_folder_is_continued_with_the_background_that_it_has(
    grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with the black of version 0.1, whose layouts name a background that nobody has."""
    monkeypatch.setattr(fit_backgrounds, "random_play", None)
    root, there = shutil.copytree(grey, tmp_path / "more"), TaskData(grey / TASK)
    collect(seaquest(2, options=GREY), root, 0, progress=False)
    more = TaskData(root / TASK)
    assert len(more) == 2 and more.layout == there.layout
    np.testing.assert_array_equal(more.tokens(0), there.tokens(0))

    header = DatasetHeader.read(root / TASK)
    header.layout["fields"][0]["codec"]["background"] = TASK
    header.write(root / TASK, {})
    collect(seaquest(3, options=GREY), root, 0, progress=False)
    black = TaskData(root / TASK)
    assert len(black) == 3 and not has_fitted(black.layout)
    collect(seaquest(1, options=GREY), tmp_path / "like", 0, progress=False, like=root)
    assert TaskData(tmp_path / "like" / TASK).layout == black.layout
    with pytest.raises(GeneralistError, match="observation has another background") as error:
        open_mixture([root, grey])
    assert str(root) in str(error.value) and str(grey) in str(error.value)


def test_a_flipped_bit_of_a_background_is_found(grey: Path, tmp_path: Path) -> None:
    root = shutil.copytree(grey, tmp_path / "grey")
    path = root / TASK / "dataset.json"
    content = path.read_bytes()
    pixels = json.loads(content)["layout"]["fields"][0]["codec"]["background"]["pixels"]
    first = content.index(pixels.encode())
    for place in range(first, first + len(pixels), 997):
        path.write_bytes(flipped(content, 8 * place))
        with pytest.raises(GeneralistError, match=r"dataset\.json"):
            TaskData(root / TASK)
