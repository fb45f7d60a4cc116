from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.tokenization.background import Background
from generalist.tokenization.discrete import DiscreteCodec
from generalist.tokenization.image import ImageCodec
from generalist.tokenization.layout import Layout, Part, stored_layout
from generalist.training.known_layouts import check_same_layouts, warn_of_other_layouts

TASK = "atari/Seaquest"


def layout(background: Background | str | None) -> Layout:
    image = ImageCodec((84, 84, 3), "uint8", 36, 1000, background)
    button = DiscreteCodec((), "int64", (0,), (18,))
    return stored_layout(
        [Part("observation", (), image, 0), Part("action", (), button, 1000)], 2000
    )


BLACK = layout(TASK)
FITTED = layout(Background.of(np.full((84, 84, 3), 7, np.uint8)))


def test_another_background_than_the_checkpoints_is_said(tmp_path: Path) -> None:
    (tmp_path / "generalist").mkdir()
    stored = {TASK: BLACK.to_dict(), "gym/Other-v0": BLACK.to_dict()}
    (tmp_path / "generalist" / "layouts.json").write_text(json.dumps(stored))
    with pytest.warns(UserWarning, match=f"{TASK} .* observation has another background"):
        warn_of_other_layouts(tmp_path, {TASK: FITTED})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_other_layouts(tmp_path, {TASK: BLACK, "gym/New-v0": FITTED})
        warn_of_other_layouts(tmp_path / "pretrained", {TASK: FITTED})
        warn_of_other_layouts(None, {TASK: FITTED})


def test_demonstrations_beside_reinforcement_are_coded_as_the_checkpoint_acts() -> None:
    start, known = Path("runs/first"), {TASK: BLACK.to_dict()}
    check_same_layouts(start, known, {TASK: BLACK.to_dict(), "gym/New-v0": FITTED.to_dict()})
    with pytest.raises(GeneralistError, match=f"{TASK} .* runs/first: .* another background"):
        check_same_layouts(start, known, {TASK: FITTED.to_dict()})
