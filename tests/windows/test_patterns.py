"""Patterns in a dataset spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from generalist.envs import get_task, matching_names
from generalist.errors import UsageError
from generalist.specs import load_yaml
from generalist.windows.patterns import heldout_tasks
from generalist.windows.spec import dataset_spec


def test_a_pattern_stands_for_the_tasks_of_a_family_that_have_an_expert(tmp_path: Path) -> None:
    own = {"task": "dmc/reacher-easy", "episodes": 2, "weight": 5.0}
    spec = dataset_spec({"tasks": [{"task": "dmc/*", "episodes": 9, "noise": 0.3}, own]})
    found = {task.task: task for task in spec.tasks}
    assert set(found) == set(matching_names("dmc/*")) - set(heldout_tasks())
    assert all(get_task(name).default_expert for name in found)
    assert found["dmc/reacher-easy"].episodes == 2
    assert {t.episodes for t in spec.tasks if t.task != "dmc/reacher-easy"} == {9}
    spec.write(tmp_path)
    assert load_yaml(tmp_path / "spec.yaml", type(spec)) == spec  # written out: nothing may change


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"No registered task with an expert matches 'babyi/\*'"):
        dataset_spec({"tasks": [{"task": "babyi/*", "episodes": 1}]})
