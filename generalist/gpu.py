"""What can be asked of a GPU, with what is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

from generalist.errors import UsageError

_CAPABILITY = 8  # Ampere: the first with bfloat16


def device_for(asked: str | torch.device | None, name: str = "device") -> torch.device:
    """The device that is asked for, by default a GPU where there is one.

    name: of what was asked, for the UsageError where there is no such device.
    """
    try:
        device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # the second: PyTorch without CUDA
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{name} {asked}: {said}") from error
    return device


def has_triton(device: torch.device) -> bool:
    """Whether kernels can be compiled for this device.

    Triton comes with PyTorch on Linux. It builds what launches its kernels, for which it needs a C
    compiler and Python's headers (on Debian: gcc and python3-dev).
    """
    if not _is_recent(device) or importlib.util.find_spec("triton") is None:
        return False
    compilers = os.environ.get("CC"), shutil.which("gcc"), shutil.which("clang")
    return any(compilers) and (Path(sysconfig.get_path("include")) / "Python.h").exists()


def has_flash_attention(device: torch.device) -> bool:
    """Whether PyTorch's flash attention, which knows packed segments, runs on this device."""
    return _is_recent(device) and hasattr(torch.ops.aten, "_flash_attention_forward")


def _is_recent(device: torch.device) -> bool:
    """True for NVIDIA's GPUs since Ampere."""
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device)[0] >= _CAPABILITY
