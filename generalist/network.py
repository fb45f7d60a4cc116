"""What goes wrong between here and a server, said in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from generalist.errors import GeneralistError, causes

_UNREACHABLE = ("ConnectionError", "ConnectError", "ConnectTimeout", "ReadTimeout", "ProxyError",
                "OfflineModeIsEnabled", "LocalEntryNotFoundError", "MaxRetryError")  # fmt: skip
_ABSENT = ("DatasetNotFoundError", "RepositoryNotFoundError", "GatedRepoError",
           "RevisionNotFoundError")  # fmt: skip


@contextlib.contextmanager
def reaching(name: str) -> Iterator[None]:
    """Turn errors of the network, in whatever package, into a GeneralistError about `name`."""
    try:
        yield
    except GeneralistError:
        raise
    except Exception as error:
        kinds = {kind.__name__ for link in causes(error) for kind in type(link).__mro__}
        if kinds & set(_UNREACHABLE):
            raise GeneralistError(
                f"{name} is not on this machine, and its server cannot be reached; go online once, "
                "or name a folder that holds it."
            ) from error
        if kinds & set(_ABSENT):
            raise GeneralistError(
                f"{name} does not exist on the Hub, or is not open to you: {_first_line(error)}"
            ) from error
        if "HfHubHTTPError" in kinds:
            raise GeneralistError(f"{name}: the Hub answered {_first_line(error)}") from error
        raise


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0]
