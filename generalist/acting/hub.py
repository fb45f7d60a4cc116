"""Checkpoints by name: those that ship with the package, and those on the Hugging Face Hub.

The name of a checkpoint is its folder; or a shipped one, such as `catalogue`; or its repository on
the Hub: `user/name`, or `user/name@revision`.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from generalist.errors import GeneralistError, causes
from generalist.integrity import MANIFEST, verify
from generalist.modeling import PARTS_FOLDER
from generalist.network import reaching
from generalist.specs import list_specs, shipped_checkpoint

LAYOUTS_FILE = "layouts.json"
SHIPPED = "catalogue"
"""Name of the checkpoint that ships with the package."""
FOLDER_IN_CARD = "PATH OF THIS FOLDER"
"""Placeholder in a checkpoint's card for its name, until `push_checkpoint` knows it."""
REPLAY = "replay.webp"
"""File of the moving picture that a card may show."""
_CARD = "README.md"
# No file that could run code when it is read.
_PATTERNS = [_CARD, REPLAY, "*.json", "*.safetensors", "*.yaml"]
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_NOT_LOGGED_IN = (401, 403)


def checkpoint_folder(checkpoint: str | Path) -> Path:
    """The folder of a checkpoint; downloads a repository that is not on this machine yet.

    Args:
        checkpoint: a folder, a shipped checkpoint, or `user/name[@revision]` on the Hub. An
            existing folder wins over a name.

    Raises:
        GeneralistError: the repository cannot be downloaded.
    """
    folder = Path(checkpoint)
    if folder.exists():
        return folder
    if (shipped := shipped_checkpoint(checkpoint)) is not None:
        return shipped
    if not _REPOSITORY.fullmatch(str(checkpoint)):
        return folder
    name, _, revision = str(checkpoint).partition("@")
    from huggingface_hub import snapshot_download

    with reaching(f"The checkpoint {checkpoint}"):
        try:
            found = snapshot_download(name, revision=revision or None, allow_patterns=_PATTERNS)
        except ValueError as error:  # the client refuses a file name that leads out of its folder
            raise GeneralistError(f"{checkpoint} cannot be downloaded: {error}") from error
    return Path(found)


def check_checkpoint(folder: Path) -> None:
    """Check that a folder is a checkpoint to act with.

    Raises:
        GeneralistError: it is not; the message names the missing file.
    """
    if not folder.is_dir():
        raise GeneralistError(
            f"There is no checkpoint folder {folder}. These ship with the package: "
            f"{', '.join(list_specs('checkpoints'))}."
        )
    for needed in ("config.json", PARTS_FOLDER, f"{PARTS_FOLDER}/{LAYOUTS_FILE}"):
        if not (folder / needed).exists():
            raise GeneralistError(
                f"{folder} is not a checkpoint to act with: {needed} is missing. Expected the "
                "folder that `generalist train` prints at its end."
            )


def push_checkpoint(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload a checkpoint to a repository on the Hub, in one commit.

    The card's examples then name the repository.

    Args:
        folder: folder of the checkpoint.
        repository: `user/name`; created where it does not exist.
        private: whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        GeneralistError: `folder` is no checkpoint or a damaged one, the user is not logged in, or
            the Hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_checkpoint(folder)
    if (folder / MANIFEST).exists():
        verify(folder)
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(fnmatch.fnmatch(path.name, each) for each in _PATTERNS)
    )
    parts: dict[str, Path | bytes] = {name: folder / name for name in names}
    if _CARD in parts:
        card = (folder / _CARD).read_text().replace(FOLDER_IN_CARD, repository)
        parts[_CARD] = card.encode()
    api = HfApi()
    with reaching(f"The repository {repository}"):
        try:
            address = api.create_repo(repository, private=private or None, exist_ok=True)
            api.create_commit(
                repository,
                [CommitOperationAdd(name, content) for name, content in parts.items()],
                commit_message="Checkpoint of generalist",
            )
        except Exception as error:
            if _refused(error):
                raise GeneralistError(
                    f"The Hub does not let you write to {repository}: log in with `hf auth login`, "
                    "or set HF_TOKEN to a token that may write there."
                ) from error
            raise
    return str(address)


def _refused(error: BaseException) -> bool:
    """Whether the Hub refused because the user is not logged in or may not write."""
    return any(
        type(each).__name__ == "LocalTokenNotFoundError"
        or getattr(getattr(each, "response", None), "status_code", None) in _NOT_LOGGED_IN
        for each in causes(error)
    )
