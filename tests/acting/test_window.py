"""A window where there is a display; SDL's off-screen driver stands in for one here."""

from __future__ import annotations

import gymnasium
import pytest

from generalist.acting.rollout import rollout
from generalist.acting.window import Window
from generalist.errors import UsageError
from generalist.session import Trace
from tests.decoding.models import tiny_agent
from tests.goal_env import Goal

CARTPOLE = "gym/CartPole-v1"


class Blind(Goal):
    """Renders nothing."""

    metadata = {"render_modes": []}


gymnasium.register("Blind-v0", entry_point=Blind)


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "offscreen")


def test_a_window_shows_every_episode_and_changes_none(
    display: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pygame

    shown: list[tuple[int, int, float]] = []
    call = Window.__call__

    def seen(window: Window, trace: Trace) -> None:
        window._clock = pygame.time.Clock()  # as fast as it goes
        call(window, trace)
        screen = pygame.display.get_surface()
        assert screen is not None and trace.env.render_mode == "rgb_array"
        shown.append((trace.seed, trace.steps, float(pygame.surfarray.array3d(screen).std())))

    monkeypatch.setattr(Window, "__call__", seen)
    plain = rollout(tiny_agent(CARTPOLE), episodes=2, progress=False, max_steps=12)
    result = rollout(tiny_agent(CARTPOLE), episodes=2, progress=False, max_steps=12, render="human")
    assert result.returns == plain.returns
    steps = [(seed, step) for seed, n in zip(result.seeds, result.lengths, strict=True)
             for step in range(n + 1)]  # fmt: skip
    assert [each[:2] for each in shown] == steps
    assert min(deviation for *_, deviation in shown) > 0
    assert not pygame.display.get_init()


def test_who_closes_the_window_ends_the_rollout(
    display: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pygame

    call = Window.__call__

    def closing(window: Window, trace: Trace) -> None:
        if trace.seed == 6 and trace.steps == 3:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        call(window, trace)

    monkeypatch.setattr(Window, "__call__", closing)
    result = rollout(
        tiny_agent(CARTPOLE), episodes=3, seed=5, progress=False, max_steps=5, render="human"
    )
    assert result.interrupted and result.seeds == [5]


def test_without_a_display_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="no display .*--video DIR"):
        rollout(tiny_agent(CARTPOLE), episodes=1, progress=False, render="human")
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    with pytest.raises(UsageError, match="cannot open a window on this display"):
        rollout(tiny_agent(CARTPOLE), episodes=1, progress=False, render="human")


def test_other_ways_to_render_are_refused(display: None) -> None:
    with pytest.raises(UsageError, match="render is 'human' or left out"):
        rollout(tiny_agent(CARTPOLE), episodes=1, progress=False, render="ansi")
    with pytest.raises(UsageError, match="render modes none; got 'rgb_array'"):
        rollout("random", "gym/Blind-v0", episodes=1, progress=False, render="human")
