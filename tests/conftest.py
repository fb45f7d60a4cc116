"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    from generalist.tokenization.processor import GeneralistProcessor

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs so, and what they start would never hear Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Set before torch is imported: more threads than cores make every test slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Set before triton is imported: without a GPU its kernels are run by its interpreter.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# How long an example takes says nothing where other tests run beside it.
settings.register_profile("generalist", deadline=None)
settings.load_profile("generalist")

TINY_DATASET = {
    "noise": 0.2,
    "tasks": [
        {"task": "gym/CartPole-v1", "episodes": 6, "max_steps": 100},
        {"task": "gym/Pendulum-v1", "episodes": 3},
    ],
}
TINY_MODEL = {"hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2}
TINY_STEPS = 20


@dataclass(frozen=True)
class TinyRun:
    """A finished run, made with the real commands in a few seconds; it cannot play well.

    folder: of the run, with the recipe's log and its checkpoints for resuming.
    data: collected shards, one folder a task. dataset, recipe: the specs they were made with.
    checkpoint: the final checkpoint, what `Agent.from_pretrained` reads.
    """

    folder: Path
    dataset: Path
    data: Path
    recipe: Path
    checkpoint: Path
    tasks: tuple[str, ...] = ("gym/CartPole-v1", "gym/Pendulum-v1")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Demonstrations of two tasks and a tiny model trained on them; made once for all workers.

    Read-only: a test that writes into it copies it first.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "tiny_run"
    run = TinyRun(
        folder=folder / "run",
        dataset=folder / "tiny.yaml",
        data=folder / "data",
        recipe=folder / "recipe.yaml",
        checkpoint=folder / "run" / "checkpoint",
    )
    with FileLock(root / "tiny_run.lock"):
        if not run.checkpoint.exists():
            folder.mkdir(exist_ok=True)
            run.dataset.write_text(yaml.safe_dump(TINY_DATASET))
            run.recipe.write_text(yaml.safe_dump(_tiny_recipe(run)))
            command("collect", run.dataset, "--out", run.data, "--workers", 0)
            command("train", run.recipe)
    return run


def _tiny_recipe(run: TinyRun) -> dict:
    return {
        "model": TINY_MODEL,
        "data": {
            "root": str(run.data),
            "window_tokens": 128,
            "rows_per_step": 4,
            "rows_per_forward": 4,
        },
        "schedule": {"steps": TINY_STEPS, "warmup_steps": 2},
        "precision": "fp32",
        "trackers": [],
        "output_dir": str(run.folder),
    }


def command(*arguments: object) -> str:
    """Run `generalist ARGUMENTS` in its own process, as a user does; its standard output."""
    code = "import sys; from generalist.cli.main import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, f"{arguments}: {result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="session")
def without_frames() -> GeneralistProcessor:
    """A processor with text alone, which loads at once."""
    from generalist.specs import find_spec
    from generalist.tokenization.processor import GeneralistProcessor
    from generalist.tokenization.text import TextCodec
    from generalist.vocabulary import Vocabulary

    text = TextCodec.from_pretrained(find_spec("tokenizers", "text"))
    return GeneralistProcessor(Vocabulary.default(text.size), text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of two samples of four episodes of 150 tokens, with labels."""
    from tests.dataset_folders import control_layout, write_task

    options = {"block_tokens": 600, "shard_tokens": 1200}
    return write_task(tmp_path, "gym/Toy-v0", control_layout(), [25] * 16, labelled=True, **options)
