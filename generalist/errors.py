"""Errors meant for the person at the keyboard: what was given, what was expected, what to do."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LONGEST_MESSAGE = 300


class GeneralistError(Exception):
    """A failure with a cause the user can act on; the command line prints it and exits with 1."""


class UsageError(GeneralistError):
    """A wrong name, key or option; the command line prints it and exits with 2."""


class MissingPackageError(GeneralistError):
    """A feature needs a package that is not installed; the message names how to get it.

    Args:
        package: The module that cannot be imported.
        purpose: What needs it, as the subject of a sentence.
        extra: The extra of this distribution that brings it, if not that in `EXTRAS`.
    """

    def __init__(self, package: str, purpose: str, extra: str | None = None) -> None:
        extra = extra or EXTRAS.get(package)
        remedy = install_command(extra) if extra else f"pip install {package}"
        super().__init__(f"{purpose} needs the package {package!r}, which is missing: {remedy}.")


DISTRIBUTION = "generalist-agents"
"""What pip calls this package; the name it is imported by belongs to somebody else there."""

EXTRAS = {
    "Box2D": "box2d",
    "accelerate": "train",
    "aiohttp": "play",
    "ale_py": "atari",
    "cv2": "images",
    "datasets": "train",
    "deepspeed": "deepspeed",
    "dm_control": "dmc",
    "fsspec": "train",
    "h5py": "minari",
    "imageio": "video",
    "matplotlib": "train",
    "metaworld": "metaworld",
    "minari": "minari",
    "minatar": "minatar",
    "minigrid": "babyai",
    "miniworld": "miniworld",
    "pyglet": "miniworld",
    "mujoco": "mujoco",
    "open_spiel": "boards",
    "peft": "lora",
    "pyarrow": "train",
    "pygame": "classic",
    "pyspiel": "boards",
    "ray": "ray",
    "scipy": "train",
    "stable_baselines3": "experts",
    "vizdoom": "doom",
    "webdataset": "train",
}
"""The extra that brings a module which acting with a checkpoint does not need."""


def install_command(extra: str) -> str:
    """The command that installs an extra, as this installation itself was made."""
    in_a_clone = (Path(__file__).resolve().parents[1] / "pyproject.toml").is_file()
    return (
        f"pip install -e '.[{extra}]'" if in_a_clone else f"pip install '{DISTRIBUTION}[{extra}]'"
    )


@contextlib.contextmanager
def needing(purpose: str) -> Iterator[None]:
    """Imports of optional packages: a missing one becomes a MissingPackageError.

    Args:
        purpose: what needs them, as the subject of a sentence.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingPackageError(package, purpose) from error


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from or while handling, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def in_words(error: BaseException) -> str:
    """Kind, message and place of an error that is none of ours, in one line.

    The place is the last line of code that belongs to no installed package, where there is one.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    message = " ".join(str(error).split())
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + " ..."
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if not frames:
        return said
    where = (own or frames)[-1]
    return f"{said.rstrip('.')} ({os.path.basename(where.filename)}:{where.lineno})"


def _is_installed(file: str) -> bool:
    """Whether a file of code belongs to a package: another's, this one, or Python itself."""
    return file.startswith((_HERE, "<")) or any(
        part in ("site-packages", "dist-packages") or part.startswith("python3.")
        for part in file.split(os.sep)
    )
