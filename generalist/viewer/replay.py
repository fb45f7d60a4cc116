"""A replay on a checkpoint's card: one moving picture of the tasks that it plays."""

from __future__ import annotations

from pathlib import Path

from generalist.acting.hub import REPLAY
from generalist.errors import GeneralistError
from generalist.integrity import CARD
from generalist.training.card import SCORES_HEADING
from generalist.viewer.picture import write_picture
from generalist.viewer.watch import OnTask, Show, play_show, tasks_to_show


def add_replay(
    folder: Path,
    *,
    max_steps: int = 200,
    workers: int | None = None,
    on_task: OnTask | None = None,
) -> int:
    """Play up to nine tasks of a checkpoint, and show them on its card.

    Args:
        folder: of the checkpoint; `replay.webp` is written into it, beside the card.
        max_steps: steps of each task, at most.
        workers: processes, as `play_show` takes them.
        on_task: is called with a line for each task as it ends.

    Returns:
        Size of the picture in bytes, at most `picture.MOST_BYTES`.

    Raises:
        GeneralistError: the checkpoint has no card, no task could be played, or none has a film.
    """
    path = folder / CARD
    if not path.exists():
        raise GeneralistError(f"{folder} has no card ({CARD}) that could show a replay.")
    show = Show(folder, tuple(tasks_to_show(folder)), max_steps=max_steps)
    recordings, _ = play_show(show, workers=workers, on_task=on_task)
    size_bytes = write_picture(recordings, folder / REPLAY)
    card = path.read_text(encoding="utf-8")
    if f"]({REPLAY})" not in card:
        names = ", ".join(each.task for each in recordings)
        shown = f"\n## Replay\n\n![Played by this checkpoint: {names}]({REPLAY})\n"
        path.write_text(card.replace(SCORES_HEADING, shown + SCORES_HEADING, 1), encoding="utf-8")
    return size_bytes
