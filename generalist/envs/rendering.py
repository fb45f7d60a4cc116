"""Off-screen OpenGL for MuJoCo: which backend this machine has, and what to install where none.

Only rendering needs OpenGL; stepping does not.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import functools
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from generalist.errors import GeneralistError

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
NO_GL_MESSAGE = (
    "Rendering MuJoCo scenes needs EGL or OSMesa, and this machine has neither: "
    "install one (apt install libegl1, or apt install libosmesa6), "
    "or go without video."
)


def offscreen_backend() -> str | None:
    """The backend to use, `egl` or `osmesa` or what MUJOCO_GL says; None where there is none."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen in ("egl", "osmesa", "glfw"):
        return chosen
    for backend, library in _LIBRARIES.items():
        if ctypes.util.find_library(library):
            return backend
    return None


def use_offscreen_gl() -> str:
    """Set MUJOCO_GL to the backend of this machine, and return its name.

    Raises:
        GeneralistError: This machine has neither EGL nor OSMesa.
    """
    backend = offscreen_backend()
    if backend is None:
        raise GeneralistError(NO_GL_MESSAGE)
    os.environ["MUJOCO_GL"] = backend
    return backend


def load_compilers_first() -> None:
    """Import Triton, where it is installed, before OpenGL.

    Mesa brings an LLVM of its own. Once that is loaded for all libraries, as PyOpenGL does, an
    import of Triton, which torch's users do at any time, ends the process. So it is left alone
    where an LLVM is loaded already.
    """
    with contextlib.suppress(OSError, ImportError):
        if "libLLVM" not in Path("/proc/self/maps").read_text(encoding="utf-8"):
            importlib.import_module("triton")


def _gl_context(width: int, height: int) -> Any:
    backend = use_offscreen_gl()
    load_compilers_first()
    try:
        if backend == "egl":
            from mujoco.egl import GLContext
        elif backend == "osmesa":
            from mujoco.osmesa import GLContext
        else:
            from mujoco.glfw import GLContext
        context = GLContext(width, height)
        context.make_current()
    except Exception as error:  # PyOpenGL raises many kinds of errors for a missing driver
        raise GeneralistError(f"{NO_GL_MESSAGE} (Tried {backend}: {error})") from error
    return context


class OffscreenCamera:
    """Draws one MuJoCo model from one camera into (height, width, 3) uint8 frames.

    It holds its own OpenGL context. dm_control decides at import time whether it can render at all,
    but a process that only steps must not need OpenGL.

    Args:
        model: A mujoco.MjModel.
        camera: Index of the model's camera; the free camera where there is none of that index.
        height, width: Of a frame, in pixels.

    Raises:
        GeneralistError: This machine has no OpenGL that works.
    """

    def __init__(self, model: Any, *, camera: int = 0, height: int = 240, width: int = 320) -> None:
        import mujoco

        self._mujoco = mujoco
        self._model = model
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        self._gl = _gl_context(width, height)
        self._scene = mujoco.MjvScene(model, maxgeom=2_000)
        self._camera = mujoco.MjvCamera()
        if camera < model.ncam:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = camera
        else:
            mujoco.mjv_defaultFreeCamera(model, self._camera)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._viewport = mujoco.MjrRect(0, 0, width, height)

    def frame(self, data: Any) -> np.ndarray:
        """The scene as it stands in `data` (mujoco.MjData): (height, width, 3) uint8."""
        mujoco = self._mujoco
        self._gl.make_current()
        for terrain in range(self._model.nhfield):  # may differ from episode to episode
            mujoco.mjr_uploadHField(self._model, self._context, terrain)
        mujoco.mjv_updateScene(
            self._model,
            data,
            _scene_options(),
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        pixels = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._viewport, self._context)
        return np.flipud(pixels).copy()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._gl.make_current()  # names are freed in the present context, perhaps another library's
        self._context.free()
        self._gl.free()


@functools.cache
def _scene_options() -> Any:
    import mujoco

    return mujoco.MjvOption()
