"""What a model saw and chose at a timestep, in words and numbers that a page can show.

Legend: S = tokens of a timestep, K = tokens of an observation, k = action tokens of a timestep,
V = legal ids of one of them.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from generalist.acting.agent import Agent
from generalist.acting.forms import Compact
from generalist.episode import tree_leaves
from generalist.policy import Decision
from generalist.tokenization.grid import GridCodec
from generalist.tokenization.image import ImageCodec
from generalist.tokenization.layout import Part
from generalist.viewer.names import action_names, board_move_names, cell_names

MOST_BARS = 32  # bins of a continuous action are grouped to so many bars
_DIGITS = 3  # of a probability


class Reader:
    """Reads the timesteps of one task out.

    Args:
        agent: an agent of the task.
        env: an environment of the task, for the names of its actions.
    """

    def __init__(self, agent: Agent, env: gymnasium.Env) -> None:
        self.agent = agent
        self._names = action_names(agent.task, env)
        self._words = self._names or board_move_names(env)
        self._first_action = int(getattr(env.action_space, "start", 0))
        self._cells = cell_names(env)
        self._groups = [_groups(stop - start) for start, stop in agent.layout.legal]

    def legend(self) -> dict[str, Any]:
        """What is the same at every timestep.

        Returns:
            `fields`: of each of the S tokens its `field`, `range` and `role`. `pictures`: first
            token, rows and columns of each frame or grid. `choices`: of each of the k action tokens
            its `field`, and `labels` of the bars. `cells`: names of the channels of a grid.
            `form`, and how many `positions` of the model a timestep takes.
        """
        agent, layout = self.agent, self.agent.layout
        infos = list(agent.processor.explain(layout.positions.first, layout))
        roles = [layout.parts[number].role for number in layout.positions.part.tolist()]
        fields = [
            {"field": info.field, "range": info.range, "role": role}
            for info, role in zip(infos, roles, strict=True)
        ]
        chosen = [each for each in fields if each["role"] == "action"]
        return {
            "fields": fields,
            "pictures": self._pictures(),
            "choices": [
                {"field": field["field"], "labels": self._labels(number)}
                for number, field in enumerate(chosen)
            ],
            "cells": self._cells,
            "form": "compact" if isinstance(agent.form, Compact) else "flat",
            "positions": agent.form.positions,
            "tokens": layout.tokens_per_timestep,
        }

    def header(self, instruction: str | None) -> list[dict[str, Any]]:
        """The tokens at the head of the window: id, range, and value in words."""
        agent = self.agent
        compact = isinstance(agent.form, Compact)
        ids = agent.processor.header(agent.task, instruction, spelled=not compact)
        found = [
            {"id": info.id, "range": info.range, "value": info.value}
            for info in agent.processor.explain_header(ids)
        ]
        if compact:  # the task is one vector, added to the first position
            found.insert(1, {"id": None, "range": "task", "value": agent.task})
        return found

    def moment(
        self, seen: np.ndarray, decision: Decision, believed: list[np.ndarray], executed: Any
    ) -> dict[str, Any]:
        """What was seen, believed and done at one timestep.

        Args:
            seen: (K,) ids of the observation.
            decision: of one environment.
            believed: k arrays (V,) of the model's probabilities.
            executed: the action that was executed, perhaps another than the model's.

        Returns:
            `ids` and `words` of the S tokens, `bars` and `chosen` bar of each of the k choices,
            `action` in words, and `value` where the policy gives one.
        """
        agent, layout = self.agent, self.agent.layout
        assert decision.ids is not None
        ids = layout.weave({"observation": seen[None], "action": decision.ids})[0]
        words = [info.value for info in agent.processor.explain(ids, layout)]
        if self._names is not None and len(layout.legal) == 1:
            place = int(layout.positions.of_role("action")[0])
            words[place] = self._names[int(ids[place]) - layout.legal[0][0]]
        starts = [start for start, _ in layout.legal]
        return {
            "ids": ids.tolist(),
            "words": words,
            "bars": [
                np.add.reduceat(probable, groups[:-1]).round(_DIGITS).tolist()
                for probable, groups in zip(believed, self._groups, strict=True)
            ],
            "chosen": [
                int(np.searchsorted(groups, code - start, side="right")) - 1
                for code, start, groups in zip(
                    decision.ids[0].tolist(), starts, self._groups, strict=True
                )
            ],
            "action": self.in_words(executed),
            "value": None if decision.values is None else float(decision.values[0]),
        }

    def in_words(self, action: Any) -> str:
        """An action for people: its name, or its numbers."""
        leaves = [np.ravel(leaf) for _, leaf in tree_leaves(action)]
        values = np.concatenate(leaves) if leaves else np.zeros(0)
        if self._words is not None and values.size == 1:
            return self._words[int(values[0]) - self._first_action]
        return " ".join(f"{each:.2f}" if values.dtype.kind == "f" else str(each) for each in values)

    def picture(self, seen: np.ndarray) -> np.ndarray | None:
        """The frame that (K,) ids stand for, as the frame tokenizer decodes it: (H, W, 3) uint8.

        None where the observation has no frame. Of several frames, the latest.
        """
        first = 0
        for part in self.agent.layout.parts_of("observation"):
            stop = first + part.tokens
            if isinstance(part.codec, ImageCodec):
                frame = part.decode(seen[None, first:stop], self.agent.processor.toolbox)[0]
                frame = frame.reshape(-1, *frame.shape[-3:])[-1]
                return np.repeat(frame, 3, axis=-1) if frame.shape[-1] == 1 else frame
            first = stop
        return None

    def _pictures(self) -> list[dict[str, Any]]:
        found, first = [], 0
        for part in self.agent.layout.parts:
            if (shape := self._picture_shape(part)) is not None:
                kind = "frame" if isinstance(part.codec, ImageCodec) else "grid"
                found.append({"kind": kind, "first": first, "rows": shape[0], "columns": shape[1]})
            first += part.tokens
        return found

    def _picture_shape(self, part: Part) -> tuple[int, int] | None:
        """Rows and columns of a part whose tokens lie in a plane; None for others."""
        if isinstance(part.codec, ImageCodec):
            frames = self.agent.processor.frames
            assert frames is not None
            rows = frames.config.grid
            return part.tokens // rows, rows  # of several frames one below the other
        if isinstance(part.codec, GridCodec) and len(part.codec.shape) == 3:
            return part.codec.shape[0], part.codec.shape[1]
        return None

    def _labels(self, number: int) -> list[str]:
        """Names of the bars of choice `number`: of actions, or the value in the middle of each."""
        layout, groups = self.agent.layout, self._groups[number]
        if self._names is not None and len(layout.legal) == 1:
            return list(self._names)
        place = layout.positions.of_role("action")[number]
        timesteps = np.tile(layout.positions.first, (len(groups) - 1, 1))
        timesteps[:, place] += (groups[:-1] + groups[1:] - 1) // 2
        infos = list(self.agent.processor.explain(timesteps.ravel(), layout))
        return [infos[row * len(layout.positions) + place].value for row in range(len(timesteps))]


def _groups(size: int) -> np.ndarray:
    """Where the bars begin among V ids, and V: a bar for each id, or groups of about equal size."""
    return np.linspace(0, size, min(size, MOST_BARS) + 1).astype(np.int64)
