"""Communication between the processes of a run (its ranks), besides gradients.

The numbers of every step go through collectives. Everything else goes through the key-value store
of the rendezvous, which waiting ranks poll. A collective times out after minutes, and a round or a
large checkpoint may take longer.
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
_boards = itertools.count()  # count of boards in this process; its runs may share one store


@dataclass(frozen=True)
class Problem:
    """A failure in another process, for the user.

    Attributes:
        message: the error's message.
        wrong_use: whether it was a UsageError.
    """

    message: str
    wrong_use: bool = False

    @classmethod
    def of(cls, error: GeneralistError) -> Problem:
        """The problem of an error; not all errors survive pickling between processes."""
        return cls(str(error), isinstance(error, UsageError))

    def error(self) -> GeneralistError:
        """The error of this problem."""
        return UsageError(self.message) if self.wrong_use else GeneralistError(self.message)


class Board:
    """A place where ranks take numbers and post messages for each other.

    Args:
        store: the key-value store that the ranks share.
    """

    _store: distributed.Store

    def __init__(self, store: distributed.Store) -> None:
        self._store = store

    def take(self) -> int:
        """The next number, from 0, that no rank has taken."""
        return self._store.add("taken", 1) - 1

    def post(self, key: str, message: Any) -> None:
        """Post a message under a key; pickle encodes it."""
        self._store.set(key, pickle.dumps(message))
        self._store.add("posted", 1)

    def posted(self) -> int:
        """The number of messages posted so far."""
        return self._store.add("posted", 0)

    def has(self, key: str) -> bool:
        """Whether there is a message under the key."""
        return self._store.check([key])

    def read(self, key: str) -> Any:
        """The message under a key; there must be one."""
        return pickle.loads(self._store.get(key))

    def wait_for(self, key: str) -> Any:
        """Wait for the message under a key, without a time limit, and return it."""
        while not self.has(key):
            time.sleep(POLL_SECONDS)
        return self.read(key)


class Ranks:
    """The processes of a run, seen from one of them. All call the same methods in the same order.

    Args:
        accelerator: the accelerator of the run.

    Attributes:
        number: number of this process, from 0.
        count: number of processes.
        main: whether this is process 0, which writes and decides.
        device: device of this process.
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
        """A new board that all ranks share."""
        name = f"generalist/{next(_boards)}"
        if self.count == 1:
            return Board(distributed.HashStore())
        return Board(distributed.PrefixStore(name, _get_default_store()))

    def on_main(self, find: Callable[[], T]) -> T:
        """Call `find` on the main process, and return its result on all ranks.

        Raises:
            GeneralistError: `find` raised it; on all ranks.
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

    def together(self, work: Callable[[], T]) -> T:
        """Do a rank's own part of a step on each rank, and return this rank's result.

        Raises:
            GeneralistError: `work` raised it on a rank; the error of the first such rank, on all.
        """
        mine: GeneralistError | None = None
        try:
            done = work()
        except GeneralistError as error:
            mine = error
        if any(self.sum([float(mine is not None)])):
            problems = self.gather(mine and Problem.of(mine))
            raise next(each.error() for each in problems if each) from mine
        return done

    def gather(self, mine: T) -> list[T]:
        """The values of all ranks, in their order; a barrier without a time limit."""
        board = self.board()
        board.post(str(self.number), mine)
        return [board.wait_for(str(number)) for number in range(self.count)]

    def meet(self) -> None:
        """Wait until all ranks are here, without a time limit."""
        self.gather(None)
        # The rank that holds the store must not end while another still reads it.
        self._accelerator.wait_for_everyone()

    def require(self, problem: str | None, remedy: str) -> None:
        """Check on all ranks that none of them has a problem.

        Args:
            problem: the problem of this rank, as the predicate of a sentence; None: no problem.
            remedy: what the user can do, as a sentence.

        Raises:
            GeneralistError: a rank has a problem; the same error on all ranks.
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
