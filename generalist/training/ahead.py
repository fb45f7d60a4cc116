"""Steps prepared ahead of the one that is trained on: by a thread, or by processes.

A thread suffices where the CPU trains. Beside a GPU it would take its time from whoever launches
kernels, because both are Python: 128 rows take longer than a step of a small model.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from generalist.training.passes import ForwardPass

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


@contextmanager
def several_ahead(
    make: Callable[[int], list[ForwardPass]], first: int, *, workers: int
) -> Iterator[Iterator[list[ForwardPass]]]:
    """The same for passes, computed in processes that are forked from this one.

    Args:
        make: computes the passes of a step, without touching a GPU.
        first: the first step.
        workers: how many processes; each prepares two steps ahead.

    Yields:
        The endless iterator, in order. It raises what `make` raises.
    """
    loader = DataLoader(
        _Steps(make),
        sampler=range(first, sys.maxsize),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context="fork",  # the data are open already
        worker_init_fn=_end_with_the_loader,
    )

    def generate() -> Generator[list[ForwardPass], None, None]:
        for made in loader:
            if isinstance(made, Exception):
                raise made
            yield [each.map(torch.from_numpy) for each in made]

    with closing(generate()) as steps:
        yield steps


class _Steps(Dataset[Any]):
    """The passes of a step by its number, as arrays: tensors would each travel as a file."""

    def __init__(self, make: Callable[[int], list[ForwardPass]]) -> None:
        self._make = make

    def __getitem__(self, step: int) -> list[Any] | Exception:
        try:
            return [each.map(Tensor.numpy) for each in self._make(step)]
        except Exception as error:  # raised where the step is asked for, in its own words
            return error


def _as_it_is(made: Any) -> Any:
    return made


def _end_with_the_loader(worker: int) -> None:
    """Ctrl-C is for the process that trains, and SIGTERM ends a worker at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
