"""Which checkpoint a run continues from, and whether it is one of this very run."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from generalist.errors import GeneralistError, UsageError
from generalist.integrity import MANIFEST, verify
from generalist.training.checkpoint import DATA, RECIPE, list_checkpoints, newest_checkpoint
from generalist.training.data import corrections_root
from generalist.training.recipe import Recipe, differences, load_recipe

if TYPE_CHECKING:
    from generalist.training.data import TrainingData
    from generalist.training.ranks import Ranks

CHECKPOINTS = "checkpoints"
LOCK = ".lock"
SHARE_THE_FOLDER = "Put output_dir on a disk that all ranks share."
ROWS_COMPARED = 8
LOCK_SECONDS = 15.0  # what a process may need to end after its last sign of life


def checkpoint_to_continue(
    recipe: Recipe, data: TrainingData, *, source: Path | None, allow_changes: bool
) -> Path | None:
    """The checkpoint to load, None to begin anew.

    Args:
        recipe: with the sizes of the model it starts from.
        data: opened without corrections.
        source: a certain checkpoint, perhaps of another run; None for the newest of this run.
        allow_changes: go on although recipe or data are not those it was trained with.

    Raises GeneralistError where they are not and may not be, or `source` cannot be continued here.
    """
    own = recipe.output_dir / CHECKPOINTS
    folder = newest_checkpoint(own) if source is None else _chosen(source, own)
    if folder is None:
        return None
    fatal, changed = [], differences(load_recipe(folder / RECIPE), recipe)
    fatal += [change for change in changed if change.startswith("model.")]
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
            "another output_dir, or --allow-changes to continue it all the same."
        )
    return folder


def require_same_checkpoint(folder: Path, ranks: Ranks) -> None:
    """Raise GeneralistError on all ranks where one does not see the checkpoint of the main process.

    Each machine may have a folder of that name, with a checkpoint of another run or with none.
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
    """Raise GeneralistError on all ranks where one would draw other rows than the main process."""
    if ranks.count == 1:
        return
    rows = data.windows.batch(0, ROWS_COMPARED)
    mine = sha256(rows.input_ids.tobytes() + rows.targets.tobytes()).hexdigest()
    same = ranks.gather(mine)[0] == mine
    ranks.require(
        None if same else "has other data than rank 0",
        "All ranks draw from the same data; give them the same data.root.",
    )


def bring_corrections(folder: Path, recipe: Recipe, rounds: int) -> None:
    """Copy the corrections that a checkpoint of another run was trained on into this run's folder.

    Raises GeneralistError where they are not beside it, and UsageError where this run has others.
    """
    other = recipe.model_copy(update={"output_dir": folder.parent.parent})
    for number in range(rounds):
        own, source = corrections_root(recipe, number), corrections_root(other, number)
        if not source.is_dir() and not own.is_dir():
            raise GeneralistError(
                f"{folder} was trained on corrections that are not there, of round {number + 1} in "
                f"{source}; continue from a run whose folder is whole."
            )
        if own.is_dir():
            if source.is_dir() and _manifests(own) != _manifests(source):
                raise UsageError(
                    f"{own} holds other corrections than {source}, which {folder} was trained on; "
                    "give another output_dir."
                )
            continue
        own.parent.mkdir(parents=True, exist_ok=True)
        temporary = own.with_name(f".{own.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        temporary.rename(own)


def _manifests(root: Path) -> dict[str, bytes]:
    """What the datasets below a folder consist of."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob(MANIFEST))}


@contextmanager
def only_run_in(output_dir: Path) -> Iterator[None]:
    """Keep other processes from training in this folder; raises GeneralistError where one does.

    The ranks of a launcher that was killed may live on, and would write the same checkpoints. The
    system forgets the lock with the process that holds it, however that ends.
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
    """Names of the tasks whose shards are others."""
    names = {name for name, _ in before} | {name for name, _ in now}
    shards = [
        {name: [mark for other, mark in tasks if other == name] for name in names}
        for tasks in (before, now)
    ]
    different = sorted(name for name in names if shards[0][name] != shards[1][name])
    return f"other shards of {', '.join(different)}" if different else "tasks in another order"
