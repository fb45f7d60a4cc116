"""What one would otherwise write to act: timesteps of random tokens, by code that is not ours.

benchmarks/acting.py says what each is, and times them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import DynamicCache, PreTrainedModel

from benchmarks.llama import LlamaCpp, Sequences
from generalist.vocabulary import Vocabulary

OBSERVATION_TOKENS, ACTION_TOKENS = 18, 6
HEADER_TOKENS = 8
Step = Callable[[], object]
"""A timestep of all environments."""


class Observations:
    """Endless random observation tokens, the same for the same seed."""

    def __init__(self, vocabulary: Vocabulary, seed: int = 0) -> None:
        self.bins = (vocabulary["continuous"].start, vocabulary["continuous"].stop)
        self._separator = vocabulary.special("separator")
        self._random = np.random.default_rng(seed)

    def header(self) -> list[int]:
        """The ids of a header."""
        return self._random.integers(*self.bins, HEADER_TOKENS).tolist()

    def next(self) -> list[int]:
        """The ids of the next observation, with its separator."""
        tokens = self._random.integers(*self.bins, OBSERVATION_TOKENS - 1).tolist()
        return [*tokens, self._separator]


class Peer(ABC):
    """Who keeps a cache of its own, filled between half a window and all of it.

    Attributes:
        tokens: (N, n) ids of N environments, of which the last may not be fed yet.
    """

    def __init__(self, vocabulary: Vocabulary, window: int, environments: int) -> None:
        self.window, self.half = window, window // 2
        self.source = Observations(vocabulary)
        first = np.random.default_rng(1).integers(*self.source.bins, self.half)
        self.tokens = np.tile(first, (environments, 1))

    @abstractmethod
    def cached(self) -> int:
        """How many tokens of each environment are cached."""

    @abstractmethod
    def cut(self) -> None:
        """Drop all from the cache but half a window."""

    @abstractmethod
    def step(self) -> None:
        """Take a timestep."""

    def begin(self) -> np.ndarray:
        """Make room for a timestep; what is fed first: an action token and the observation."""
        if self.tokens.shape[1] + OBSERVATION_TOKENS + ACTION_TOKENS > self.window:
            self.cut()
            self.tokens = self.tokens[:, : self.half]
        self.append([self.source.next() for _ in self.tokens])
        return self.tokens[:, self.cached() :]

    def append(self, tokens: ArrayLike) -> None:
        """Add (N, n) ids to the tokens."""
        self.tokens = np.hstack([self.tokens, tokens])


class CachedPeer(Peer):
    """What `generate`, `loop` and `crop` share: a `DynamicCache`."""

    def __init__(
        self, model: PreTrainedModel, vocabulary: Vocabulary, window: int, environments: int = 1
    ) -> None:
        super().__init__(vocabulary, window, environments)
        self.model = model
        self.cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            self.model(self.tensor(self.tokens[:1]), past_key_values=self.cache, use_cache=True)
        self.cache.batch_repeat_interleave(environments)

    def tensor(self, tokens: np.ndarray) -> torch.Tensor:
        """Ids where the model is."""
        return torch.from_numpy(tokens).to(self.model.device)

    def cached(self) -> int:
        """As `Peer.cached`."""
        return self.cache.get_seq_length()

    def cut(self) -> None:
        """As `Peer.cut`."""
        self.cache.crop(self.half - self.cached())  # by a negative number


class GeneratePeer(CachedPeer):
    """A timestep is one call of `generate` that goes on from the cache."""

    def step(self) -> None:
        """As `Peer.step`."""
        self.begin()
        ids = self.tensor(self.tokens)
        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=self.cache,
            max_new_tokens=ACTION_TOKENS,
            min_new_tokens=ACTION_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        self.tokens = out.cpu().numpy()


class LoopPeer(CachedPeer):
    """A timestep is a loop over forward passes that fill the cache."""

    @torch.inference_mode()
    def step(self) -> None:
        """As `Peer.step`."""
        new = self.begin()
        for _ in range(ACTION_TOKENS):
            ids = self.tensor(new)
            out = self.model(ids, past_key_values=self.cache, logits_to_keep=1)
            new = out.logits[:, -1:].argmax(-1).cpu().numpy()
            self.append(new)


class CropPeer(LoopPeer):
    """A loop whose cache slides: as much of the window as leaves room is kept."""

    def begin(self) -> np.ndarray:
        """As `Peer.begin`."""
        kept = self.window - OBSERVATION_TOKENS - ACTION_TOKENS
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, -kept:], layer.values[:, :, -kept:]
        self.append([self.source.next() for _ in self.tokens])
        return self.tokens[:, -OBSERVATION_TOKENS - 1 :]


class LlamaPeer(Peer):
    """A timestep is a loop over llama.cpp's passes, which choose among the bins."""

    def __init__(
        self,
        llama: LlamaCpp,
        vocabulary: Vocabulary,
        window: int,
        environments: int = 1,
        *,
        half: bool = False,
    ) -> None:
        super().__init__(vocabulary, window, environments)
        threads = torch.get_num_threads()
        self.sequences = Sequences(llama, environments, window, threads, half)
        self.sequences.begin(self.tokens[0])

    def cached(self) -> int:
        """As `Peer.cached`."""
        return self.sequences.length

    def cut(self) -> None:
        """As `Peer.cut`."""
        self.sequences.cut(self.half)

    def step(self) -> None:
        """As `Peer.step`."""
        new, (start, stop) = self.begin(), self.source.bins
        for _ in range(ACTION_TOKENS):
            new = start + self.sequences.feed(new)[:, start:stop].argmax(1, keepdims=True)
            self.append(new)

    @torch.inference_mode()
    def difference(self, model: PreTrainedModel) -> float:
        """Largest difference of its next logits to those of a full pass, after a timestep."""
        own = self.sequences.feed(self.tokens[:, self.cached() :])
        full = model(torch.from_numpy(self.tokens), use_cache=False, logits_to_keep=1).logits
        return float(np.abs(own - full[:, -1].float().numpy()).max())


def recompute_step(model: PreTrainedModel, vocabulary: Vocabulary, window: int) -> Step:
    """A timestep by a pass over the whole context for each action token."""
    source = Observations(vocabulary)
    rng = np.random.default_rng(1)
    context = rng.integers(*source.bins, window * 3 // 4).tolist()

    @torch.inference_mode()
    def step() -> None:
        tokens = context + source.next()
        for _ in range(ACTION_TOKENS):
            logits = model(torch.tensor([tokens]), use_cache=False).logits
            tokens.append(int(logits[0, -1].argmax()))

    return step
