from __future__ import annotations

from dataclasses import replace

import pytest
from gymnasium import spaces

from generalist.tokenization.described import difference_in_words
from generalist.tokenization.layout import Layout, Part
from generalist.tokenization.processor import GeneralistProcessor


def test_what_two_layouts_do_not_share_is_said(without_frames: GeneralistProcessor) -> None:
    def layout(observed: spaces.Space) -> Layout:
        return without_frames.layout(observed, spaces.Discrete(2), task="own/Task")

    def changed(before: Layout, **codec: object) -> Layout:
        part = before.parts[0]
        other = replace(part, codec=replace(part.codec, **codec))  # type: ignore[arg-type]
        return Layout((other, *before.parts[1:]))

    box = layout(spaces.Box(-1, 1, (3,)))
    assert difference_in_words(box, changed(box, high=(2.0, 1.0, 1.0))) == (
        "observation has another high"
    )
    both = changed(box, low=(-2.0, -1.0, -1.0), bins=512)
    assert difference_in_words(box, both) == "observation has another low and another bins"
    coded = "observation is coded in another way"
    assert difference_in_words(box, layout(spaces.MultiBinary(3))) == coded
    moved = Layout((replace(box.parts[0], start=7), *box.parts[1:]))
    assert difference_in_words(box, moved) == coded
    named = difference_in_words(box, layout(spaces.Dict(a=spaces.Box(-1, 1, (3,)))))
    assert named == "one has observation where the other has observation/a"
    longer = Layout((*box.parts, Part("reward", (), box.parts[0].codec, 0)))
    assert difference_in_words(box, longer) == "one has more parts than the other"
    with pytest.raises(AssertionError):
        difference_in_words(box, box)
