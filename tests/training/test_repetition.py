"""How often each label was seen: counted exactly, told in the log, in the checkpoint, warned of."""

from __future__ import annotations

import json
import os
import signal

import pytest

from generalist.training.loop import TrainingInterrupted, train
from generalist.training.repetition import times_seen
from tests.training.runs import Counting, replaced


def test_the_mean_is_over_what_the_data_hold() -> None:
    seen = times_seen({"a/1": 30, "a/gone": 5}, {"a/1": 10, "a/2": 4, "a/empty": 0})
    assert seen == {"a/1": 3.0, "a/2": 0.0}


def test_every_target_is_counted_once_also_where_a_run_was_interrupted(
    make_recipe, data, tmp_path, capsys
) -> None:
    assert data.labels["gym/Pendulum-v1"] == 120 and 0 < data.labels["gym/CartPole-v1"] <= 120
    # Rows 0 to 23: six steps of four rows.
    expected = dict.fromkeys(data.labels, 0)
    batch = data.windows.batch(0, 24)
    is_target = (batch.targets >= 0) & (batch.position_ids > 0)
    for index, task in enumerate(data.task_names):
        expected[task] += int((is_target & (batch.task_index == index)).sum())
    stop = Counting(data.windows, at=4 * 3, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
    recipe = make_recipe(log_every=4)  # so that it stops between two rows of the log
    with pytest.raises(TrainingInterrupted):
        train(recipe, replaced(data, stop))
    folder = train(recipe, data)
    facts = json.loads((folder / "generalist" / "training.json").read_text())
    assert facts["labels_seen"] == times_seen(expected, data.labels)
    last = json.loads((recipe.output_dir / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 4 and 0 < last["labels_seen/gym/Pendulum-v1"]
    assert last["labels_seen/gym/Pendulum-v1"] < facts["labels_seen"]["gym/Pendulum-v1"]
    assert "Times each label was seen: " in capsys.readouterr().err


def test_a_task_whose_labels_are_seen_often_is_warned_of_once(make_recipe, data, capsys) -> None:
    few = replaced(data, data.windows)
    few.labels = {"gym/Pendulum-v1": 3, "gym/CartPole-v1": 10**6}
    train(make_recipe(), few)
    said = capsys.readouterr().err
    assert said.count("gym/Pendulum-v1: each of its 3 labels was seen") == 1
    assert "learn them by heart" in said and "gym/CartPole-v1: each" not in said
