"""Work that is done one step ahead, in a thread, while the step before it is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def one_ahead(make: Callable[[int], T], first: int) -> Iterator[Iterator[T]]:
    """make(first), make(first + 1), ...; the next one is begun as soon as one is asked for."""
    with ThreadPoolExecutor(max_workers=1) as thread:

        def generate() -> Iterator[T]:
            number = first
            ahead = thread.submit(make, number)
            while True:
                made = ahead.result()
                number += 1
                ahead = thread.submit(make, number)
                yield made

        yield generate()
