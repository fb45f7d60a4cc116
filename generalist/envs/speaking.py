"""Speaking about what is seen: an episode is one picture, and the action is a text.

    picture, question  ->  text

A seed draws a statement, the things of which it is true, and the picture that a simulator takes of
them. The reward is 1 for the very text that the simulator's state gives, else 0.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from generalist.envs.registry import Task
from generalist.envs.seen import Camera, Pair, Seen
from generalist.envs.statements import Form, Statement
from generalist.envs.written import Written
from generalist.errors import GeneralistError, UsageError
from generalist.streams import Stream, random_stream

PICTURE_PIXELS = 84
Pictures = Literal["own", "other"]
PICTURES = ("own", "other")
FAMILIES = ("caption", "vqa")
_DRAWN = 4000  # statements, to learn which text is right most often


@dataclass(frozen=True)
class Gallery:
    """Where pictures come from.

    Attributes:
        camera: starts the simulator.
        description: what the pictures show, in a few words.
    """

    camera: Callable[[], Camera]
    description: str


def is_speaking_task(name: str) -> bool:
    """True for tasks in which something is said of a picture."""
    return name.partition("/")[0] in FAMILIES


def speaking_task(name: str, gallery: Gallery, form: Form, *, max_tokens: int, says: str) -> Task:
    """The task of saying something of the pictures of a gallery.

    Args:
        name: of the task.
        gallery: where the pictures come from.
        form: draws what is said.
        max_tokens: room for a text.
        says: what is said, in a few words.
    """
    return Task(
        name=name,
        family=name.partition("/")[0],
        make=functools.partial(Speaking, name, gallery, form, max_tokens),
        step_limit=1,
        description=f"{says} {gallery.description}",
        frames=True,
        metric="success",
        default_expert="truth",
    )


class Speaking(gymnasium.Env):
    """One picture an episode, of which something is to be said.

    Observations: (84, 84, 3) uint8.
    Actions: a text of at most `max_tokens` tokens.
    Rewards: 1 where the text is the truth, else 0.
    Info: `instruction` at reset, where there is a question; after the step `success`, and what was
        `asked`, what is the `truth`, what was `said`, and the statement's `form`.

    Args:
        task: its name, for messages.
        gallery: where pictures come from.
        form: draws what is said.
        max_tokens: room for a text.
        render_mode: `rgb_array` or None.
        max_steps: as every family takes it; an episode has one step, whatever is given.
        picture: `own`, or `other`: that of another episode, while question and truth stay. Who
            answers as well without seeing what is asked about does not look.

    Raises:
        MissingPackageError: the simulator's package is missing.
        UsageError: `picture` has no such value.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}

    def __init__(
        self,
        task: str,
        gallery: Gallery,
        form: Form,
        max_tokens: int,
        *,
        render_mode: str | None = None,
        max_steps: int | None = None,
        picture: Pictures = "own",
    ) -> None:
        if picture not in PICTURES:
            raise UsageError(f"picture is one of {', '.join(PICTURES)}; got {picture!r}.")
        self.task, self.render_mode, self.picture = task, render_mode, picture
        self._form = form
        self.camera = gallery.camera()
        shape = (PICTURE_PIXELS, PICTURE_PIXELS, 3)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = Written(max_tokens)
        self.statement: Statement | None = None  # None until reset, and after an episode's end
        self.truth = ""
        self._frame = np.zeros(shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new statement and picture; `info["instruction"]` is the question, if any."""
        super().reset(seed=seed)
        self.statement, pairs, self.truth = self._draw(self.np_random)
        if self.picture == "other":
            rng = random_stream(seed or 0, Stream.PICTURES)
            _, pairs, _ = self._draw(rng)
        self._frame = self.camera.take(pairs, self.np_random)
        question = self.statement.question
        return self._frame, {} if question is None else {"instruction": question}

    def _draw(self, rng: np.random.Generator) -> tuple[Statement, list[Pair], str]:
        """A statement, the things on the spots that the camera is aimed at, and the truth."""
        statement = self._form(self.camera.pairs, rng)
        least, most = statement.least, self.camera.most
        spots = self.camera.aim(int(rng.integers(least, most + 1)), rng)
        pairs = statement.names(spots, rng)
        seen = [Seen(*pair, *spot) for pair, spot in zip(pairs, spots, strict=True)]
        return statement, pairs, statement.truth(seen)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take note of what is said."""
        statement = self.statement
        if statement is None:
            raise GeneralistError(f"{self.task}: call reset() before step(); no episode is on.")
        self.statement, said = None, str(action)
        right = said == self.truth
        info = {
            "success": right,
            "asked": statement.question,
            "truth": self.truth,
            "said": said,
            "form": statement.form,
        }
        return self._frame, float(right), True, False, info

    def render(self) -> np.ndarray | None:
        """The picture, four times as large; None without a render mode."""
        if self.render_mode != "rgb_array":
            return None
        return self._frame.repeat(4, axis=0).repeat(4, axis=1)

    def close(self) -> None:
        """Free what the simulator holds."""
        self.camera.close()

    @functools.cached_property
    def frequent(self) -> dict[str, str]:
        """By form, the text that is right most often; from statements drawn without a picture."""
        rng = random_stream(0, Stream.PICTURES)
        counts: dict[str, collections.Counter[str]] = {}
        for _ in range(_DRAWN):
            statement, _, truth = self._draw(rng)
            counts.setdefault(statement.form, collections.Counter())[truth] += 1
        return {form: found.most_common(1)[0][0] for form, found in counts.items()}
