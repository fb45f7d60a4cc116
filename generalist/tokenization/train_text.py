"""Training of the text tokenizer: a byte-level BPE whose ids are the first range of the vocabulary.

Byte-level means that the alphabet is the 256 bytes, so any string can be written and is read back
unchanged; no id is special, because the special ids live in a range of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from generalist.errors import GeneralistError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES_IN_ALPHABET = 256
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
# Read by `AutoTokenizer.from_pretrained`; clean-up of spaces would make decoding lossy.
CONFIG_TEXT = """{
  "clean_up_tokenization_spaces": false,
  "tokenizer_class": "PreTrainedTokenizerFast"
}
"""


def train_bpe(
    documents: Iterable[str], vocabulary_size: int = 8192, *, progress: bool = False
) -> Tokenizer:
    """Train a lossless byte-level BPE of exactly `vocabulary_size` ids.

    The same documents in the same order give the same tokenizer.

    Args:
        documents: Texts to learn merges from.
        vocabulary_size: Number of ids, the 256 bytes among them.
        progress: Show a bar on stderr.

    Raises:
        GeneralistError: `vocabulary_size` is under 256, or the documents are too few to fill it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocabulary_size < BYTES_IN_ALPHABET:
        raise GeneralistError(
            f"A byte-level vocabulary of {vocabulary_size} ids was asked for, but the bytes alone "
            f"take {BYTES_IN_ALPHABET}: choose a vocabulary_size of at least {BYTES_IN_ALPHABET}."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=progress,
    )
    tokenizer.train_from_iterator(documents, trainer)
    reached = tokenizer.get_vocab_size()
    if reached != vocabulary_size:
        raise GeneralistError(
            f"The documents yielded only {reached:,} of the {vocabulary_size:,} ids that were "
            "asked for: give more text, or a smaller vocabulary_size."
        )
    return tokenizer


def train_text_tokenizer(
    out_dir: str | Path,
    vocabulary_size: int = 8192,
    *,
    documents: Iterable[str] | None = None,
    progress: bool = False,
) -> Path:
    """Train the text tokenizer and write it.

    Args:
        out_dir: Folder of the tokenizer.
        vocabulary_size: Number of ids.
        documents: Texts to learn from. Without any, these are the training documents of
            `text/pydoc`, the documentation of the running Python; other versions give other merges.
        progress: Show a bar on stderr.

    Returns:
        The path of `tokenizer.json`.
    """
    if documents is None:
        from generalist.envs.text import documents as documents_of

        documents = documents_of("text/pydoc")
    tokenizer = train_bpe(documents, vocabulary_size, progress=progress)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / TOKENIZER_FILE
    # A temporary name and a rename: an interruption never leaves half a tokenizer behind.
    temporary = path.with_suffix(".json.partial")
    tokenizer.save(str(temporary), pretty=False)
    temporary.replace(path)
    (out_dir / CONFIG_FILE).write_text(CONFIG_TEXT)
    return path
