from __future__ import annotations

import base64

import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.specs import find_spec
from generalist.tokenization.background import Background
from generalist.tokenization.codec import codec_from_dict
from generalist.tokenization.frames import FrameTokenizer
from generalist.tokenization.image import ImageCodec

PICTURE = np.random.default_rng(0).integers(0, 256, (84, 84, 3), np.uint8)


def test_equal_pixels_are_equal_backgrounds() -> None:
    one, other = Background.of(PICTURE), Background.of(PICTURE.copy())
    assert one == other and hash(one) == hash(other)
    changed = PICTURE.copy()
    changed[83, 83, 2] ^= 1
    assert Background.of(changed) != one
    assert "pixels" not in repr(one), "28 KB in every message that shows a codec"


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        ("a", "no base64"),
        ("äöü=", "no base64"),
        (7, "no base64"),
        ("", "0 bytes"),
        (base64.b64encode(bytes(13)).decode(), "13 bytes"),
    ],
)
def test_what_is_no_picture_is_said(pixels: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Background(pixels)


def test_a_codec_is_stored_as_before_and_with_its_picture() -> None:
    for background in (None, "atari/Pong", Background.of(PICTURE)):
        codec = ImageCodec((84, 84, 3), "uint8", 36, 1000, background)
        assert codec_from_dict(codec.to_dict()) == codec
    assert codec.to_dict()["background"] == {"pixels": Background.of(PICTURE).pixels}
    with pytest.raises(ValueError, match="no base64"):
        codec_from_dict({**codec.to_dict(), "background": {"pixels": "?"}})


def test_a_picture_of_another_size_is_refused_in_words() -> None:
    tokenizer = FrameTokenizer.from_pretrained(find_spec("tokenizers", "frames"))
    small = Background.of(PICTURE[:42, :42])
    with pytest.raises(GeneralistError, match="picture of shape .42, 42, 3., but .* 84x84"):
        tokenizer.encode(PICTURE[None], small)


def test_a_named_background_and_its_picture_give_the_same_codes() -> None:
    tokenizer = FrameTokenizer.from_pretrained(find_spec("tokenizers", "frames"))
    named = tokenizer.encode(PICTURE[None], "atari/Pong")
    picture = Background.of(tokenizer.backgrounds["atari/Pong"])
    assert np.array_equal(named, tokenizer.encode(PICTURE[None], picture))
    assert np.array_equal(tokenizer.decode(named, "atari/Pong"), tokenizer.decode(named, picture))
