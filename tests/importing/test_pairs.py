"""Pictures with texts: what a dataset of the package `datasets` holds becomes episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture

from generalist.errors import GeneralistError, UsageError
from generalist.importing.pairs import PairsSource
from generalist.importing.write import import_source
from generalist.shards.reader import TaskData
from generalist.tokenization.processor import load_processor

HUES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of different sizes, one of which is grey with an opaque layer."""
    path = tmp_path_factory.mktemp("pairs") / "plain"
    pictures = [
        Picture.new("RGB", (40, 30), HUES[0]),
        Picture.new("RGBA", (100, 84), HUES[1]),
        Picture.new("L", (84, 84), 90),
    ]
    rows = [
        {"image": picture, "caption": f"all is {hue}", "asked": f"is it {hue}?"}
        for picture, hue in zip(pictures, HUES, strict=True)
    ]
    features = Features({"image": Image(), "caption": Value("string"), "asked": Value("string")})
    Dataset.from_list(rows, features=features).save_to_disk(str(path))
    return path


def test_rows_become_pictures_with_texts_and_questions(folder: Path, tmp_path: Path) -> None:
    source = PairsSource(str(folder), question="asked")
    report = import_source(source, "vqa/plain", tmp_path, processor="pictures", progress=False)
    assert (report.episodes, report.spaces) == (3, "the dataset's own")
    processor = load_processor("pictures")
    data = TaskData(tmp_path / "vqa" / "plain", processor)
    assert data.layout.is_written
    for number, hue in enumerate(HUES):
        episode = processor.decode(data.tokens(number), data.layout)
        assert episode.actions.tolist() == [f"all is {hue}"]
        assert data.record(number)["instruction"] == f"is it {hue}?"
    pixels = [load().observations for load in source.recordings(0)]  # type: ignore[union-attr]
    assert all(each.shape == (1, 84, 84, 3) and each.dtype == np.uint8 for each in pixels)
    assert pixels[0][0, 40, 40].tolist() == [255, 0, 0]
    assert pixels[2][0, 40, 40].tolist() == [90, 90, 90]


def test_a_text_that_is_too_long_says_so_and_may_be_left_out(folder: Path, tmp_path: Path) -> None:
    given = {"processor": "pictures", "progress": False}
    source = PairsSource(str(folder), max_tokens=3)
    with pytest.raises(GeneralistError, match=r"episode 0: .*action is \d+ tokens long.*allows 3"):
        import_source(source, "caption/short", tmp_path, **given)  # type: ignore[arg-type]
    with pytest.raises(GeneralistError, match="no episode that could be kept"):
        import_source(source, "caption/short", tmp_path, skip_bad=True, **given)  # type: ignore[arg-type]


def test_a_column_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(UsageError, match="no column 'picture'; it has image, caption, asked"):
        PairsSource(str(folder), image="picture")


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    rows = {"image": [b"no picture"], "text": ["a key"]}
    Dataset.from_dict(rows).save_to_disk(str(tmp_path / "bad"))
    (load,) = PairsSource(str(tmp_path / "bad")).recordings(0)
    with pytest.raises(GeneralistError, match="the picture in image cannot be read"):
        load()
