"""Errors meant for the person at the keyboard: what was given, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Iterator


class GeneralistError(Exception):
    """A failure with a cause the user can act on; the command line prints it and exits with 1."""


class UsageError(GeneralistError):
    """A wrong name, key or option; the command line prints it and exits with 2."""


class MissingPackageError(GeneralistError):
    """A feature needs a package that is not installed; the message names how to get it."""

    def __init__(self, package: str, purpose: str, extra: str | None = None) -> None:
        remedy = f"pip install 'generalist[{extra}]'" if extra else f"pip install {package}"
        super().__init__(f"{purpose} needs the package {package!r}, which is missing: {remedy}.")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from or while handling, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
