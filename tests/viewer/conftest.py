"""The shipped checkpoint, loaded once for the tests of the viewer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from generalist.acting.hub import SHIPPED
from generalist.viewer.game import Model
from generalist.viewer.watched import load_watched


@pytest.fixture(scope="session")
def model() -> Model:
    agent, beliefs = load_watched(SHIPPED, "gym/CartPole-v1")
    return Model(SHIPPED, agent, beliefs)


def chromium() -> str | None:
    """The program of a Chromium that is installed here."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A headless Chromium that Playwright drives; the test is skipped where there is none."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
    )
    program = chromium()
    if program is None:
        pytest.skip("There is no Chromium: apt install chromium, or name one in CHROMIUM.")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def shots() -> Path | None:
    """Where screenshots are kept for people to look at: the folder SCREENSHOTS, if it is given."""
    folder = os.environ.get("SCREENSHOTS")
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
