"""What a page may say to the server of `generalist play`. Everything else is refused in words."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from generalist.errors import UsageError

MOST_BYTES = 16_384
_LONGEST_TEXT = 400
_MOST_NUMBERS = 64


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Start(_Message):
    """Begin to play a task; replaces what this page played before."""

    type: Literal["start"]
    task: str = Field(max_length=_LONGEST_TEXT)
    agents: Literal[1, 9] = 1
    seed: int | None = Field(default=None, ge=0, lt=1_000_000)


class Plain(_Message):
    """A button: go on, stop, one step, a new episode, keep this one as data."""

    type: Literal["play", "pause", "step", "again", "save"]


class Speed(_Message):
    """How many times as fast as the environment's own speed."""

    type: Literal["speed"]
    value: float = Field(ge=0.1, le=16)


class Temperature(_Message):
    """Of the agent's sampling; None as the checkpoint says."""

    type: Literal["temperature"]
    value: float | None = Field(ge=0, le=10)


class Instruct(_Message):
    """Tell the agent what to do."""

    type: Literal["instruct"]
    text: str = Field(max_length=_LONGEST_TEXT)


class Ask(_Message):
    """Begin episodes that are asked for a return: `expert`, 250 or 80%; nothing for none."""

    type: Literal["ask"]
    text: str = Field(max_length=_LONGEST_TEXT)


class Control(_Message):
    """Take over, or hand back."""

    type: Literal["control"]
    on: bool


class Act(_Message):
    """The action of the person in control: its number, or its numbers."""

    type: Literal["act"]
    action: int | Annotated[list[float], Field(max_length=_MOST_NUMBERS)]


class Look(_Message):
    """Which of the agents is looked into."""

    type: Literal["look"]
    slot: int = Field(ge=0, le=8)


Message = Start | Plain | Speed | Temperature | Instruct | Ask | Control | Act | Look
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def read_message(text: str) -> Message:
    """The message of a text.

    Raises:
        UsageError: it is none; the sentence says what is wrong.
    """
    try:
        return _ADAPTER.validate_python(json.loads(text))
    except (ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise UsageError("A message is one JSON object; this is not JSON.") from error
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"][1:]) or "type"
        raise UsageError(f"Message refused: {where}: {first['msg']}.") from error
