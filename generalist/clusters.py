"""A Ray cluster, joined for the length of a context."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from generalist.errors import GeneralistError, MissingPackageError
from generalist.processes import usable_cpus


@contextlib.contextmanager
def joined(address: str, *, processes: int | None, purpose: str) -> Iterator[int]:
    """Join a Ray cluster; leaving ends what this process has under way there.

    Args:
        address: HOST:PORT, ray://HOST:PORT, `auto` for the one running here, `local` for one of its
            own.
        processes: of a `local` one; None for one a CPU.
        purpose: what needs it, such as "Collecting on a Ray cluster", for errors.

    Yields:
        How many CPUs it has.

    Raises:
        GeneralistError: it cannot be reached.
        MissingPackageError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning a start
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError("ray", purpose) from error
    sizes: dict[str, Any] = {}  # a cluster has its own
    if address == "local":
        sizes = {"num_cpus": processes or usable_cpus(), "include_dashboard": False}
    # What a lost worker's node says of it goes past log_to_driver; this flag is Ray's debugger's.
    ray._private.worker._worker_logs_enabled = False
    try:
        _knock(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **sizes)
    except Exception as error:  # Ray raises no narrower one where it does not start in time
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise GeneralistError(
            f"The Ray cluster {address!r} cannot be reached: {reason}. Expected HOST:PORT, "
            "ray://HOST:PORT, auto or local."
        ) from error
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT, for which Ray itself waits minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=10).close()
