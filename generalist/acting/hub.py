"""Checkpoints on the Hugging Face Hub: fetched by their name, and put there.

A checkpoint is named by its folder, or by its repository: `user/name`, or `user/name@revision`.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from generalist.errors import GeneralistError, causes
from generalist.integrity import MANIFEST, verify
from generalist.modeling import PARTS_FOLDER
from generalist.network import reaching

LAYOUTS_FILE = "layouts.json"
FOLDER_IN_CARD = "PATH OF THIS FOLDER"
"""What a checkpoint's card says for its own name, until it has one."""
_CARD = "README.md"
# Nothing that could run code when it is read.
_PATTERNS = [_CARD, "*.json", "*.safetensors", "*.yaml"]
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_NOT_LOGGED_IN = (401, 403)


def checkpoint_folder(checkpoint: str | Path) -> Path:
    """The folder of a checkpoint, which is downloaded where it is a repository not yet here.

    A folder that exists wins over a repository of that name. Raises GeneralistError where neither
    is to be had.
    """
    folder = Path(checkpoint)
    if folder.exists() or not _REPOSITORY.fullmatch(str(checkpoint)):
        return folder
    name, _, revision = str(checkpoint).partition("@")
    from huggingface_hub import snapshot_download

    with reaching(f"The checkpoint {checkpoint}"):
        try:
            found = snapshot_download(name, revision=revision or None, allow_patterns=_PATTERNS)
        except ValueError as error:  # a name in it that leads elsewhere, which the client refuses
            raise GeneralistError(f"{checkpoint} cannot be downloaded: {error}") from error
    return Path(found)


def check_checkpoint(folder: Path) -> None:
    """Raise GeneralistError where a folder is no checkpoint that an agent could act with."""
    if not folder.is_dir():
        raise GeneralistError(f"There is no checkpoint folder {folder}.")
    for needed in ("config.json", PARTS_FOLDER, f"{PARTS_FOLDER}/{LAYOUTS_FILE}"):
        if not (folder / needed).exists():
            raise GeneralistError(
                f"{folder} is not a checkpoint to act with: {needed} is missing. Expected the "
                "folder that `generalist train` prints at its end."
            )


def push_checkpoint(folder: Path, repository: str, private: bool = False) -> str:
    """Put a checkpoint into a repository on the Hub, in one commit; returns its address.

    The repository is made where it does not exist; `private` then says who sees it. The card's
    lines on use name the repository.
    Raises GeneralistError: no checkpoint, a damaged one, not logged in, no way to the Hub.
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
    """Whether the Hub wants to know who is writing, or does not want them to."""
    return any(
        type(each).__name__ == "LocalTokenNotFoundError"
        or getattr(getattr(each, "response", None), "status_code", None) in _NOT_LOGGED_IN
        for each in causes(error)
    )
