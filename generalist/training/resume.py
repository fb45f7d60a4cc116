"""Which checkpoint a run continues from, and whether it belongs to the same run."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from generalist.errors import GeneralistError, UsageError
from generalist.integrity import MANIFEST, verify
from generalist.training.checkpoint import DATA, RECIPE, list_checkpoints, newest_checkpoint
from generalist.training.data import NoWindows
from generalist.training.recipe import Recipe, differences, load_recipe

if TYPE_CHECKING:
    from generalist.training.data import TrainingData
    from generalist.training.ranks import Ranks

CHECKPOINTS = "checkpoints"
LOCK = ".lock"
SHARE_THE_FOLDER = "Put output_dir on a disk that all ranks share."
ROWS_COMPARED = 8
_OF_THE_WEIGHTS = ("model.", "reinforcement.value_head")  # keys that decide their shapes
LOCK_SECONDS = 15.0  # a process that was told to end may take this long


def checkpoint_to_continue(
    recipe: Recipe, data: TrainingData, *, source: Path | None, allow_changes: bool
) -> Path | None:
    """The checkpoint that a run continues from.

    Args:
        recipe: the recipe of the run, with the sizes of the model it starts from.
        data: the data of the run, without corrections.
        source: folder of a checkpoint, perhaps of another run; None: the newest of this run.
        allow_changes: continue although recipe or data have changed.

    Returns:
        Its folder; None to begin anew.

    Raises:
        GeneralistError: the checkpoint belongs to another model or vocabulary, recipe or data have
            changed without `allow_changes`, or `source` is damaged.
        UsageError: `source` does not exist, or this run has newer checkpoints.
    """
    own = recipe.output_dir / CHECKPOINTS
    folder = newest_checkpoint(own) if source is None else _chosen(source, own)
    if folder is None:
        return None
    fatal, changed = [], differences(load_recipe(folder / RECIPE), recipe)
    fatal += [change for change in changed if change.startswith(_OF_THE_WEIGHTS)]
    if not (folder / DATA).is_file():
        raise GeneralistError(
            f"{folder} was saved by an older version, which did not note its data, and cannot be "
            "continued; give another output_dir."
        )
    before, now = json.loads((folder / DATA).read_text()), data.facts()
    if before["vocabulary"] != now["vocabulary"]:
        fatal.append(f"vocabulary: {before['vocabulary']} -> {now['vocabulary']}")
    if before["tasks"] != now["tasks"]:
        changed.append(f"data: {_changed_tasks(before['tasks'], now['tasks'])}")
    elif before.get("weights", now["weights"]) != now["weights"]:  # older ones do not note them
        changed.append("data: other mixture weights")
    if fatal:
        raise GeneralistError(
            f"{folder} is of another model ({'; '.join(fatal)}). Give another output_dir; "
            "model.init_from starts from the weights of a finished run."
        )
    if changed and not allow_changes:
        raise GeneralistError(
            f"{folder} was trained with another recipe or other data ({'; '.join(changed)}). Give "
            "another output_dir, or --allow-changes to continue it anyway."
        )
    return folder


def require_same_checkpoint(folder: Path, ranks: Ranks) -> None:
    """Check that all ranks see the same checkpoint as the main process.

    The machines may not share a disk, and have other checkpoints or none under the same name.

    Raises:
        GeneralistError: a rank does not; on all ranks.
    """
    mine, problem = None, None
    try:
        verify(folder)
        mine = (folder / MANIFEST).read_bytes()
    except GeneralistError as error:
        problem = f"cannot continue from {folder}: {error}"
    if ranks.gather(mine)[0] != mine and problem is None:
        problem = f"has another checkpoint {folder} than rank 0"
    ranks.require(problem, SHARE_THE_FOLDER)


def require_same_rows(data: TrainingData, ranks: Ranks) -> None:
    """Check that all ranks draw the same rows as the main process.

    Raises:
        GeneralistError: a rank does not; on all ranks.
    """
    if ranks.count == 1 or isinstance(data.windows, NoWindows):
        return
    rows = data.windows.batch(0, ROWS_COMPARED)
    mine = sha256(rows.input_ids.tobytes() + rows.targets.tobytes()).hexdigest()
    same = ranks.gather(mine)[0] == mine
    ranks.require(
        None if same else "has other data than rank 0",
        "All ranks draw from the same data; give them the same data.root.",
    )


def bring_rounds(
    folder: Path,
    recipe: Recipe,
    rounds: int,
    root_of: Callable[[Recipe, int], Path],
    name: str,
) -> None:
    """Copy what was played for another run's checkpoint into this run's folder.

    Args:
        folder: folder of the checkpoint, within its run's folder.
        recipe: the recipe of this run.
        rounds: number of rounds that the checkpoint was trained on.
        root_of: the folder of a round of a run.
        name: of what was played, for errors.

    Raises:
        GeneralistError: the other run's folder lacks a round.
        UsageError: this run has other ones.
    """
    other = recipe.model_copy(update={"output_dir": folder.parent.parent})
    for number in range(rounds):
        own, source = root_of(recipe, number), root_of(other, number)
        if not source.is_dir() and not own.is_dir():
            raise GeneralistError(
                f"{folder} was trained on {name} that are missing: round {number + 1} in "
                f"{source}. Continue from a run whose folder is complete."
            )
        if own.is_dir():
            if source.is_dir() and _manifests(own) != _manifests(source):
                raise UsageError(
                    f"{own} holds other {name} than {source}, which {folder} was trained on; "
                    "give another output_dir."
                )
            continue
        own.parent.mkdir(parents=True, exist_ok=True)
        temporary = own.with_name(f".{own.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        temporary.rename(own)


def _manifests(root: Path) -> dict[str, bytes]:
    """The manifests of all datasets below a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob(MANIFEST))}


@contextmanager
def only_run_in(output_dir: Path) -> Iterator[None]:
    """Lock a run's folder, so that no other process trains in it.

    The ranks of a killed launcher may live on, and would write the same checkpoints. The system
    releases the lock when its process ends, however it ends.

    Raises:
        GeneralistError: another process holds the lock for longer than LOCK_SECONDS.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with (output_dir / LOCK).open("w") as file:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    raise GeneralistError(
                        f"Another process is training in {output_dir}, perhaps what is left of a "
                        "launch that was killed. End it, or give another output_dir."
                    ) from None
                time.sleep(0.2)
        yield


def _chosen(source: Path, own: Path) -> Path:
    """A checkpoint given by its path, verified."""
    if not source.is_dir():
        raise UsageError(f"There is no checkpoint {source}; give a folder .../checkpoints/step-N.")
    try:
        verify(source)
    except GeneralistError as error:
        raise GeneralistError(f"{source} cannot be continued: {error}") from error
    newest = next(iter(list_checkpoints(own)), None)
    if newest is not None and newest.name > source.name:
        raise UsageError(
            f"{own} goes on to {newest.name}, which continuing from {source.name} would "
            "overwrite; give another output_dir."
        )
    return source


def _changed_tasks(before: list[list[str]], now: list[list[str]]) -> str:
    """Which tasks have other shards, in words."""
    names = {name for name, _ in before} | {name for name, _ in now}
    shards = [
        {name: [mark for other, mark in tasks if other == name] for name in names}
        for tasks in (before, now)
    ]
    different = sorted(name for name in names if shards[0][name] != shards[1][name])
    return f"other shards of {', '.join(different)}" if different else "tasks in another order"
