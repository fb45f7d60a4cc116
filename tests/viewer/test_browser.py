"""Both pages in a real browser. SCREENSHOTS=FOLDER keeps pictures of them for people to look at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from generalist.acting.hub import SHIPPED
from generalist.specs import spec_folder
from generalist.viewer.page import watch_page
from generalist.viewer.record import record
from generalist.viewer.recording import Recording
from generalist.viewer.scores import Shown
from generalist.viewer.watch import Show, tasks_to_show, write_watch_page
from generalist.viewer.watched import load_watched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def watch_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "watch.html"
    show = Show(spec_folder("checkpoints") / SHIPPED, tuple(tasks_to_show(SHIPPED)))
    write_watch_page(show, out, name=SHIPPED)
    return out


def opened(browser, address: str, width: int, scheme: str = "light"):
    """A page, and the list of what its scripts complain of."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=address[:4] == "file"
    )
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.goto(address)
    return page, problems


def until(page, condition: str, seconds: float = 60) -> None:
    """Wait until a condition holds; the page's policy forbids Playwright's own way of waiting."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"{condition} did not come true in {seconds} s"
        page.wait_for_timeout(30)


def shoot(page, shots: Path | None, name: str, **more) -> None:
    if shots is not None:
        page.screenshot(path=shots / f"{name}.png", **more)


@pytest.mark.parametrize("width", WIDTHS)
def test_watch_page_plays_and_is_looked_into(browser, watch_file: Path, shots, width: int):
    page, problems = opened(browser, watch_file.as_uri(), width)
    until(page, "document.querySelectorAll('.tile video').length >= 8")
    until(
        page,
        "[...document.querySelectorAll('.tile video')].filter(v => v.currentTime > .3).length > 7",
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shoot(page, shots, f"watch-{width}", full_page=width == 390)
    page.click(".stage[aria-label*='babyai/']")
    page.wait_for_selector("#inside[open]")
    page.keyboard.press("Home")
    page.click("#forward")
    assert page.inner_text("#where").startswith("step 1 of")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#where").startswith("step 2 of")
    assert page.locator("#choices .bar").count() == 7
    assert page.locator("#choices .bar.is-chosen").count() == 1
    assert page.locator("#seen .cell").count() == 49
    assert page.inner_text("#inside-title") in page.inner_text("#header")
    assert page.evaluate("document.querySelector('#inside').scrollWidth <= innerWidth")
    shoot(page, shots, f"inside-grid-{width}")
    for _ in range(9):
        page.click("#next")
        if page.inner_text("#inside-title") == "atari/Freeway":
            break
    page.keyboard.press("End")
    assert page.locator("#decoded video").count() == 1
    at = "document.querySelector('#big video').currentTime"
    until(page, f"{at} > 1")
    shoot(page, shots, f"inside-frame-{width}")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('#inside').open")
    assert page.evaluate("document.activeElement.className") == "stage"
    assert problems == []
    page.context.close()


def test_watch_page_says_what_each_number_counts(browser, tiny_run, tmp_path: Path, shots):
    """A bar stands where the card has a normalised score, and nowhere else."""
    tasks = ("gym/CartPole-v1", "gym/Pendulum-v1", "babyai/GoToObj")
    recordings = [
        replace(recorded, task=task, metric="success" if "babyai" in task else "return")
        for recorded, task in zip([_recorded(tiny_run)] * 3, tasks, strict=True)
    ]
    scores = {
        tasks[0]: Shown(20.0, 500.0, mean=260.0, interval=(140.0, 380.0), episodes=7,
                        text="260", normalized=0.5),
        tasks[1]: Shown(20.0, 500.0, mean=400.0, episodes=5, text="400"),
        tasks[2]: Shown(0.2, 1.0),
    }  # fmt: skip
    out = tmp_path / "page.html"
    out.write_text(watch_page(recordings, name="tiny", facts={}, scores=scores, missing={}))
    page, problems = opened(browser, out.as_uri(), 390)
    until(page, "document.querySelectorAll('.tile').length == 3")
    whole, cut, unscored = page.locator(".scale").all()
    assert whole.locator(".track").get_attribute("aria-label").endswith(": 50 of 100")
    assert "mean return of 7 whole episodes, in the task's own rewards" in whole.inner_text()
    assert "no normalised score" not in whole.inner_text()
    assert cut.locator(".track").count() == 0
    assert "no normalised score, so no bar" in cut.inner_text() and "400" in cut.inner_text()
    assert "share of episodes that succeed" in unscored.inner_text()
    assert re.search(
        r"random 20%\s*this episode (not )?solved\s*expert 100%", unscored.inner_text()
    )
    shoot(page, shots, "watch-units-390", full_page=True)
    assert problems == []
    page.context.close()


def _recorded(tiny_run) -> Recording:
    agent, beliefs = load_watched(tiny_run.checkpoint, "gym/CartPole-v1")
    return record(agent, beliefs, "gym/CartPole-v1", seed=1, max_steps=5)


def test_watch_page_in_the_dark_and_by_keyboard_alone(browser, watch_file: Path, shots):
    page, problems = opened(browser, watch_file.as_uri(), 1280, "dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    for _ in range(4):  # all, speed, theme, then the first tile
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#inside[open]")
    shoot(page, shots, "inside-dark")
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    assert page.inner_text("#all") == "Play all"
    shoot(page, shots, "watch-dark")
    assert problems == []
    page.context.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of `generalist play` in a process of its own, and where it saves."""
    save = tmp_path_factory.mktemp("saved")
    command = [sys.executable, "-m", "generalist", "play", "--port", "0", "--save", str(save)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, line
    yield found[0], save
    assert process.poll() is None, "the server died"
    process.terminate()
    assert process.wait(20) in (0, 130)


STEP = "Number(document.querySelector('#status').textContent.match(/step (\\d+)/)?.[1] ?? -1)"


@pytest.mark.parametrize("width", WIDTHS)
def test_play_page_does_each_of_its_actions(browser, server, shots, width: int):
    address, save = server
    page, problems = opened(browser, address, width)
    page.wait_for_selector("#task option", state="attached")
    page.select_option("#task", "gym/CartPole-v1")
    began = time.monotonic()
    page.click("#start")
    until(page, "Number(document.querySelector('#views').dataset.frames) > 0")
    first_frame = time.monotonic() - began
    until(page, f"{STEP} > 5")
    frames = "Number(document.querySelector('#views').dataset.frames)"
    before, began = page.evaluate(frames), time.monotonic()
    time.sleep(2)
    rate = (page.evaluate(frames) - before) / (time.monotonic() - began)
    print(f"first frame after {first_frame:.2f} s, then {rate:.1f} frames a second")
    page.click("#run")  # pause
    until(page, "document.querySelector('#run').textContent === 'Go on'")
    step = page.evaluate(STEP)
    page.click("#once")
    until(page, f"{STEP} === {step + 1}")
    shoot(page, shots, f"play-{width}", full_page=width == 390)
    page.click("#again")
    page.click("#control")
    until(page, "document.querySelector('#views').classList.contains('is-mine')")
    page.keyboard.down("ArrowRight")
    page.click("#run")
    until(page, "/over/.test(document.querySelector('#status').textContent)")
    page.keyboard.up("ArrowRight")
    page.click("#save")
    until(page, "/Saved below/.test(document.querySelector('#saved').textContent)")
    assert (save / "gym" / "CartPole-v1" / "manifest.json").exists()
    shoot(page, shots, f"play-mine-{width}", full_page=width == 390)
    page.click("#control")  # hand back
    until(page, "!document.querySelector('#views').classList.contains('is-mine')")
    page.fill("#temperature", "15")
    page.fill("#speed", "2")
    page.select_option("#task", "babyai/GoToLocal")
    page.select_option("#agents", "9")
    page.click("#start")
    until(page, "document.querySelectorAll('#views canvas').length === 9")
    page.fill("#instruction", "go to a red ball")
    page.click("#tell button")
    until(page, "/go to a red ball/.test(document.querySelector('#status').textContent)")
    page.click("#views button:nth-child(5)")
    page.wait_for_selector("#views button:nth-child(5)[aria-pressed='true']")
    shoot(page, shots, f"play-nine-{width}", full_page=width == 390)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert problems == []
    page.context.close()


def test_a_board_is_played_by_clicks(browser, server, shots):
    pytest.importorskip("pyspiel")
    page, problems = opened(browser, f"{server[0]}#board/TicTacToe", 1280)
    until(page, "/your turn/.test(document.querySelector('#status').textContent)")
    for _ in range(5):
        if "over" in page.inner_text("#status"):
            break
        step = page.evaluate(STEP)
        free = page.evaluate("state.legal.indexOf(1)")
        box = page.locator("#views canvas").bounding_box()  # a square board in the middle
        side = min(box["width"], box["height"])
        left = box["x"] + (box["width"] - side) / 2
        page.mouse.click(
            left + side * (free % 3 + 0.5) / 3, box["y"] + side * (free // 3 + 0.5) / 3
        )
        until(page, f"{STEP} === {step + 1}")
    assert "over" in page.inner_text("#status")
    shoot(page, shots, "play-board")
    assert problems == []
    page.context.close()


def test_doom_is_played_by_mouse_and_keys(browser, server, shots):
    pytest.importorskip("vizdoom")
    page, problems = opened(browser, f"{server[0]}#doom/defend_the_center", 1280)
    until(page, f"{STEP} > 3")
    page.click("#control")
    held = "[...document.querySelectorAll('#keys .is-held')].map(b => b.firstChild.textContent)"
    box = page.locator("#views canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    assert page.evaluate(held) == ["attack"]
    page.keyboard.down("ArrowLeft")
    assert sorted(page.evaluate(held)) == ["attack", "turn left"]
    page.keyboard.up("ArrowLeft")
    page.mouse.up()
    assert page.evaluate(held) == []
    page.evaluate(
        "window.sent = []; const send = socket.send.bind(socket);"
        "socket.send = (text) => { window.sent.push(JSON.parse(text)); send(text); }; null"
    )
    page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2)
    until(page, "window.sent.some((each) => each.type === 'act' && each.action[3] > 1)")
    shoot(page, shots, "play-doom")
    page.evaluate("document.exitPointerLock()")  # as Escape does
    page.click("#save")
    until(page, "/Saved below/.test(document.querySelector('#saved').textContent)")
    assert (server[1] / "doom" / "defend_the_center" / "manifest.json").exists()
    assert problems == []
    page.context.close()


def test_a_second_tab_has_its_own_game_and_a_closed_one_ends(browser, server):
    first, problems = opened(browser, f"{server[0]}#gym/CartPole-v1", 1280)
    second, _ = opened(browser, f"{server[0]}#gym/Pendulum-v1", 1280)
    for page in (first, second):
        until(page, f"{STEP} > 3")
    second.context.close()
    step = first.evaluate(STEP)
    until(first, f"{STEP} !== {step}")
    assert problems == []
    first.context.close()
