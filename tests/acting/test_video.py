"""Films show what environments render, whatever its form; one that fails costs itself alone."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from generalist.acting.rollout import rollout
from generalist.acting.video import Picture
from generalist.cli.main import main
from generalist.errors import GeneralistError, MissingPackageError
from generalist.session import EpisodeError
from tests.conftest import TinyRun
from tests.decoding.models import tiny_agent
from tests.goal_env import Goal

HEIGHT, WIDTH = 60, 80
TASK = "gym/tests.acting.test_video:Filmed-v0"


def ramp() -> np.ndarray:
    """(60, 80, 3) uint8: dark on the left, bright on the right, red above and green below."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[..., 2] = np.linspace(0, 250, WIDTH)
    picture[: HEIGHT // 2, :, 0] = 200
    picture[HEIGHT // 2 :, :, 1] = 100
    return picture


def grey() -> np.ndarray:
    return ramp()[..., 2]


FORMS: dict[str, tuple[Any, np.ndarray]] = {  # what is rendered -> what is seen
    "colour": (ramp(), ramp()),
    "transparent": (np.dstack([ramp(), np.zeros((HEIGHT, WIDTH), np.uint8)]), ramp()),
    "real to 1": (ramp().astype(np.float32) / 255, ramp()),
    "real to 255": (ramp().astype(np.float64), ramp()),
    "not a number": (np.where(ramp() == 0, np.nan, ramp().astype(np.float32)), ramp()),
    "grey": (grey(), np.dstack([grey()] * 3)),
    "one channel": (grey()[..., None], np.dstack([grey()] * 3)),
    "grey and transparent": (np.dstack([grey(), grey() * 0]), np.dstack([grey()] * 3)),
    "channels first": (np.moveaxis(ramp(), -1, 0), ramp()),
    "integers": (ramp().astype(np.int64), ramp()),
    "16 bits": (ramp().astype(np.uint16) * 257, ramp()),
    "truth values": (grey() > 100, np.dstack([(grey() > 100) * np.uint8(255)] * 3)),
    "all frames so far": ([ramp() * 0, ramp()], ramp()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_frame_is_seen_as_it_is(form: str) -> None:
    rendered, seen = FORMS[form]
    picture = Picture()(rendered)
    assert picture.dtype == np.uint8 and picture.shape == (240, 320, 3)
    difference = picture[::4, ::4].astype(int) - seen
    assert np.abs(difference).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(
        arrays.arrays(
            st.sampled_from([np.uint8, np.float32, np.int64, np.bool_]),
            st.one_of(
                st.tuples(st.integers(1, 50), st.integers(1, 50)),
                st.tuples(st.integers(5, 50), st.integers(5, 50), st.integers(1, 4)),
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_frames_of_any_size_become_pictures_of_one_even_size(frames: list[np.ndarray]) -> None:
    picture = Picture()
    shapes = {picture(frame).shape for frame in frames}
    assert len(shapes) == 1
    height, width, channels = shapes.pop()
    assert height % 2 == width % 2 == 0 and height >= 240 and channels == 3


def test_another_size_in_mid_episode_is_fitted_in() -> None:
    picture = Picture()
    picture(ramp())
    small = picture(np.full((30, 80, 3), 77, np.uint8))  # as wide, half as high
    assert (small[60:180] == 77).all() and not small[:60].any() and not small[180:].any()


@pytest.mark.parametrize(
    "frame", [None, "a board", np.zeros((3,)), np.zeros((5, 5, 9)), np.zeros((0, 5, 3)), [1, 2]]
)
def test_what_is_no_frame_is_refused(frame: Any) -> None:
    with pytest.raises(GeneralistError, match="The environment renders"):
        Picture()(frame)


class Filmed(Goal):
    """Renders what `frames` says, a frame a step, the last one for ever."""

    def __init__(self, frames: str = "colour", render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.frames = frames
        if frames == "no renderer" and render_mode is not None:
            raise RuntimeError("no OpenGL")

    def render(self) -> Any:
        if self.frames == "fails" and self.steps == 4:
            raise RuntimeError("the renderer\ncrashed")
        if self.frames == "ends" and self.steps == 4:
            return None
        if self.frames == "grows":
            return np.full((20 + 9 * self.steps, 31, 3), 200, np.uint8)
        return FORMS[self.frames][0] if self.frames in FORMS else ramp()


gymnasium.register("Filmed-v0", entry_point=Filmed, max_episode_steps=200)


@pytest.mark.parametrize("frames", [*FORMS, "grows"])
def test_a_film_of_every_form_is_whole_and_not_black(frames: str, tmp_path: Path) -> None:
    agent = tiny_agent(TASK)
    result = rollout(agent, episodes=1, video_dir=tmp_path, progress=False, frames=frames)
    assert result.no_video is None and result.videos == [result.video]
    film = imageio.v3.imread(result.video)
    assert len(film) == result.lengths[0] + 1 and film[:, :240].mean() > 40


@pytest.mark.parametrize(
    ("frames", "reason", "kept"),
    [
        ("fails", "RuntimeError: the renderer crashed", 4),
        ("ends", "renders NoneType; expected a picture", 4),
        ("no renderer", "no OpenGL", 0),
    ],
)
def test_a_film_that_fails_costs_itself_alone(
    frames: str, reason: str, kept: int, tmp_path: Path
) -> None:
    agent = tiny_agent(TASK)
    plain = rollout(agent, episodes=3, progress=False, frames=frames)
    result = rollout(
        agent, episodes=3, video_dir=tmp_path, video_episodes=2, progress=False, frames=frames
    )
    assert result.returns == plain.returns and result.no_video and reason in result.no_video
    assert len(result.videos) == (2 if kept else 0)
    for film in result.videos:
        assert len(imageio.v3.imread(film)) == kept
    assert {str(path) for path in tmp_path.iterdir()} == set(result.videos)


def test_a_missing_package_is_said_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio", None)
    agent = tiny_agent(TASK)
    with pytest.raises(MissingPackageError, match=r"Filming needs.*imageio.*\[video\]"):
        rollout(agent, episodes=1, video_dir=tmp_path, video_episodes=1, progress=False)


@pytest.mark.parametrize("num_envs", [1, 2, 4])
def test_films_of_several_episodes(num_envs: int, tmp_path: Path) -> None:
    """One file each, whichever environment they are acted in."""
    result = rollout(
        tiny_agent("gym/CartPole-v1"),
        episodes=4,
        seed=7,
        num_envs=num_envs,
        video_dir=tmp_path,
        video_episodes=3,
        progress=False,
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"gym-CartPole-v1-{seed}.mp4" for seed in (7, 8, 9)]
    for name, length in zip(names, result.lengths, strict=False):
        assert len(imageio.v3.imread(tmp_path / name)) == length + 1
    plain = rollout(tiny_agent("gym/CartPole-v1"), episodes=4, seed=7, progress=False)
    assert plain.returns == result.returns


def test_an_episode_that_fails_is_no_matter_of_its_film(tmp_path: Path) -> None:
    task = "gym/tests.strange_envs:Strange-v0"
    with pytest.raises(EpisodeError, match="the simulator gave up"):
        rollout(tiny_agent(task), episodes=1, video_dir=tmp_path, progress=False, fault="raise")
    (film,) = tmp_path.iterdir()
    assert len(imageio.v3.imread(film)) == 2  # every second step, where there is no limit


def test_a_suite_goes_on_without_the_film(tiny_run: TinyRun, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    tasks = [{"task": TASK, "options": {"frames": "fails"}}, "gym/CartPole-v1"]
    suite.write_text(yaml.safe_dump({"tasks": tasks, "episodes": 2, "prompted_episodes": 0}))
    out, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    shutil.copytree(tiny_run.checkpoint, checkpoint)  # whose card gets the scores
    assert main(["evaluate", str(suite), "--checkpoint", str(checkpoint), "--out",
                 str(out), "--workers", "0"]) == 0  # fmt: skip
    results = {path.stem: json.loads(path.read_text()) for path in (out / "results").iterdir()}
    assert len(results) == 2 and results["gym-CartPole-v1"]["video"]
    (filmed,) = (result for name, result in results.items() if "Filmed" in name)
    assert len(filmed["returns"]) == 2 and "the renderer crashed" in filmed["no_video"]
