"""GeneralistProcessor: episodes to token ids and back, and everything needed to repeat it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from generalist.episode import Episode, Tree
from generalist.errors import GeneralistError
from generalist.integrity import read_json
from generalist.specs import find_spec, list_specs
from generalist.tokenization import PARTS_FOLDER
from generalist.tokenization.codec import Toolbox
from generalist.tokenization.continuous import MU, M
from generalist.tokenization.fit_backgrounds import (
    fit_backgrounds,
    keep_backgrounds,
    random_play,
)
from generalist.tokenization.fit_quantiles import fit_quantiles
from generalist.tokenization.image import ImageCodec
from generalist.tokenization.layout import Layout, Role, document_layout
from generalist.tokenization.meaning import meaning
from generalist.tokenization.spaces import build_layout
from generalist.tokenization.text import TextCodec
from generalist.tokenization.text_fields import DocumentCodec, TextFieldCodec
from generalist.vocabulary import SPECIAL_NAMES, Vocabulary, fingerprint_of

if TYPE_CHECKING:
    from gymnasium import Env, Space

    from generalist.tokenization.frames import FrameTokenizer

CONFIG_FILE = "processor_config.json"
FRAMES_FOLDER = "frames"
TEXT_FOLDER = "text"


@dataclass(frozen=True)
class TokenInfo:
    """What one token of a sequence means.

    range, field: Names of the range of the vocabulary and of the field of the timestep.
    timestep: Counted from 0; -1 in the header.
    value: What the token stands for, readable.
    """

    id: int
    range: str
    field: str
    timestep: int
    value: str


class GeneralistProcessor:
    """The vocabulary with the trained parts it needs: the text and the frame tokenizer.

    Args:
        vocabulary: the ranges of ids.
        text: the text tokenizer, of as many ids as the range `text` has.
        frames: the frame tokenizer; None where no frames are encoded.

    Raises:
        GeneralistError: a range does not fit its tokenizer.
    """

    def __init__(
        self, vocabulary: Vocabulary, text: TextCodec, frames: FrameTokenizer | None = None
    ) -> None:
        if text.size != vocabulary["text"].size:
            raise GeneralistError(
                f"The text tokenizer has {text.size} ids, "
                f"but the vocabulary's text range has {vocabulary['text'].size}."
            )
        if frames is not None and frames.codebook_size > vocabulary["image"].size:
            raise GeneralistError(
                f"The frame tokenizer has {frames.codebook_size} codes, "
                f"but the vocabulary's image range has {vocabulary['image'].size}."
            )
        self.vocabulary = vocabulary
        self.toolbox = Toolbox(text, frames)

    @property
    def text(self) -> TextCodec:
        """The text tokenizer."""
        return self.toolbox.text

    @property
    def frames(self) -> FrameTokenizer | None:
        """The frame tokenizer."""
        return self.toolbox.frames

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the vocabulary and every codec parameter; stored with all data."""
        return self.fingerprint_under(self.vocabulary)

    def fingerprint_under(self, vocabulary: Vocabulary) -> str:
        """The fingerprint that a processor of the same codecs has with another vocabulary."""
        text = json.loads(self.text.tokenizer.to_str())
        return fingerprint_of(
            {
                "vocabulary": vocabulary.to_dict(),
                "mu_law": [MU, M],
                "text": fingerprint_of(text),
                "frames": None if self.frames is None else self.frames.fingerprint,
            }
        )

    def extends(self, other: GeneralistProcessor) -> bool:
        """Whether all that `other` encodes means the same here: same codecs, ranges only added."""
        same = self.fingerprint_under(other.vocabulary) == other.fingerprint
        return same and self.vocabulary.begins_with(other.vocabulary)

    @classmethod
    def default(cls, frames: str = FRAMES_FOLDER) -> GeneralistProcessor:
        """The shipped processor: `tokenizers/text` and `tokenizers/frames`.

        Args:
            frames: another frame tokenizer of `tokenizers/`, such as `worlds`.
        """
        from generalist.tokenization.frames import FrameTokenizer

        text = TextCodec.from_pretrained(find_spec("tokenizers", TEXT_FOLDER))
        codes = FrameTokenizer.from_pretrained(find_spec("tokenizers", frames))
        return cls(Vocabulary.default(text.size), text, codes)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write everything `from_pretrained` needs into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.text.save_pretrained(folder)
        if self.frames is not None:
            self.frames.save_pretrained(folder / FRAMES_FOLDER)
        config = {"vocabulary": self.vocabulary.to_dict(), "fingerprint": self.fingerprint}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> GeneralistProcessor:
        """Load a processor from its own folder, or from that of a checkpoint.

        Raises:
            GeneralistError: There is none, it is damaged, or a part was changed since.
        """
        folder = Path(folder)
        if not (folder / CONFIG_FILE).exists() and (folder / PARTS_FOLDER / CONFIG_FILE).exists():
            folder = folder / PARTS_FOLDER
        if not (folder / CONFIG_FILE).exists():
            raise GeneralistError(f"{folder} holds no processor: {CONFIG_FILE} is missing.")
        config = read_json(folder / CONFIG_FILE)
        frames = None
        if (folder / FRAMES_FOLDER).is_dir():
            from generalist.tokenization.frames import FrameTokenizer

            frames = FrameTokenizer.from_pretrained(folder / FRAMES_FOLDER)
        text = TextCodec.from_pretrained(folder)
        try:
            processor = cls(Vocabulary.from_dict(config["vocabulary"]), text, frames)
            fingerprint = config["fingerprint"]
        except (GeneralistError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise GeneralistError(f"{folder / CONFIG_FILE} is damaged: {error!r}.") from error
        if processor.fingerprint != fingerprint:
            raise GeneralistError(
                f"The processor at {folder} was saved with fingerprint {fingerprint}, "
                f"but its parts now have {processor.fingerprint}: a tokenizer file was changed."
            )
        return processor

    # Layouts

    def layout(
        self,
        observation_space: Space,
        action_space: Space,
        *,
        task: str | None = None,
        fit_to: Sequence[Tree] = (),
        play: Callable[[], Env] | None = None,
        before: Layout | None = None,
    ) -> Layout:
        """The layout of one timestep.

        This is the one way to a task's layout. Collecting, importing and acting in a task that the
        checkpoint does not know all take it. So a frame has the same codes everywhere.

        Args:
            observation_space: What the environment shows.
            action_space: What it takes.
            task: Name of the task, whose still background the frame tokenizer may know.
            fit_to: Batched observations of episodes, (T, ...) each. The bins of all observed real
                numbers are fitted to them; without any, bins follow from the bounds.
            play: Makes an environment of the task. Only where frames lack a background, that one
                is played at random for it (`fit_backgrounds.py`). None: black is taken there.
            before: The layout of shards that are to be continued, whose backgrounds are kept.

        Raises:
            GeneralistError: A part of a space cannot be laid out; the message says which and why.
            UsageError: There is no observed real number to fit bins to.
        """
        try:
            layout = build_layout(
                observation_space,
                action_space,
                vocabulary=self.vocabulary,
                toolbox=self.toolbox,
                background=task,
            )
        except GeneralistError as error:
            raise GeneralistError(f"{task}: {error}" if task else str(error)) from None
        if fit_to:
            layout = fit_quantiles(layout, fit_to)
        if before is not None:
            return keep_backgrounds(layout, before)
        if self.frames is None or play is None:
            return layout
        return fit_backgrounds(layout, random_play(play, task or ""), self.frames)

    def document_layout(self) -> Layout:
        """The layout of text documents."""
        return document_layout(self.vocabulary)

    # Values to ids

    def header(
        self, task: str, instruction: str | None = None, *, spelled: bool = True
    ) -> np.ndarray:
        """Ids at the head of every window: begin, the task's name, the instruction if there is one.

        Documents (tasks `text/...`) have `begin` alone: text needs no name to be recognised.

        Args:
            task: Its name.
            instruction: What to do, in words.
            spelled: Whether the name is spelled; in the compact form a vector at `begin` says it.
        """
        special = self.vocabulary.special
        ids = [special("begin")]
        if spelled and not task.startswith("text/"):
            ids += self.text.encode(task)
        if instruction is not None:
            ids += [special("instruction"), *self.text.encode(instruction)]
        return np.array(ids, dtype=np.int64)

    def encode(self, episode: Episode, layout: Layout) -> np.ndarray:
        """Ids of an episode, with the actions that were executed.

        Returns:
            (T * tokens_per_timestep,) ids of the vocabulary's dtype.

        Raises:
            GeneralistError: A value cannot be coded; the message names task, field and step.
        """
        trees: dict[Role, Tree] = {"action": episode.actions}
        if not layout.is_document:
            trees["observation"] = episode.observations
        ids = {
            role: layout.encode(role, tree, self.toolbox, task=episode.task)
            for role, tree in trees.items()
        }
        return layout.weave(ids).ravel().astype(self.vocabulary.dtype)

    def encode_labels(self, episode: Episode, layout: Layout) -> np.ndarray:
        """Ids of the expert's own actions, or of the executed ones where it was not asked.

        Returns:
            (T * k,) ids of the vocabulary's dtype.

        Raises:
            GeneralistError: A value cannot be coded; the message names task, field and step.
        """
        tree = episode.actions if episode.labels is None else episode.labels
        ids = layout.encode("action", tree, self.toolbox, task=episode.task)
        return ids.ravel().astype(self.vocabulary.dtype)

    def encode_observations(self, observations: Tree, layout: Layout, task: str = "") -> np.ndarray:
        """Batched observations, leading axis N, to (N, observation tokens) int64 ids."""
        return layout.encode("observation", observations, self.toolbox, task=task)

    def encode_text(self, text: str) -> np.ndarray:
        """Ids of a string, in the text range."""
        return np.array(self.text.encode(text), dtype=np.int64)

    # Ids to values

    def decode_actions(self, ids: np.ndarray, layout: Layout) -> Tree:
        """Ids to actions, which lie within the action space whatever legal ids are given.

        Args:
            ids: (N, k) ids, each in its interval of `layout.legal`.
            layout: The layout of the task.

        Returns:
            Batched actions with leading axis N, of the shapes and dtypes of the action space.

        Raises:
            GeneralistError: An id is not legal at its place.
        """
        return layout.decode("action", np.asarray(ids), self.toolbox)

    def decode(self, ids: np.ndarray, layout: Layout, task: str = "") -> Episode:
        """Whole timesteps of ids to an episode.

        Tokens hold no rewards, which come back as NaN.

        Raises:
            GeneralistError: The ids are no whole timesteps, or one is not legal at its place.
        """
        timesteps = self._timesteps(ids, layout)
        steps, positions = len(timesteps), layout.positions
        observed = timesteps[:, positions.of_role("observation")]
        seen: Tree = np.zeros((steps, 0))
        if not layout.is_document:
            seen = layout.decode("observation", observed, self.toolbox)
        return Episode(
            task=task,
            observations=seen,
            actions=self.decode_actions(timesteps[:, positions.of_role("action")], layout),
            rewards=np.full(steps, np.nan, dtype=np.float32),
            terminated=False,
            truncated=True,
        )

    def decode_text(self, ids: np.ndarray) -> str:
        """The string of ids of the text range."""
        return self.text.decode(np.asarray(ids))

    def explain(self, ids: np.ndarray, layout: Layout) -> Iterator[TokenInfo]:
        """What each token of whole timesteps means, in order."""
        positions = layout.positions
        places = list(zip(positions.part.tolist(), positions.token.tolist(), strict=True))
        for step, timestep in enumerate(self._timesteps(ids, layout)):
            values = self._values(timestep[None], layout)
            for token, (number, index) in zip(timestep.tolist(), places, strict=True):
                where = self.vocabulary.range_of(token)
                part = layout.parts[number]
                if part.role == "separator":
                    yield TokenInfo(token, where.name, "separator", step, "")
                    continue
                name = f"{part.name}[{index}]" if part.tokens > 1 else part.name
                code = token - where.start
                value = meaning(part.codec, values[number], index=index, code=code)
                if part.role == "action" and where.name == "special":  # ends a text, or fills it
                    value = SPECIAL_NAMES[code]
                yield TokenInfo(token, where.name, name, step, value)

    def explain_header(self, ids: np.ndarray) -> Iterator[TokenInfo]:
        """What each token of a header means, in order."""
        for token in np.asarray(ids).tolist():
            where = self.vocabulary.range_of(token)
            if where.name == "special":
                value = SPECIAL_NAMES[token - where.start]
            else:
                value = repr(self.decode_text(np.array([token])))
            yield TokenInfo(token, where.name, "header", -1, value)

    def _timesteps(self, ids: np.ndarray, layout: Layout) -> np.ndarray:
        ids = np.asarray(ids).astype(np.int64)
        if ids.ndim != 1 or len(ids) % layout.tokens_per_timestep:
            raise GeneralistError(
                f"Got ids of shape {ids.shape}; expected whole timesteps of "
                f"{layout.tokens_per_timestep} tokens each."
            )
        return ids.reshape(-1, layout.tokens_per_timestep)

    def _values(self, timestep: np.ndarray, layout: Layout) -> list[np.ndarray]:
        """Decoded values of one (1, S) timestep, part by part; frames stay codes."""
        values = []
        for number, part in enumerate(layout.parts):
            ids = timestep[:, layout.positions.of_part(number)]
            if isinstance(part.codec, ImageCodec):
                decoded = ids - part.start
            elif isinstance(part.codec, (TextFieldCodec, DocumentCodec)):
                pieces = [self.decode_text(ids[0, i : i + 1]) for i in range(ids.shape[1])]
                decoded = np.array([pieces])
            else:
                decoded = part.decode(ids, self.toolbox)
            values.append(decoded)
        return values


def load_processor(name: str | Path | None) -> GeneralistProcessor:
    """The processor saved in a folder, or a shipped one.

    Args:
        name: a folder, or the name of a shipped frame tokenizer, such as `worlds`; None for the
            default processor.
    """
    if name is None:
        return GeneralistProcessor.default()
    if str(name) in list_specs("tokenizers"):
        return GeneralistProcessor.default(frames=str(name))
    return GeneralistProcessor.from_pretrained(name)
