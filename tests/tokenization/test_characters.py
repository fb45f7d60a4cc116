import numpy as np
import pytest

from generalist.tokenization.characters import CharactersCodec

CODEC = CharactersCodec((), "str", "abc", 2, 4)
END = 3


def test_the_end_is_legal_from_the_shortest_length_on():
    assert CODEC.legal == ((0, 3), (0, 3), (0, 4), (0, 4))


def test_a_string_is_its_characters_an_end_and_filling():
    codes = CODEC.encode(np.array(["ab", "cabc"]), None)
    assert codes.tolist() == [[0, 1, END, END], [2, 0, 1, 2]]
    assert CODEC.decode(codes, None).tolist() == ["ab", "cabc"]


def test_what_follows_the_end_is_not_read():
    assert CODEC.decode(np.array([[1, 1, END, 2]]), None).tolist() == ["bb"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a", "1 characters long at step 1"), ("aaaaa", "5 char"), ("aXa", "has 'X' at step 1")],
)
def test_strings_outside_the_space_are_refused_with_the_step(text, reason):
    with pytest.raises(ValueError, match=reason):
        CODEC.encode(np.array(["ab", text]), None)
