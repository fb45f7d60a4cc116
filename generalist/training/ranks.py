"""What the processes of a run (its ranks) tell each other besides gradients.

Numbers of every step go through collectives. Everything else goes through the key-value store that
the ranks met at: whoever waits looks there now and then. A collective of the communication library
gives up after minutes, and a round or a large checkpoint may take longer.
"""

from __future__ import annotations

import itertools
import pickle
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import distributed
from torch.distributed.distributed_c10d import _get_default_store

from generalist.errors import GeneralistError, UsageError

T = TypeVar("T")
POLL_SECONDS = 0.05
_boards = itertools.count()  # of this process, whose runs may share one store


@dataclass(frozen=True)
class Problem:
    """What went wrong in another process, for the user."""

    message: str
    wrong_use: bool = False

    @classmethod
    def of(cls, error: GeneralistError) -> Problem:
        """What an error says; errors themselves do not all survive the way between processes."""
        return cls(str(error), isinstance(error, UsageError))

    def error(self) -> GeneralistError:
        """The error again."""
        return UsageError(self.message) if self.wrong_use else GeneralistError(self.message)


class Board:
    """Where ranks take numbers and leave messages for each other; nobody waits inside of it.

    Args:
        store: what the ranks share.
    """

    _store: distributed.Store

    def __init__(self, store: distributed.Store) -> None:
        self._store = store

    def take(self) -> int:
        """The next number, from 0, that no rank has taken."""
        return self._store.add("taken", 1) - 1

    def post(self, key: str, message: Any) -> None:
        """Leave a message, which is pickled."""
        self._store.set(key, pickle.dumps(message))
        self._store.add("posted", 1)

    def posted(self) -> int:
        """How many messages have been left so far."""
        return self._store.add("posted", 0)

    def has(self, key: str) -> bool:
        """Whether a message is there."""
        return self._store.check([key])

    def read(self, key: str) -> Any:
        """A message that is there."""
        return pickle.loads(self._store.get(key))

    def wait_for(self, key: str) -> Any:
        """A message, once it is there, however long that takes."""
        while not self.has(key):
            time.sleep(POLL_SECONDS)
        return self.read(key)


class Ranks:
    """The processes of a run, seen from one of them. All call the same methods in the same order.

    Attributes:
        number: of this process, from 0.
        count: how many there are.
        main: True on number 0, which writes and decides.
        device: this process's own.
    """

    number: int
    count: int
    main: bool
    device: torch.device

    _accelerator: Accelerator

    def __init__(self, accelerator: Accelerator) -> None:
        self.number, self.count = accelerator.process_index, accelerator.num_processes
        self.main = accelerator.is_main_process
        self.device = accelerator.device
        self._accelerator = accelerator

    def board(self) -> Board:
        """A new board, the same on all ranks."""
        name = f"generalist/{next(_boards)}"
        if self.count == 1:
            return Board(distributed.HashStore())
        return Board(distributed.PrefixStore(name, _get_default_store()))

    def on_main(self, find: Callable[[], T]) -> T:
        """What `find` returns on the main process, on all; the others wait for it.

        Raises GeneralistError on all where `find` does.
        """
        board = self.board()
        if self.main:
            try:
                found: Any = find()
            except GeneralistError as error:
                board.post("found", Problem.of(error))
                raise
            board.post("found", found)
        else:
            found = board.wait_for("found")
        if isinstance(found, Problem):
            raise found.error()
        return found

    def gather(self, mine: T) -> list[T]:
        """What each rank has, on all, in their order; a barrier without a time limit."""
        board = self.board()
        board.post(str(self.number), mine)
        return [board.wait_for(str(number)) for number in range(self.count)]

    def meet(self) -> None:
        """Wait until all ranks have come this far, however long that takes."""
        self.gather(None)
        # The rank that holds the store must not end while another still looks there.
        self._accelerator.wait_for_everyone()

    def require(self, problem: str | None, remedy: str) -> None:
        """Go on where no rank has a problem; else raise one GeneralistError on all of them.

        Args:
            problem: what this rank cannot do, as the rest of a sentence of which it is the subject.
            remedy: what to do about it, a sentence.
        """
        found = self.gather((socket.gethostname(), problem))
        said = [
            f"Rank {number} ({host}) {problem.rstrip('.')}."
            for number, (host, problem) in enumerate(found)
            if problem is not None
        ]
        if said:
            raise GeneralistError(f"{' '.join(said)} {remedy}")

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Sums over all ranks, in float64."""
        if self.count == 1:
            return list(numbers)
        mine = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        return self._accelerator.reduce(mine, "sum").tolist()
