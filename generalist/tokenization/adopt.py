"""A processor whose text range is the vocabulary of a pretrained language model."""

from __future__ import annotations

from tokenizers import Tokenizer

from generalist.errors import UsageError
from generalist.specs import find_spec
from generalist.tokenization.frames import FrameTokenizer
from generalist.tokenization.processor import FRAMES_FOLDER, GeneralistProcessor
from generalist.tokenization.text import TextCodec
from generalist.vocabulary import Vocabulary

# Accents, scripts, an emoji of several code points, white space of all kinds, a control character.
PROBE = "Größe  naïve 中文 \U0001f469\u200d\U0001f680\tx\r\n\u3000\x00 <|end|> \n"


def adopt_text_tokenizer(model: str) -> GeneralistProcessor:
    """The shipped processor with another text tokenizer.

    Args:
        model: Folder or repository of a language model with a fast tokenizer.

    Raises:
        UsageError: There is no such tokenizer, or text does not come back from it unchanged.
    """
    from transformers import AutoTokenizer

    try:
        fast = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{model} has no tokenizer: {str(error).splitlines()[0]}") from error
    backend = getattr(fast, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UsageError(f"{model} has no fast tokenizer, which a processor stores as one file.")
    text = TextCodec(Tokenizer.from_str(backend.to_str()))
    if (back := text.decode(text.encode(PROBE))) != PROBE:
        raise UsageError(
            f"The tokenizer of {model} is not lossless: {PROBE!r} comes back as {back!r}. "
            "Byte-level ones, such as those of Qwen3 and Llama 3, are."
        )
    frames = FrameTokenizer.from_pretrained(find_spec("tokenizers", FRAMES_FOLDER))
    return GeneralistProcessor(Vocabulary.default(text.size), text, frames)
