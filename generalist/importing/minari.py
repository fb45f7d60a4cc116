"""Minari: a dataset by its id, downloaded where it is not there yet, or its folder."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from generalist.envs.wrapping import can_wrap, has_no_effect
from generalist.errors import GeneralistError, UsageError, needing
from generalist.importing.files import check_it_is_there
from generalist.importing.source import Environment, Load, Recording
from generalist.network import reaching
from generalist.shards.files import read_json

if TYPE_CHECKING:
    from gymnasium.spaces import Space

_METADATA = "metadata.json"
_MISSION = "mission"
_ID = re.compile(r"([-\w]+/)*[-\w]+?-v\d+")
_DRAWING = ("render_mode",)  # arguments that change nothing but pictures


class MinariSource:
    """Episodes of a Minari dataset, each read from its file when it is wanted.

    A text called `mission` among the observations, as minigrid has it, becomes the instruction. The
    record of an episode names its dataset, which says how good the policy was
    (mujoco/hopper/medium-v0).
    """

    is_text = False

    def __init__(self, dataset: str) -> None:
        self.name = dataset
        self._dataset, name = _open(dataset)
        self.facts: dict[str, Any] = {"from": "minari", "dataset": name}
        self.total: int | None = len(self._dataset)
        spec = self._dataset.env_spec
        self.environment = None if spec is None else _environment(spec)
        self.notes: list[str] = []
        if self.environment is not None and self.environment.lost:
            self.notes.append(
                f"{', '.join(self.environment.lost)} wrapped the environment and cannot be made "
                "again here: acting meets the environment without."
            )
        space = self._dataset.observation_space
        self._has_mission = isinstance(space, spaces.Dict) and _MISSION in space.spaces

    @property
    def task(self) -> str:
        """The task it was recorded in, by the environment's id.

        Raises UsageError where none is stored, or making it would import a module it names.
        """
        if self.environment is None:
            raise UsageError(
                f"{self.name} does not say which environment it is of: add --task NAME."
            )
        if ":" in self.environment.task:
            raise UsageError(
                f"{self.name} is of {self.environment.task}, which would import a module that "
                "the dataset names. If you trust it, say so: "
                f"--task {self.environment.task}."
            )
        return self.environment.task

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
            yield Load(functools.partial(self._recording, number))

    def _recording(self, number: int) -> Recording:
        try:
            data = self._dataset[number]
        except Exception as error:  # Minari checks little of what it reads
            raise GeneralistError(f"it cannot be read: {error}.") from error
        steps = len(data.rewards)
        if not steps:
            raise GeneralistError("it has no steps.")
        if not len(data.terminations) == len(data.truncations) == steps:
            raise GeneralistError(
                f"it has {steps} rewards, but {len(data.terminations)} terminations and "
                f"{len(data.truncations)} truncations."
            )
        observations = _first_steps(data.observations, steps)  # without the one after the last step
        instruction = None
        if self._has_mission:
            missions = set(np.ravel(observations.pop(_MISSION, ())).tolist())
            if len(missions) != 1:
                raise GeneralistError("its mission is missing, or changes on the way.")
            instruction = missions.pop()
        return Recording(
            observations=observations,
            actions=_first_steps(data.actions, steps),
            rewards=data.rewards,
            terminated=bool(data.terminations[-1]),
            truncated=bool(data.truncations[-1]),
            instruction=instruction,
            info={"dataset": self.facts["dataset"]},
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


def _environment(spec: Any) -> Environment:
    """What the dataset's gymnasium.envs.registration.EnvSpec says."""
    import gymnasium

    options = {key: value for key, value in spec.kwargs.items() if key not in _DRAWING}
    wrappers, lost = [], []
    for each in spec.additional_wrappers:
        if can_wrap(each.entry_point, each.kwargs):
            wrappers.append({"name": each.name, "kwargs": each.kwargs})
        elif not has_no_effect(each.entry_point):
            lost.append(each.name)
    if wrappers and not lost:  # some of several would make yet another environment
        options["wrappers"] = wrappers
    registered = gymnasium.registry.get(spec.id)
    limit = None if registered is None else registered.max_episode_steps
    if spec.max_episode_steps not in (None, limit):
        options["max_steps"] = spec.max_episode_steps
    return Environment(
        task=f"gym/{spec.id}",
        options=options,
        lost=tuple(lost),
        spec=json.loads(spec.to_json()),
    )


def _open(dataset: str) -> tuple[Any, str]:
    """The dataset, and its id."""
    with needing("Importing a Minari dataset"):
        import minari
        from minari.storage.datasets_root_dir import get_dataset_path

    folder = Path(dataset).expanduser()
    for candidate in (folder, folder / "data"):
        if (candidate / _METADATA).is_file():
            return _opened(dataset, candidate)
    if folder.exists():
        raise UsageError(f"{dataset} is not a Minari dataset: it has no data/{_METADATA}.")
    if not _ID.fullmatch(dataset):
        raise UsageError(
            f"There is no folder {dataset!r}, and no Minari dataset is called that: an id is "
            f"name-vN or namespace/name-vN.{_versions(dataset, Path(get_dataset_path('')))}"
        )
    there = Path(get_dataset_path(dataset)) / "data"
    if not there.is_dir():
        try:
            with reaching(f"The Minari dataset {dataset}"):
                minari.download_dataset(dataset)
        except (ValueError, KeyError) as error:
            raise UsageError(f"There is no Minari dataset {dataset!r}: {error}") from error
    return _opened(dataset, there)


def _versions(dataset: str, root: Path) -> str:
    """A hint at the versions on this machine of an id that lacks its own."""
    if not re.fullmatch(r"([-\w]+/)*[-\w]+", dataset):
        return ""
    found = sorted(path for path in root.glob(f"{dataset}-v*") if path.is_dir())
    names = [path.relative_to(root).as_posix() for path in found]
    return f" Here there are {', '.join(names)}." if names else f" Say which, as in {dataset}-v0."


def _opened(dataset: str, folder: Path) -> tuple[Any, str]:
    """The dataset in a folder, and its id; nothing that it names is imported."""
    import minari

    check_it_is_there(folder / _METADATA)
    metadata = read_json(folder / _METADATA)
    stated = isinstance(metadata, dict) and {"observation_space", "action_space"} <= set(metadata)
    if not stated:  # Minari would make the environment, from whatever module the file names
        raise GeneralistError(f"{folder / _METADATA} does not state the spaces of the dataset.")
    for path in folder.glob("*.hdf5"):
        _check_hdf5(path)
    try:
        opened = minari.MinariDataset(str(folder))
        return opened, opened.spec.dataset_id
    except Exception as error:  # Minari checks little of what it reads
        raise GeneralistError(f"{dataset} cannot be opened: {error}.") from error


def _check_hdf5(path: Path) -> None:
    with needing("Opening this Minari dataset"):
        import h5py

    check_it_is_there(path)
    try:
        h5py.File(path, "r").close()
    except OSError as error:
        raise GeneralistError(
            f"{path} cannot be read as HDF5, perhaps for it was cut short: {error}. "
            "Download it again."
        ) from error
