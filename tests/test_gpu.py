"""What a GPU can be asked for, and what a machine without one is not."""

from __future__ import annotations

import pytest
import torch

from generalist import gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_cpu_has_neither():
    assert not gpu.has_flash_attention(CPU) and not gpu.has_triton(CPU)


@pytest.mark.parametrize(
    ("capability", "compiler", "flash", "triton"),
    [
        ((9, 0), "/usr/bin/gcc", True, True),
        ((9, 0), None, True, False),
        ((7, 5), "gcc", False, False),
    ],
)
def test_what_is_missing_is_told(monkeypatch, capability, compiler, flash, triton):
    """GPUs before Ampere have neither; without a C compiler there is no Triton."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(gpu.Path, "exists", lambda path: True)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: compiler)
    assert (gpu.has_flash_attention(GPU), gpu.has_triton(GPU)) == (flash, triton)
