"""Work one step ahead: a thread prepares the next step during the present one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def one_ahead(make: Callable[[int], T], first: int) -> Iterator[Iterator[T]]:
    """An iterator over make(first), make(first + 1), ..., computed one step ahead in a thread.

    Args:
        make: computes the value of a number.
        first: the first number.

    Yields:
        The endless iterator. It raises what `make` raises.
    """
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
