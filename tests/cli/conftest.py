"""What commands that run within the tests' process leave behind is put back."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """Training flushes subnormal numbers to zero for its whole process; other tests need them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
