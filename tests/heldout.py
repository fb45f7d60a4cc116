"""A suite of two tasks that the tests' tiny checkpoint was not trained on."""

from __future__ import annotations

from pathlib import Path

import yaml

TASKS = ("gym/Acrobot-v1", "gym/MountainCarContinuous-v0")


def save_heldout_suite(folder: Path) -> Path:
    """Write heldout.yaml and the dataset spec that it names; everything in it is short."""
    entries = [{"task": task, "episodes": 3, "max_steps": 60} for task in TASKS]
    (folder / "demonstrations.yaml").write_text(yaml.safe_dump({"tasks": entries}))
    suite = {
        "episodes": 2,
        "prompted_episodes": 1,
        "prompts": 1,
        "videos": False,
        "heldout": {"data": str(folder / "demonstrations.yaml"), "steps": 3},
        "tasks": [{"task": task, "max_steps": 20} for task in TASKS],
    }
    path = folder / "heldout.yaml"
    path.write_text(yaml.safe_dump(suite))
    return path
