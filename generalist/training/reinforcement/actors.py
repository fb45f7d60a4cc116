"""Actors: crews in processes of their own, for environments that are slow.

An actor that dies or hangs loses its present unroll and nothing else: another takes its place and
begins the next episodes.
"""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from torch import multiprocessing

from generalist.errors import GeneralistError
from generalist.processes import GRACE_SECONDS, deaf_to_ctrl_c
from generalist.training.ranks import Problem
from generalist.training.reinforcement.crew import Crew, Crewed


class ActorLost(Exception):
    """An actor died, or did not answer in time; the message says which."""


class LocalCrew:
    """A crew in this process, asked in the way of an `Actor`."""

    def __init__(self, crewed: Crewed, start: np.ndarray) -> None:
        self._crew = Crew(crewed, start)
        self._answer: Any = self._crew.observe()

    def ask(self, what: str, *arguments: Any) -> None:
        """Do something now; `answer` gives what came of it."""
        self._answer = getattr(self._crew, what)(*arguments)

    def answer(self) -> Any:
        """What came of the last question; at first the present states."""
        return self._answer

    def close(self) -> None:
        """Close the environments."""
        self._crew.close()


class Actor:
    """A crew in a process of its own.

    Args:
        crewed: what it plays.
        start: (E,) int64 numbers of the first episodes.
        patience: seconds that an answer may take.
    """

    def __init__(self, crewed: Crewed, start: np.ndarray, patience: float) -> None:
        self._patience = patience
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_act, args=(crewed, start, theirs), daemon=True)
        with deaf_to_ctrl_c():
            self.process.start()
        theirs.close()

    def ask(self, what: str, *arguments: Any) -> None:
        """Have the crew do something, and do not wait for it.

        Raises:
            ActorLost: the process is gone.
        """
        try:
            self._connection.send((what, arguments))
        except OSError as error:
            raise ActorLost(self._end()) from error

    def answer(self) -> Any:
        """What came of the last question; at first the present states.

        Raises:
            ActorLost: the process is gone, or does not answer in time.
            GeneralistError: the crew raised it.
        """
        try:
            if not self._connection.poll(self._patience):
                raise ActorLost(f"gave no answer in {self._patience:g} seconds")
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise ActorLost(self._end()) from error
        if isinstance(answer, Problem):
            raise answer.error()
        return answer

    def _end(self) -> str:
        self.process.join(timeout=GRACE_SECONDS)
        return f"ended with exit code {self.process.exitcode}"

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self.process.join(timeout=GRACE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _act(crewed: Crewed, start: np.ndarray, connection: Connection) -> None:
    """Answer questions until the other end is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the process that trains decides when to end
    try:
        crew: Crew | None = None
        what, arguments = "observe", ()
        while True:
            try:
                crew = crew or Crew(crewed, start)
                answer = getattr(crew, what)(*arguments)
            except GeneralistError as error:
                answer = Problem.of(error)
            connection.send(answer)
            what, arguments = connection.recv()
    except (EOFError, OSError):
        os._exit(0)  # nothing to be saved
