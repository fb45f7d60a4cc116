import numpy as np
import pytest

from generalist.errors import GeneralistError
from generalist.vocabulary import SPECIAL_NAMES, Vocabulary


def test_ranges_cover_the_ids_without_gap_or_overlap():
    vocabulary = Vocabulary.default()
    stop = 0
    for token_range in vocabulary:
        assert token_range.start == stop
        stop = token_range.stop
    assert stop == vocabulary.size == 11552
    assert vocabulary["text"].start == 0
    assert vocabulary.dtype == np.uint16


def test_every_id_belongs_to_exactly_one_range():
    vocabulary = Vocabulary([("text", 5), ("special", 9), ("discrete", 3)])
    names = [vocabulary.range_of(i).name for i in range(vocabulary.size)]
    assert names == ["text"] * 5 + ["special"] * 9 + ["discrete"] * 3
    for outside in (-1, vocabulary.size):
        with pytest.raises(GeneralistError, match="outside"):
            vocabulary.range_of(outside)


def test_appending_a_range_keeps_every_old_id():
    old = Vocabulary.default()
    new = old.append("mouse", 100)
    for token_range in old:
        assert new[token_range.name] == token_range
    assert new["mouse"].start == old.size
    assert new.fingerprint != old.fingerprint


def test_a_large_text_tokenizer_needs_wider_ids():
    assert Vocabulary.default(text_size=150_000).dtype == np.uint32


def test_specials_are_distinct_and_inside_their_range():
    vocabulary = Vocabulary.default()
    ids = [vocabulary.special(name) for name in SPECIAL_NAMES]
    assert len(set(ids)) == len(ids)
    assert all(vocabulary.range_of(i).name == "special" for i in ids)
    with pytest.raises(GeneralistError, match="named 'bos'"):
        vocabulary.special("bos")


def test_json_round_trip_and_equality():
    vocabulary = Vocabulary.default().append("extra", 7)
    again = Vocabulary.from_dict(vocabulary.to_dict())
    assert again == vocabulary and again.fingerprint == vocabulary.fingerprint


@pytest.mark.parametrize("ranges", [[("a", 1), ("a", 2)], [("a", 0)], [("special", 3)]])
def test_a_malformed_vocabulary_is_refused(ranges):
    with pytest.raises(GeneralistError):
        Vocabulary(ranges)
