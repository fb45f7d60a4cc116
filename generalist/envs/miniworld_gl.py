"""MiniWorld's package and the one OpenGL context with which it draws, without a display."""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from generalist.envs.instructed import FRAME_PIXELS
from generalist.envs.rendering import load_compilers_first
from generalist.errors import GeneralistError, MissingPackageError, in_words

PICTURE_PIXELS = 336  # of rendered frames
NO_GL_MESSAGE = (
    "MiniWorld draws with OpenGL, and this machine has none that works without a display: install "
    "it (apt install libegl1 libgl1 libglu1-mesa)."
)
_Made = TypeVar("_Made")


@functools.cache
def package() -> Any:
    """The module `miniworld.miniworld`, made to draw without a display.

    Raises:
        MissingPackageError: MiniWorld is missing.
        GeneralistError: the libraries of OpenGL are missing.
    """
    load_compilers_first()
    try:
        import pyglet

        pyglet.options["headless"] = True
        import miniworld.entity
        import miniworld.miniworld
    except ModuleNotFoundError as error:
        raise MissingPackageError("miniworld", "miniworld/") from error
    except Exception as error:  # pyglet raises many kinds where a library or a driver is missing
        raise GeneralistError(f"{NO_GL_MESSAGE} ({in_words(error)})") from error
    return miniworld


class Painter:
    """The one thread to which the OpenGL context belongs, and in which all rooms are drawn.

    A context is current in one thread at a time, and each thread has one current context. So a
    thread of its own keeps what MuJoCo draws with, and threads such as those of the viewer's pages,
    out of each other's way.

    Attributes:
        window: owns the context.
        frames, pictures: the frame buffers of observations and of pictures for people.
    """

    window: Any
    frames: Any
    pictures: Any

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="miniworld")
        try:
            self._thread.submit(self._without_garbage, self._make_context).result()
        except Exception as error:
            raise GeneralistError(f"{NO_GL_MESSAGE} ({in_words(error)})") from error

    def do(self, work: Callable[[], _Made]) -> _Made:
        """What the work returns, once that thread has done it; it must not ask for `do` itself.

        Raises:
            GeneralistError: the context cannot be had. What is drawn without is no picture.
        """
        return self._thread.submit(self._without_garbage, self._current, work).result()

    def _current(self, work: Callable[[], _Made]) -> _Made:
        from pyglet.libs.egl import egl

        self.window.switch_to()
        if egl.eglGetCurrentContext() != self.window.context.egl_context:
            raise GeneralistError(
                f"EGL does not give MiniWorld's context (error {egl.eglGetError():#x}); play it in "
                "a process of its own."
            )
        return work()

    @staticmethod
    def _without_garbage(function: Callable[..., _Made], *args: Any) -> _Made:
        """Collected garbage may be MuJoCo's: whoever frees it is left without a context."""
        enabled = gc.isenabled()
        gc.disable()
        try:
            return function(*args)
        finally:
            if enabled:
                gc.enable()

    def _make_context(self) -> None:
        import io

        package()
        import pyglet
        from miniworld.opengl import FrameBuffer
        from pyglet import gl

        self.window = pyglet.window.Window(width=1, height=1, visible=False)
        gl.glEnable(gl.GL_DEPTH_TEST)
        gl.glEnable(gl.GL_CULL_FACE)
        with contextlib.redirect_stdout(io.StringIO()):  # it says how many samples it falls back to
            self.frames = FrameBuffer(FRAME_PIXELS, FRAME_PIXELS, 4)
            self.pictures = FrameBuffer(PICTURE_PIXELS, PICTURE_PIXELS, 4)


_making = threading.Lock()


def painter() -> Painter:
    """The painter of this process.

    Raises:
        MissingPackageError, GeneralistError: as `package`.
    """
    with _making:  # else two threads at once would each make one
        return _made_painter()


@functools.cache
def _made_painter() -> Painter:
    return Painter()
