"""A window that shows an episode while it runs."""

from __future__ import annotations

import os
import sys
from typing import Any

from generalist.acting.video import Picture
from generalist.errors import MissingPackageError, UsageError
from generalist.session import Trace

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


class Window:
    """Shows the frames of an environment at its own speed; the user closes it to stop.

    Args:
        title: title of the window.

    Raises:
        UsageError: there is no display.
        MissingPackageError: pygame is not installed.
        KeyboardInterrupt: the user closed the window; from the next call.
    """

    def __init__(self, title: str) -> None:
        try:
            import pygame
        except ImportError as error:
            raise MissingPackageError("pygame-ce", "A window") from error
        self._pygame = pygame
        self._title = title
        self._picture = Picture()
        self._screen: Any = None
        self._clock = pygame.time.Clock()
        _use_display()
        try:
            pygame.display.quit()
            pygame.display.init()
        except pygame.error as error:
            raise UsageError(
                f"pygame cannot open a window on this display: {error}. Record with --video DIR."
            ) from error

    def __call__(self, trace: Trace) -> None:
        """Show the present state of an episode."""
        pygame = self._pygame
        picture = self._picture(trace.env.render()).swapaxes(0, 1)
        if self._screen is None:
            self._screen = pygame.display.set_mode(picture.shape[:2])
        pygame.display.set_caption(
            f"{self._title}, seed {trace.seed}, step {trace.steps}, return {trace.return_:.4g}"
        )
        pygame.surfarray.blit_array(self._screen, picture)
        pygame.display.flip()
        self._clock.tick(trace.env.metadata.get("render_fps") or 30)
        if any(event.type == pygame.QUIT for event in pygame.event.get()):
            raise KeyboardInterrupt

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()


def _use_display() -> None:
    """Let SDL draw on the screen; raises UsageError where there is none."""
    if os.environ.get("SDL_VIDEODRIVER", "dummy") != "dummy":
        return  # the user's own choice
    if sys.platform.startswith("linux") and not any(map(os.environ.get, _DISPLAYS)):
        raise UsageError(
            "There is no display to show a window on: neither DISPLAY nor WAYLAND_DISPLAY is set. "
            "Record with --video DIR."
        )
    os.environ.pop("SDL_VIDEODRIVER", None)  # the command line sets the dummy driver for videos
