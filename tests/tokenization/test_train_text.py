"""The shipped text tokenizer is lossless and of its exact size, and training repeats itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from generalist.errors import GeneralistError
from generalist.specs import find_spec
from generalist.tokenization.train_text import train_bpe, train_text_tokenizer

# Everything but lone surrogates, which are no text (UTF-8 cannot write them).
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
DOCUMENTS = [
    "To be, or not to be, that is the question: " * 3,
    "na\u00efve caf\u00e9 \U0001f600 ",
] * 5


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(find_spec("tokenizers", "text") / "tokenizer.json"))


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_any_string_comes_back(tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert all(0 <= i < 8192 for i in ids)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "  leading", "trailing \n", "\r\n\r", "don 't do , that ."),
        *("\x00\x01\x7f\x85", "a\u0301e\u0308", "\U0010ffff", "\ufeffmark"),
        "<s></s><pad><|endoftext|>",
    ],
)
def test_strings_that_other_tokenizers_change(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_exactly_8192_ids_none_of_them_special(tokenizer):
    assert tokenizer.get_vocab_size(with_added_tokens=True) == 8192
    assert sorted(tokenizer.get_vocab().values()) == list(range(8192))
    assert tokenizer.get_added_tokens_decoder() == {}


def test_plain_transformers_read_it(tokenizer):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = find_spec("tokenizers", "text")
    text = "Return a , b .\n  don't \U0001f600"
    for fast in (
        PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")),
        AutoTokenizer.from_pretrained(folder),
    ):
        assert len(fast) == 8192
        assert fast(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text).ids
        assert fast.decode(tokenizer.encode(text).ids) == text


def test_held_out_documents_are_compressed(tokenizer):
    from generalist.envs.text import documents

    texts = documents("text/pydoc", "heldout")
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
    assert sum(len(text.encode()) for text in texts) / tokens > 3.3, "bytes a token"


def test_the_same_documents_give_the_same_file(tmp_path):
    first = train_text_tokenizer(tmp_path / "a", 280, documents=DOCUMENTS)
    second = train_text_tokenizer(tmp_path / "b", 280, documents=DOCUMENTS)
    assert first.read_bytes() == second.read_bytes()
    assert Tokenizer.from_file(str(first)).get_vocab_size() == 280
    assert list((tmp_path / "a").glob("*.partial")) == []


@pytest.mark.slow
def test_the_command_without_arguments_fills_the_vocabulary(tmp_path):
    path = train_text_tokenizer(tmp_path)
    assert Tokenizer.from_file(str(path)).get_vocab_size() == 8192


def test_too_little_text_and_too_few_ids_are_refused():
    with pytest.raises(GeneralistError, match="give more text"):
        train_bpe(DOCUMENTS, 8192)
    with pytest.raises(GeneralistError, match="at least 256"):
        train_bpe(DOCUMENTS, 255)
