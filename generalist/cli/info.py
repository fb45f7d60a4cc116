"""`generalist info`: what is installed on which machine, for a report of a fault."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
from pathlib import Path
from typing import Any

from generalist.cli.common import JsonFile, console, write_json

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "gymnasium", "numpy", "triton")
"""Packages whose versions explain most faults."""
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
"""CPU features that decide how fast a model runs, by their names in /proc/cpuinfo."""


def info(json: JsonFile = None) -> None:
    """Show versions, CPU, GPU, OpenGL, extras and fingerprints, for a report of a fault."""
    from rich.table import Table

    found = facts()
    write_json(json, found)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in found.items():
        table.add_row(name, _shown(value))
    console().print(table)


def facts() -> dict[str, Any]:
    """What `info` shows, as JSON."""
    from generalist.envs.rendering import offscreen_backend
    from generalist.processes import usable_cpus
    from generalist.version import __version__

    return {
        "generalist": __version__,
        "installed as": "clone" if _in_a_clone() else "package",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": {"model": _cpu_model(), "usable": usable_cpus(), "flags": _cpu_flags()},
        "gpu": _gpus(),
        "opengl": offscreen_backend(),
        "extras": _extras(),
        "fingerprints": _fingerprints(),
    }


def _shown(value: Any) -> str:
    """A value in a line, or a line for each of its parts."""
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _in_a_clone() -> bool:
    return (Path(__file__).resolve().parents[2] / "pyproject.toml").is_file()


def _version(package: str) -> str | None:
    """The installed version of a package; None where it is missing.

    That of torch is its own word, which names the build: 2.13.0+cu130.
    """
    if package == "torch":
        import torch

        return str(torch.__version__)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_info() -> str:
    """The description of the first CPU, on Linux."""
    try:
        return Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return ""


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _cpu_flags() -> list[str]:
    found = re.search(r"^flags\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    there = set(found[1].split()) if found else set()
    return [flag for flag in CPU_FLAGS if flag in there]


def _gpus() -> list[str]:
    """Name and memory of each GPU that PyTorch sees."""
    import torch

    properties = [
        torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())
    ]
    return [f"{each.name}, {each.total_memory / 2**30:.0f} GiB" for each in properties]


def _extras() -> dict[str, str]:
    """Each extra of `generalist.errors.EXTRAS`: installed, or the module that is missing."""
    from generalist.errors import EXTRAS

    found: dict[str, str] = {}
    for module, extra in sorted(EXTRAS.items(), key=lambda pair: pair[1]):
        if importlib.util.find_spec(module) is None:
            found[extra] = f"{module} is missing"
        else:
            found.setdefault(extra, "installed")
    return found


def _fingerprints() -> dict[str, str]:
    """Those of the shipped vocabulary and processor, which data and checkpoints carry."""
    from generalist.tokenization.processor import GeneralistProcessor

    processor = GeneralistProcessor.default()
    return {
        "vocabulary": processor.vocabulary.fingerprint,
        "processor": processor.fingerprint,
    }
