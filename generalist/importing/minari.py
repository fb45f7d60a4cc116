"""Minari: a dataset by its id, downloaded where it is not there yet, or its folder."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from generalist.errors import GeneralistError, MissingPackageError, UsageError
from generalist.importing.source import Load, Recording
from generalist.network import reaching

if TYPE_CHECKING:
    from gymnasium.spaces import Space

_METADATA = "metadata.json"
_MISSION = "mission"


class MinariSource:
    """Episodes of a Minari dataset, each read from its file when it is wanted.

    A text called `mission` among the observations, as minigrid has it, becomes the instruction.
    """

    is_text = False

    def __init__(self, dataset: str) -> None:
        self.name = dataset
        self._dataset = _open(dataset)
        self.facts: dict[str, Any] = {"from": "minari", "dataset": self._dataset.spec.dataset_id}
        self.total: int | None = len(self._dataset)
        self.notes: list[str] = []
        space = self._dataset.observation_space
        self._has_mission = isinstance(space, spaces.Dict) and _MISSION in space.spaces

    @property
    def task(self) -> str | None:
        """The task it was recorded in, by the environment's id; None where none is stored."""
        spec = self._dataset.env_spec
        return None if spec is None else f"gym/{spec.id}"

    def spaces(self) -> tuple[Space, Space]:
        """Those stored with the dataset."""
        observation = self._dataset.observation_space
        if self._has_mission:
            fields = observation.spaces.items()
            observation = spaces.Dict({key: part for key, part in fields if key != _MISSION})
        return observation, self._dataset.action_space

    def recordings(self, first: int) -> Iterator[Load]:
        """From number `first` on."""
        for number in range(first, len(self._dataset)):
            yield functools.partial(self._recording, number)

    def _recording(self, number: int) -> Recording:
        try:
            data = self._dataset[number]
        except (OSError, KeyError, ValueError) as error:
            raise GeneralistError(f"it cannot be read: {error}.") from error
        steps = len(data.rewards)
        if not steps:
            raise GeneralistError("it has no steps.")
        observations = _first_steps(data.observations, steps)  # without the one after the last step
        instruction = None
        if self._has_mission:
            missions = set(observations.pop(_MISSION).tolist())
            if len(missions) > 1:
                raise GeneralistError("its mission changes on the way.")
            instruction = missions.pop()
        return Recording(
            observations=observations,
            actions=_first_steps(data.actions, steps),
            rewards=data.rewards,
            terminated=bool(data.terminations[-1]),
            truncated=bool(data.truncations[-1]),
            instruction=instruction,
        )


def _first_steps(tree: Any, steps: int) -> Any:
    if isinstance(tree, dict):
        return {key: _first_steps(part, steps) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_first_steps(part, steps) for part in tree)
    values = np.asarray(tree)
    if values.dtype == object:
        raise GeneralistError("it holds Python objects, which may be pickled and are not opened.")
    return values[:steps]


def _open(dataset: str) -> Any:
    try:
        import minari
    except ImportError as error:
        raise MissingPackageError("minari", "Importing a Minari dataset", "minari") from error

    folder = Path(dataset)
    for candidate in (folder, folder / "data"):
        if (candidate / _METADATA).is_file():
            try:
                return minari.MinariDataset(str(candidate))
            except (OSError, KeyError, ValueError, ImportError) as error:
                raise GeneralistError(f"{dataset} cannot be opened: {error}") from error
    if folder.exists():
        raise UsageError(f"{dataset} is not a Minari dataset: it has no data/{_METADATA}.")
    try:
        with reaching(f"The Minari dataset {dataset}"):
            return minari.load_dataset(dataset, download=True)
    except (ValueError, KeyError) as error:
        raise UsageError(f"There is no Minari dataset {dataset!r}: {error}") from error
    except ImportError as error:
        raise GeneralistError(f"{dataset} cannot be opened: {error}") from error
