"""The stage of a rollout: its environments, the videos and the window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium

from generalist import envs
from generalist.acting.video import Films
from generalist.acting.window import Window
from generalist.errors import GeneralistError, UsageError
from generalist.session import Trace


class Stage:
    """Environments of a task, with the videos and the window that show them.

    Environments to record or show get a render mode. Where that fails, only the videos are lost.

    Args:
        task: name of the task.
        options: options of the environments, as `generalist.make` takes them.
        count: number of environments.
        filmed: seeds of the episodes to record. A single one runs in the first environment.
        folder: folder of the videos.
        render: `human` shows every episode in a window; None shows none.

    Attributes:
        environments: the `count` environments.

    Raises:
        UsageError: there is no such task, option, value of `render` or display.
    """

    def __init__(
        self,
        task: str,
        options: dict[str, Any],
        count: int,
        *,
        filmed: Sequence[int] = (),
        folder: str | Path | None = None,
        render: str | None = None,
    ) -> None:
        if render not in (None, "human"):
            raise UsageError(f"render is 'human' or left out, got {render!r}.")
        self._films: Films | None = None
        self._window: Window | None = None
        self._problem: str | None = None
        self.environments: list[gymnasium.Env] = []
        if render:
            self._window = Window(task)
        with_pictures = count if render or len(filmed) > 1 else len(filmed)
        if filmed and not render:
            with_pictures = self._can_be_filmed(task, options, with_pictures)
        if filmed and with_pictures:
            self._films = Films(Path(folder or "."), filmed, envs.get_task(task).max_steps)
        try:
            for number in range(count):
                mode = "rgb_array" if number < with_pictures else None
                self.environments.append(envs.make(task, render_mode=mode, **options))
        except BaseException:
            self.close()
            raise

    def _can_be_filmed(self, task: str, options: dict[str, Any], wanted: int) -> int:
        """`wanted`, or 0 where the environment cannot render."""
        try:
            envs.make(task, render_mode="rgb_array", **options).close()
        except GeneralistError as error:
            envs.make(task, **options).close()  # raises if rendering is not the reason
            self._problem = str(error)
            return 0
        return wanted

    def watch(self, trace: Trace) -> None:
        """Record and show the present state of an episode."""
        if self._films is not None:
            self._films(trace)
        if self._window is not None:
            self._window(trace)

    def close(self) -> None:
        """Finish the videos; close the window and the environments."""
        for each in (self._films, self._window, *self.environments):
            if each is not None:
                each.close()

    def films(self) -> tuple[list[str], str | None]:
        """The files of the videos, and why one is missing (None where none is)."""
        if self._films is None:
            return [], self._problem
        return [str(path) for path in self._films.paths], self._films.problem
