"""Bits per byte on held-out documents: the model, a byte trigram and xz, told the same.

Legend: B = rows of a batch, L = tokens of a window, N = tokens of a document.

All three code each held-out document on its own after the same training documents. Fewer bits per
UTF-8 byte are better; without any model a byte needs 8.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.errors import GeneralistError

if TYPE_CHECKING:
    from generalist.tokenization.processor import GeneralistProcessor

NO_TARGET = -100


def utf8_bytes(documents: Sequence[str]) -> int:
    """Bytes of all documents together."""
    return sum(len(text.encode("utf-8")) for text in documents)


def xz_bits_per_byte(train: Sequence[str], heldout: Sequence[str]) -> float:
    """Bits that `xz -9` adds for the held-out text after the training text, per held-out byte.

    Raises:
        GeneralistError: there is no held-out text.
    """
    before = "\n".join(train).encode("utf-8")
    after = before + b"\n" + "\n".join(heldout).encode("utf-8")
    with ThreadPoolExecutor(2) as pool:  # lzma lets go of the interpreter while it works
        sizes = pool.map(lambda text: len(lzma.compress(text, preset=9)), (before, after))
        size_before, size_after = sizes
    return 8 * (size_after - size_before) / _some(utf8_bytes(heldout))


class ByteTrigram:
    """Byte-trigram model with interpolated Witten-Bell smoothing.

    p(c | ab) = (n(abc) + t(ab) p(c | b)) / (n(ab) + t(ab)) (Witten and Bell, 1991; Chen and
    Goodman, 1998, section 2.4). n counts; t is the number of distinct bytes seen after a context.
    Bigrams and unigrams are mixed alike, with 1/256 at the bottom.
    """

    START = b"\n\n"  # context of a document's first byte

    def __init__(self, documents: Sequence[str]) -> None:
        pieces = [_codes(text) for text in documents if text]
        trigrams = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
        self._unigrams = _Counts(trigrams % 256, 1)
        self._bigrams = _Counts(trigrams % 256**2, 256)
        self._trigrams = _Counts(trigrams, 256)

    def bits(self, text: str) -> float:
        """Bits of one document."""
        codes = _codes(text)
        probability = np.full(len(codes), 1 / 256)
        probability = self._unigrams.interpolate(codes % 256, probability, context=0)
        bigrams = codes % 256**2
        probability = self._bigrams.interpolate(bigrams, probability, bigrams // 256)
        probability = self._trigrams.interpolate(codes, probability, codes // 256)
        return float(-np.log2(probability).sum())

    def bits_per_byte(self, documents: Sequence[str]) -> float:
        """Bits of all documents over their UTF-8 bytes."""
        return sum(self.bits(text) for text in documents if text) / _some(utf8_bytes(documents))


class _Counts:
    """Counts of n-grams and of their contexts, looked up by binary search."""

    def __init__(self, grams: np.ndarray, alphabet: int) -> None:
        self.grams, self.counts = np.unique(grams, return_counts=True)
        contexts = self.grams // 256 if alphabet > 1 else np.zeros(len(self.grams), np.int64)
        self.contexts, index = np.unique(contexts, return_inverse=True)
        self.totals = np.bincount(index, weights=self.counts, minlength=len(self.contexts))
        self.distinct = np.bincount(index, minlength=len(self.contexts))

    def interpolate(
        self, grams: np.ndarray, lower: np.ndarray, context: np.ndarray | int
    ) -> np.ndarray:
        """Probabilities of `grams` (N,) given those of the next lower order (N,)."""
        count = _look_up(self.grams, self.counts, grams)
        contexts = np.broadcast_to(np.asarray(context), grams.shape)
        total = _look_up(self.contexts, self.totals, contexts)
        distinct = _look_up(self.contexts, self.distinct, contexts)
        mixed = (count + distinct * lower) / np.maximum(total + distinct, 1)
        return np.where(total > 0, mixed, lower)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if len(keys) == 0:
        return np.zeros(wanted.shape)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def _codes(text: str) -> np.ndarray:
    """(bytes,) trigram codes: byte t in the low 8 bits, the two before it above."""
    data = np.frombuffer(ByteTrigram.START + text.encode("utf-8"), np.uint8).astype(np.int64)
    return data[:-2] * 65536 + data[1:-1] * 256 + data[2:]


def model_bits_per_byte(
    model: Any,
    processor: GeneralistProcessor,
    documents: Sequence[str],
    *,
    window_tokens: int,
    batch_rows: int = 4,
) -> float:
    """-sum log2 p over the documents' tokens, over their UTF-8 bytes.

    Windows slide by half their length. Each token is scored once, in the first window that holds
    it. So it sees all of its document before it, or at least half a window. Probabilities are
    normalised over the text range, as they are when the agent writes.

    Args:
        model: a causal language model.
        processor: with the model's vocabulary.
        documents: held out.
        window_tokens: length of a window.
        batch_rows: windows in a forward pass.

    Raises:
        GeneralistError: a window has no room for text, or there is no text.
    """
    import torch

    text = processor.vocabulary["text"]
    header = np.asarray(processor.header("text/", None))
    rows = [
        row for document in documents if document
        for row in scored_windows(np.asarray(processor.encode_text(document)), header,
                                  window_tokens)
    ]  # fmt: skip
    rows.sort(key=lambda row: len(row[0]))  # rows of like length are padded least
    device = next(model.parameters()).device
    nats = 0.0
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), batch_rows):
            ids, targets = (
                torch.from_numpy(array).to(device)
                for array in _pad(rows[start : start + batch_rows], pad=int(header[0]))
            )
            hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            wanted = targets != NO_TARGET
            head = model.get_output_embeddings().weight[text.start : text.stop]
            logits = torch.nn.functional.linear(hidden[wanted], head).float()
            nats += torch.nn.functional.cross_entropy(
                logits, targets[wanted] - text.start, reduction="sum"
            ).item()
    return nats / np.log(2) / _some(utf8_bytes(documents))


def scored_windows(
    tokens: np.ndarray, header: np.ndarray, window_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (input ids, targets) that together score each of (N,) tokens exactly once.

    targets[j] is the token that follows input j, or -100 where an earlier window scored it.

    Raises:
        GeneralistError: a window has no room for text behind the header.
    """
    room = window_tokens - len(header)
    if room < 2:
        raise GeneralistError(
            f"A window of {window_tokens} tokens has no room for text; it needs at least "
            f"{len(header) + 2}."
        )
    start, scored = 0, 0
    while scored < len(tokens):
        stop = min(start + room, len(tokens))
        sequence = np.concatenate([header, tokens[start:stop]])
        targets = sequence[1:].copy()
        targets[: len(header) - 1 + scored - start] = NO_TARGET
        yield sequence[:-1], targets
        scored, start = stop, stop - room // 2


def _pad(rows: list[tuple[np.ndarray, np.ndarray]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unequal length to (B, L) ids and targets, padded at the end."""
    longest = max(len(ids) for ids, _ in rows)
    ids = np.full((len(rows), longest), pad, dtype=np.int64)
    targets = np.full((len(rows), longest), NO_TARGET, dtype=np.int64)
    for index, (row, wanted) in enumerate(rows):
        ids[index, : len(row)] = row
        targets[index, : len(row)] = wanted
    return ids, targets


def _some(count: int) -> int:
    """The count itself; GeneralistError where it is 0."""
    if count == 0:
        raise GeneralistError("Bits per byte need held-out documents, but there is no text.")
    return count
