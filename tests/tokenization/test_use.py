"""Where ids say too little of what was seen, collecting and importing say so."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest

from generalist.cli.main import main
from generalist.collecting.collect import collect
from generalist.episode import Episode
from generalist.importing.hub import HubSource
from generalist.importing.write import import_source
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor
from generalist.tokenization.use import CodeUse
from generalist.windows.spec import dataset_spec
from tests.importing.recorded import PENDULUM, episode_rows, played
from tests.tokenization.wide_env import WideEnv

WIDE = "gym/tests.tokenization.wide_env:Wide-v0"
ENTRY = {"task": WIDE, "episodes": 4, "expert": "random", "noise": 0}


@pytest.fixture(scope="module")
def saved(without_frames: GeneralistProcessor, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("processor")
    without_frames.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_collecting_names_fields_whose_values_have_one_id(
    tmp_path: Path, saved: str, workers: int
) -> None:
    spec = dataset_spec({"tasks": [ENTRY]})
    report = collect(spec, tmp_path, workers, progress=False, processor=saved)
    coarse, far = report.losses
    assert coarse.startswith(f"{WIDE}: observation/coarse has one id in 100% of 20 steps, though")
    assert far.startswith(f"{WIDE}: observation/far has one id in 100% of 20 steps, though")
    assert "`bins: quantiles`" in far


def test_the_command_prints_them(
    tmp_path: Path, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(f"tasks: [{{task: '{WIDE}', episodes: 2, expert: random}}]")
    options = ["--out", str(tmp_path / "data"), "--processor", saved, "--workers", "0"]
    assert main(["collect", str(path), *options]) == 0
    assert f"Warning: {WIDE}: observation/far has one id in 100%" in capsys.readouterr().err


def test_fitted_bins_tell_the_values_apart(tmp_path: Path, saved: str) -> None:
    spec = dataset_spec({"tasks": [{**ENTRY, "bins": "quantiles"}]})
    assert collect(spec, tmp_path, 0, progress=False, processor=saved).losses == []


def test_importing_names_fields_whose_values_are_clipped(tmp_path: Path, saved: str) -> None:
    recorded = played(PENDULUM, 3)
    for episode in recorded:
        episode.observations = episode.observations * [1, 1, 3]  # of another unit than the task's
    datasets.Dataset.from_dict(episode_rows(recorded)).save_to_disk(tmp_path / "disk")
    source = HubSource(str(tmp_path / "disk"))
    report = import_source(source, PENDULUM, tmp_path / "out", processor=saved, progress=False)
    (note,) = [note for note in report.notes if "clipped" in note]
    assert note.startswith(f"{PENDULUM}: observation[2] is clipped in ")


def use_of(layout: Layout, processor: GeneralistProcessor, far: np.ndarray) -> CodeUse:
    steps = len(far)
    observations = {
        "far": np.stack([far, np.zeros(steps)], axis=1),
        "coarse": np.linspace(-9e4, 9e4, steps)[:, None],
        "fine": np.zeros((steps, 2)),
        "still": np.full((steps, 1), 300.0),
        "nothing": np.zeros((steps, 0)),
    }
    episode = Episode("gym/X", observations, np.ones((steps, 1)), np.zeros(steps), True, False)
    return CodeUse.of(episode, processor.encode(episode, layout), layout)


def test_shares_are_those_of_all_episodes(without_frames: GeneralistProcessor) -> None:
    layout = without_frames.layout(WideEnv.observation_space, WideEnv.action_space)
    use = use_of(layout, without_frames, np.array([300.0, 1.0, 2.0, 3.0]))
    use.add(use_of(layout, without_frames, np.array([4.0, -300.0, 5.0, 6.0])))
    far, still = use.losses()
    assert far.startswith("observation/far[0] is clipped in 25% of 8 steps")
    assert "from -300 to 300" in far
    assert still.startswith("observation/still is clipped in 100% of 8 steps")


def test_what_never_changes_loses_nothing(without_frames: GeneralistProcessor) -> None:
    layout = without_frames.layout(WideEnv.observation_space, WideEnv.action_space)
    use = use_of(layout, without_frames, np.full(5, 7.0))
    assert [loss for loss in use.losses() if "still" not in loss] == []
