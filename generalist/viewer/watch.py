"""Make watch.html: play some tasks of a checkpoint, several processes side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.acting.hub import LAYOUTS_FILE, check_checkpoint, checkpoint_folder
from generalist.envs import get_task, is_document_task
from generalist.envs.speaking import is_speaking_task
from generalist.errors import GeneralistError, UsageError, in_words
from generalist.integrity import read_json
from generalist.modeling import PARTS_FOLDER
from generalist.processes import process_pool, usable_cpus
from generalist.seeds import EVALUATION_SEED
from generalist.shards.files import replacing
from generalist.viewer.page import watch_page
from generalist.viewer.recording import Recording
from generalist.viewer.scores import best_first, scores_of

if TYPE_CHECKING:
    from generalist.acting.agent import Agent
    from generalist.viewer.watched import Beliefs

MOST_TASKS = 9
MOST_STEPS = 500
_WORKERS = 4  # more make no page sooner: each loads the model

_PRELOADED = ("generalist.viewer.record", "generalist.modeling.pretrained")  # torch, once for all

OnTask = Callable[[str], None]


@dataclass(frozen=True)
class Show:
    """What is played.

    Attributes:
        checkpoint: folder of the checkpoint.
        tasks: names of its tasks.
        seed: of every episode.
        max_steps: recordings end there.
        temperature: of the sampling; None as the checkpoint says.
    """

    checkpoint: Path
    tasks: tuple[str, ...]
    seed: int = EVALUATION_SEED
    max_steps: int = MOST_STEPS
    temperature: float | None = None


def tasks_to_show(checkpoint: str | Path, asked: Iterable[str] = ()) -> list[str]:
    """The tasks of a checkpoint that are shown: those asked for, or nine of as many families.

    Of each family those that the checkpoint plays best, by the scores on its card.

    Raises:
        UsageError: the checkpoint does not know a task, or it is text, or of single pictures.
        GeneralistError: the checkpoint is none.
    """
    folder = checkpoint_folder(checkpoint)
    check_checkpoint(folder)
    known = [
        task
        for task in best_first(folder, read_json(folder / PARTS_FOLDER / LAYOUTS_FILE))
        if not (is_document_task(task) or is_speaking_task(task))
    ]
    if not known:
        raise UsageError(
            f"{checkpoint} has no task to be watched in; `generalist rollout` shows what it says."
        )
    for task in asked:
        get_task(task)
        if task not in known:
            raise UsageError(
                f"{checkpoint} cannot be watched in {task!r}; it plays {', '.join(known)}."
            )
    return list(asked) or of_all_families(known, MOST_TASKS)


def of_all_families(tasks: Sequence[str], count: int) -> list[str]:
    """At most `count` of the tasks, in their order: from each family one, then a second, ..."""
    families: dict[str, list[str]] = {}
    for task in tasks:
        families.setdefault(task.partition("/")[0], []).append(task)
    turns = max(map(len, families.values()), default=0)
    by_turn = [family[turn] for turn in range(turns) for family in families.values()
               if turn < len(family)]  # fmt: skip
    taken = set(by_turn[:count])
    return [task for task in tasks if task in taken]


def write_watch_page(
    show: Show, out: Path, *, name: str, workers: int | None = None, on_task: OnTask | None = None
) -> list[Recording]:
    """Play, and write the page.

    Args:
        show: what is played.
        out: file of the page.
        name: of the checkpoint, for the page.
        workers: processes; None takes one a CPU, at most four; 0 plays in this process.
        on_task: is called with a line for each task as it ends.

    Returns:
        The recordings, in the order of `show.tasks`.

    Raises:
        GeneralistError: no task could be played.
    """
    found, missing = play_show(show, workers=workers, on_task=on_task)
    page = watch_page(
        found,
        name=name,
        facts=_facts_of(show.checkpoint),
        scores=scores_of(show.checkpoint, [each.task for each in found]),
        missing=missing,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as file:
        file.write(page.encode())
    return found


def _facts_of(checkpoint: Path) -> dict[str, Any]:
    """What training left in a checkpoint about itself; empty where it left nothing."""
    path = checkpoint / PARTS_FOLDER / "training.json"
    return read_json(path) if path.exists() else {}


def play_show(
    show: Show, *, workers: int | None = None, on_task: OnTask | None = None
) -> tuple[list[Recording], dict[str, str]]:
    """Play the tasks of a show; see `write_watch_page`.

    Returns:
        The recordings in the order of the tasks, and by task why it could not be played.
    """
    say = on_task or (lambda line: None)
    found: dict[str, Recording] = {}
    missing: dict[str, str] = {}
    for task, recording, problem in _played(show, workers):
        if recording is None:
            missing[task] = problem
            say(f"{task}: not played, because {problem}")
        else:
            found[task] = recording
            film = "" if recording.no_film is None else f" (no film: {recording.no_film})"
            say(f"{task}: {len(recording.moments)} steps, return {recording.return_:.4g}{film}")
    if not found:
        first, why = next(iter(missing.items()))
        raise GeneralistError(f"No task could be played. {first}: {why}")
    return [found[task] for task in show.tasks if task in found], missing


def _played(show: Show, workers: int | None) -> Iterable[tuple[str, Recording | None, str]]:
    """Each task with its recording, or why there is none, as they end."""
    count = min(_WORKERS, usable_cpus()) if workers is None else workers
    if count == 0:
        _start(show)
        yield from map(_play, show.tasks)
        return
    with process_pool(min(count, len(show.tasks)), _start, (show,), preload=_PRELOADED) as pool:
        running = [pool.submit(_play, task) for task in _longest_first(show.tasks)]
        for future in as_completed(running):
            yield future.result()


def _longest_first(tasks: Sequence[str]) -> list[str]:
    """Those that are slow to draw begin, so that none is waited for alone at the end."""
    slow = ("dmc/", "metaworld/", "doom/", "atari/")
    return sorted(tasks, key=lambda task: not task.startswith(slow))


_here: tuple[Agent, Beliefs, Show] | None = None  # what a process keeps from task to task


def _start(show: Show) -> None:
    from transformers.utils import logging

    from generalist.collecting.worker import single_threaded
    from generalist.viewer.watched import load_watched

    global _here
    single_threaded()
    logging.disable_progress_bar()
    agent, beliefs = load_watched(show.checkpoint, show.tasks[0], temperature=show.temperature)
    _here = agent, beliefs, show


def _play(task: str) -> tuple[str, Recording | None, str]:
    from generalist.viewer.record import record

    assert _here is not None
    agent, beliefs, show = _here
    try:
        found = record(agent, beliefs, task, seed=show.seed, max_steps=show.max_steps)
    except Exception as error:  # of an environment or a package: it costs its own task alone
        return task, None, str(error) if isinstance(error, GeneralistError) else in_words(error)
    return task, found, ""
