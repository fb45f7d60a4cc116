"""Episodes that reinforcement keeps: what was played, once each, whatever interrupts the run."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from generalist.collecting.encode import encode_episode
from generalist.envs import make
from generalist.errors import UsageError
from generalist.seeds import EVALUATION_SEED, REINFORCEMENT_SEED, is_dataset_seed
from generalist.session.trace import Trace
from generalist.shards.reader import TaskData
from generalist.shards.validate import validate
from generalist.tokenization.processor import GeneralistProcessor
from generalist.training.loop import train
from tests.training.reinforcement.conftest import CARTPOLE, PENDULUM
from tests.training.runs import launched, recipe_file

STEPS = {CARTPOLE: 5, PENDULUM: 7}  # so few that two unrolls hold many episodes
TASKS = {
    task: {"environments": 2, "options": {"max_steps": steps}} for task, steps in STEPS.items()
}


@pytest.fixture
def recording(make_run, tmp_path):
    """As `make_run`, and it records into a folder."""
    return partial(make_run, {"tasks": TASKS, "record": tmp_path / "played"})


def folders(root: Path) -> list[TaskData]:
    return [TaskData(root / task) for task in STEPS]


def content(root: Path) -> dict[tuple[str, int], tuple[str, bytes, bytes]]:
    """What each episode holds, by task and seed."""
    found = []
    for data in folders(root):
        for number in range(len(data)):
            record = {k: v for k, v in data.record(number).items() if k != "offset"}
            key = (data.task, record["seed"])
            tokens, rewards = data.tokens(number).tobytes(), data.rewards(number).tobytes()
            found.append((key, (json.dumps(record, sort_keys=True), tokens, rewards)))
    assert len(dict(found)) == len(found), "an episode is there twice"
    return dict(found)


def test_keeps_what_was_played_and_by_which_weights(recording, shards, tmp_path):
    train(recording())
    assert validate(tmp_path / "played").ok
    processor = GeneralistProcessor.from_pretrained(shards["processor"])
    for data in folders(tmp_path / "played"):
        steps = STEPS[data.task]
        # Two environments play three unrolls of six steps, the last before the run sees its end.
        assert len(data) == 2 * (18 // steps)
        assert len(data.demonstrations) == 0  # no expert played
        env = make(data.task, max_steps=steps)
        for number in range(len(data)):
            record, tokens = data.record(number), data.tokens(number)
            assert record["source"] == "reinforcement" and record["seed"] >= REINFORCEMENT_SEED
            first, last = record["policy_steps"]
            # An unroll is learned from in four steps, so the next is played by weights of step 4.
            begun, ended = number // 2 * steps, (number // 2 + 1) * steps - 1
            assert (first, last) == (begun // 6 * 4, ended // 6 * 4)
            # The same actions in the same episode, encoded as `collect` does.
            played = processor.decode(tokens.astype(np.int64), data.layout)
            trace = Trace(env, data.task, record["seed"], keep_steps=True)
            for action in played.actions:
                trace.step(action)
            assert trace.done and record["truncated"] and not record["terminated"]
            again = encode_episode(trace.to_episode({}), processor, data.layout)
            np.testing.assert_array_equal(tokens, again.tokens)
            np.testing.assert_array_equal(data.rewards(number), again.rewards)
        env.close()


def test_holds_every_episode_once_however_it_is_resumed(recording, tmp_path):
    train(recording())
    whole = content(tmp_path / "played")
    # 1. From a checkpoint in the midst of the first unroll, into the same folder.
    for newer in ("step-00000006", "step-00000008"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / newer)
    train(recording())
    assert content(tmp_path / "played") == whole
    # 2. The same, after what was written since that checkpoint was lost.
    shutil.rmtree(tmp_path / "played")
    for newer in ("step-00000006", "step-00000008"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / newer)
    train(recording())
    later = {key: each for key, each in whole.items() if '"policy_steps": [0, 0]' not in each[0]}
    assert 0 < len(later) < len(whole) and content(tmp_path / "played") == later


def test_is_trained_on(recording, make_run, shards, tmp_path):
    train(recording())
    data = {
        **shards, "root": tmp_path / "played", "window_tokens": 32, "rows_per_step": 4,
        "best_share": 0.5, "prompt_fraction": 0.5,
    }  # fmt: skip
    clone = make_run(data=data, output_dir=tmp_path / "clone")
    assert train(clone.model_copy(update={"reinforcement": None})).is_dir()


def test_another_run_is_refused(recording, tmp_path):
    train(recording())
    with pytest.raises(UsageError, match="holds episodes of run, seed 0, not of this run .*other"):
        train(recording(output_dir=tmp_path / "other"))


def test_seeds_of_evaluation_are_in_no_dataset():
    assert is_dataset_seed(0) and is_dataset_seed(REINFORCEMENT_SEED)
    assert not any(is_dataset_seed(EVALUATION_SEED + i) for i in (0, 999_999, 998_999_999))
    assert not is_dataset_seed(-1) and not is_dataset_seed(2**31)


@pytest.mark.slow
def test_two_ranks_write_into_one_folder(make_run, tmp_path):
    wanted = {"tasks": TASKS, "record": tmp_path / "played", "minibatches": 1}
    launched(recipe_file(make_run(wanted), tmp_path / "a"), "ddp", "generalist.training")
    assert validate(tmp_path / "played").ok
    found = content(tmp_path / "played")
    for task, steps in STEPS.items():
        # Eight steps learn from four unrolls, and the fifth is played before the end is seen.
        assert sum(name == task for name, _ in found) == 2 * (5 * 6 // steps)
