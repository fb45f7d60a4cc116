"""Text that is written token by token: what is stored comes back, and an end is an end."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from generalist.envs.written import Written
from generalist.errors import GeneralistError, UsageError
from generalist.shards.spaces import space_from_json, space_to_json
from generalist.tokenization.layout import Layout
from generalist.tokenization.text_fields import WrittenCodec
from tests.decoding.models import text_only_processor

PROCESSOR = text_only_processor()
SIZE = PROCESSOR.vocabulary["text"].size
PAD, END = (PROCESSOR.vocabulary.special(name) for name in ("pad", "end"))
CODEC = WrittenCodec((), "str", 6, SIZE)


def layout_of(action_space: spaces.Space) -> Layout:
    return PROCESSOR.layout(spaces.Discrete(3), action_space)


def test_a_text_is_its_tokens_an_end_and_filling() -> None:
    (codes,) = CODEC.encode(np.array(["the box"]), PROCESSOR.toolbox)
    text = PROCESSOR.text.encode("the box")
    assert codes.tolist() == [*text, END, *[PAD] * (5 - len(text))]


@given(st.text(max_size=12).map(lambda text: text.rstrip("\0")))  # NumPy's strings lose these
def test_whatever_fits_comes_back(text: str) -> None:
    codec = WrittenCodec((), "str", 64, SIZE)
    codes = codec.encode(np.array([text], dtype=object), PROCESSOR.toolbox)
    assert codec.decode(codes, PROCESSOR.toolbox).tolist() == [text]
    legal = np.array(codec.legal)
    assert ((codes >= legal[:, 0]) & (codes < legal[:, 1])).all()


@pytest.mark.parametrize("end", range(*CODEC.ends))
def test_what_follows_an_end_is_not_read(end: int) -> None:
    text = PROCESSOR.text.encode("box")
    codes = np.array([[*text, end, *[5] * (5 - len(text))]])
    assert CODEC.decode(codes, PROCESSOR.toolbox).tolist() == ["box"]


def test_a_text_that_fills_its_slot_needs_no_end_and_a_longer_one_is_refused() -> None:
    text = PROCESSOR.decode_text(np.arange(300, 306))
    assert len(PROCESSOR.text.encode(text)) == 6
    codes = CODEC.encode(np.array([text]), PROCESSOR.toolbox)
    assert END not in codes and CODEC.decode(codes, PROCESSOR.toolbox).tolist() == [text]
    with pytest.raises(ValueError, match="is 12 tokens long at step 0; its space allows 6"):
        CODEC.encode(np.array([text + text]), PROCESSOR.toolbox)


def test_a_layout_knows_that_it_is_written_and_comes_back_from_json() -> None:
    layout = layout_of(Written(6))
    assert layout.is_written and not layout_of(spaces.Discrete(2)).is_written
    assert Layout.from_dict(layout.to_dict()) == layout
    assert layout.parts_of("action")[0].ends == (PAD, END + 1)


def test_text_that_is_written_is_the_whole_action() -> None:
    with pytest.raises(GeneralistError, match="has to be the whole action"):
        layout_of(spaces.Dict({"a": Written(3), "b": spaces.Discrete(2)}))


def test_the_space_comes_back_from_json_and_its_samples_can_be_written() -> None:
    space = Written(5, seed=0)
    assert space_from_json(space_to_json(space)) == space != Written(6)
    samples = np.array([space.sample() for _ in range(50)])
    assert all(sample in space for sample in samples)
    assert WrittenCodec((), "str", 5, SIZE).encode(samples, PROCESSOR.toolbox).shape == (50, 5)
    with pytest.raises(UsageError, match="at least 1 token"):
        Written(0)


def test_tokens_are_explained_and_filling_is_called_so() -> None:
    layout = layout_of(Written(6))
    ids = {"observation": np.array([[PROCESSOR.vocabulary["discrete"].start]])}
    ids["action"] = layout.encode("action", np.array(["the box"]), PROCESSOR.toolbox)
    told = [each.value for each in PROCESSOR.explain(layout.weave(ids).ravel(), layout)]
    words = [repr(PROCESSOR.decode_text(np.array([each]))) for each in ids["action"][0]
             if each < SIZE]  # fmt: skip
    assert told[2:] == [*words, "end", *["pad"] * (5 - len(words))]
