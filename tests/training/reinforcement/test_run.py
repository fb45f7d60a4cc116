"""Whole runs that learn from rewards: resumed, on several cores, refused in words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.envs import make
from generalist.errors import GeneralistError, UsageError
from generalist.modeling.values import HEADS
from generalist.shards.validate import validate
from generalist.training.checkpoint import newest_checkpoint
from generalist.training.loop import build_trainer, train
from generalist.training.recipe import dump_recipe, load_recipe
from generalist.training.reinforcement.build import open_tasks
from generalist.training.strategies.launch import (
    StopSignal,
    start_accelerator,
    torch_settings_kept,
)
from tests.training.reinforcement.conftest import CARTPOLE, GOTO, PENDULUM
from tests.training.reinforcement.test_fleet import Spoiled
from tests.training.reinforcement.test_recorder import content
from tests.training.runs import (
    ROOT,
    assert_bitwise_equal,
    last_step,
    launched,
    recipe_file,
    weights,
)
from tests.training.two_ranks import on_two_ranks

of_both_heads = pytest.mark.parametrize("head", sorted(HEADS))


def values_file(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "generalist" / "values.safetensors")


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_acts_afterwards_and_says_what_happened(make_run, tmp_path):
    folder = train(make_run())
    agent = Agent.from_pretrained(folder, task=CARTPOLE)
    assert agent.act(np.zeros(4, np.float32), first=True) in (0, 1)
    assert agent.environments[CARTPOLE]["spaces"]["action"]
    values = values_file(tmp_path / "run")
    assert values["seen"].min() > 0 and values["weight"].abs().max() > 0
    row = rows(tmp_path / "run")[-1]
    assert row["environment_steps"] == 2 * 6 * 8
    for name in ("policy", "value", "entropy", "ratio", "value_spread"):
        assert np.isfinite(row[f"{name}/{CARTPOLE}"]) and np.isfinite(row[f"{name}/{PENDULUM}"])
    again = tmp_path / "again"
    agent.save_pretrained(again)
    assert (again / "generalist" / "values.safetensors").is_file()


@pytest.mark.parametrize(("step", "head"), [(3, "scalar"), (6, "scalar"), (6, "categorical")])
def test_resumed_equals_uninterrupted(make_run, tmp_path, step, head):
    train(make_run({"value_head": head}, output_dir=tmp_path / "whole"))
    source = tmp_path / "whole" / "checkpoints" / f"step-{step:08d}"
    train(make_run({"value_head": head}, output_dir=tmp_path / "again"), resume_from=source)
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "again")
    one, two = values_file(tmp_path / "whole"), values_file(tmp_path / "again")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_two_cores_equal_one(make_run, tmp_path):
    train(make_run(output_dir=tmp_path / "one"))
    train(make_run(output_dir=tmp_path / "two", cores=2))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-4)


def test_imitates_beside_and_keeps_to_its_start(make_run, tmp_path):
    first = train(make_run())
    folder = train(
        make_run(
            {"tasks": {GOTO: {"environments": 4}, CARTPOLE: {"environments": 2}},
             "imitation": 0.5, "kl": 0.1, "value_warmup": 1},
            model={"init_from": str(first)},
            output_dir=tmp_path / "second",
        )
    )  # fmt: skip
    assert set(Agent.from_pretrained(folder, task=GOTO).layouts) == {CARTPOLE, PENDULUM, GOTO}
    found = rows(tmp_path / "second")
    assert any(f"loss/{PENDULUM}" in row for row in found)  # demonstrations
    assert found[0][f"kl/{CARTPOLE}"] == pytest.approx(0, abs=1e-3)  # values alone moved
    old, new = (values_file(tmp_path / name) for name in ("run", "second"))
    assert old["weight"].shape == new["weight"].shape == (2, 16)


@of_both_heads
def test_unscaled_rewards_come_back_from_a_scaled_run(make_run, tmp_path, head):
    """With PopArt a run whose rewards are a thousand times as large is the same run."""
    for name, scale in (("plain", 1.0), ("large", 1024.0)):
        tasks = {CARTPOLE: {"environments": 4, "reward_scale": scale}}
        train(make_run({"tasks": tasks, "value_head": head}, output_dir=tmp_path / name))
    one, two = weights(tmp_path / "plain"), weights(tmp_path / "large")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-3, rtol=2e-3)


def test_distributions_lie_in_the_checkpoint_and_another_run_goes_on_from_them(make_run, tmp_path):
    folder = train(make_run({"value_head": "categorical"}))
    values = Agent.from_pretrained(folder, task=CARTPOLE).model.values
    assert values.head == "categorical" and values.weight.shape == (2, 101, 16)
    assert values.weight.abs().max() > 0 and values.seen.min() > 0
    assert rows(tmp_path / "run")[-1][f"value/{CARTPOLE}"] > 0
    start = {"init_from": str(folder)}
    train(make_run({"value_head": "categorical"}, model=start, output_dir=tmp_path / "second"))
    with pytest.warns(UserWarning, match="has categorical values, and the recipe asks for scalar"):
        train(make_run(model=start, output_dir=tmp_path / "third"))
    one, two, three = (values_file(tmp_path / name) for name in ("run", "second", "third"))
    assert (two["seen"] > one["seen"]).all() and (three["seen"] > one["seen"]).all()
    assert three["weight"].shape == (2, 16)


def test_a_run_does_not_go_on_with_values_of_the_other_kind(make_run):
    train(make_run())
    with pytest.raises(GeneralistError, match=r"of another model \(reinforcement\.value_head"):
        train(make_run({"value_head": "categorical"}), allow_changes=True)
    with pytest.raises(ValueError, match=r"(?s)value_head.*'scalar' or 'categorical'"):
        make_run({"value_head": "quantiles"})


def test_a_killed_run_goes_on(make_run, tmp_path):
    sections = {"schedule": {"steps": 40}, "checkpoint": {"every_steps": 2, "every_minutes": None}}
    recipe = make_run({"record": tmp_path / "played"}, **sections)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    command = [sys.executable, "-m", "generalist.training", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while newest_checkpoint(recipe.output_dir / "checkpoints") is None:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last_step(recipe.output_dir) < 40
    train(recipe)
    whole = make_run(
        {"record": tmp_path / "whole-played"}, **sections, output_dir=tmp_path / "whole"
    )
    train(whole)
    assert_bitwise_equal(recipe.output_dir, whole.output_dir)
    assert validate(tmp_path / "played").ok
    assert content(tmp_path / "played") == content(tmp_path / "whole-played")


def test_a_run_in_which_all_environments_fail_says_why(make_run):
    tasks = {
        "gym/tests.strange_envs:Strange-v0": {
            "environments": 2, "options": {"fault": "reward nan"},
        }
    }  # fmt: skip
    with pytest.raises(GeneralistError, match="All environments failed in one unroll.*nan"):
        train(make_run({"tasks": tasks}))


def play_where_one_fails(rank: int, path: Path) -> None:
    """On rank 1 the first environment says a reward that is no number in its step 3."""
    recipe = load_recipe(path, ["reinforcement.max_failures=0"])
    with torch_settings_kept():
        trainer = build_trainer(recipe, open_tasks(recipe), start_accelerator(recipe))
        fleet = trainer.source._fleet
        made = count()
        spoil = [lambda: Spoiled(make(CARTPOLE), at=3 if rank and next(made) == 0 else -1)]
        fleet._crewed = [
            replace(each, makers=spoil + list(each.makers[1:])) for each in fleet._crewed
        ]
        trainer.ranks.meet()  # however long one took to get here
        trainer.run(StopSignal())


def test_what_ends_one_rank_ends_all_with_its_reason(make_run, tmp_path):
    path = recipe_file(make_run(), tmp_path)
    one, other = on_two_ranks(play_where_one_fails, path)
    assert one == other
    assert one.startswith("GeneralistError: 1 times an environment failed, the last time so: ")
    assert "gym/CartPole-v1, seed" in one and "reinforcement.max_failures" in one


def test_rates_are_of_the_seconds_of_training_and_counts_of_all_ranks(make_run):
    """Rounds of scores pause training; a clock of its own would count them."""
    recipe = make_run()
    trainer = build_trainer(recipe, open_tasks(recipe), start_accelerator(recipe))
    with closing(trainer):
        source = trainer.source
        source._steps_since, source._steps, source._playing, source._failures = 100, 300, 5.0, 3
        source._ranks = SimpleNamespace(count=2, sum=lambda numbers: [2 * x for x in numbers])
        row = source.row(50.0)
        assert row["environment_steps_per_second"] == 4.0 and row["playing_share"] == 0.1
        assert row["environment_steps"] == 600 and row["failures"] == 6
        source._steps_since = 100
        source.take(trainer.data)  # the log leaves out the steps before
        assert source.row(50.0)["environment_steps_per_second"] == 0


def test_what_does_not_go_together_is_refused_in_words(make_run, tmp_path):
    with pytest.raises(UsageError, match=r"data\.context_steps has no number"):
        open_tasks(make_run(data={"window_tokens": 32}))
    with pytest.raises(UsageError, match="text/pydoc is text, which has no rewards"):
        open_tasks(make_run({"tasks": {"text/pydoc": {}}}))
    with pytest.raises(UsageError, match="There is no task"):
        open_tasks(make_run({"tasks": {"gym/CartPol-v1": {}}}))
    with pytest.raises(UsageError, match="its score is its return"):
        open_tasks(make_run({"tasks": {CARTPOLE: {"success_only": True}}}))
    with pytest.raises(UsageError, match=r"Set model\.form=compact"):
        open_tasks(make_run(model={"hidden_size": 16, "intermediate_size": 32, "heads": 2}))
    with pytest.raises(UsageError, match="is no checkpoint of generalist"):
        open_tasks(make_run(model={"init_from": str(tmp_path)}))
    with pytest.raises(ValueError, match="has 1 environments for 2 minibatches"):
        make_run({"tasks": {CARTPOLE: {"environments": 1}}})
    with pytest.raises(GeneralistError, match=r"model\."):
        train(make_run())
        train(make_run(model={"form": "compact", "hidden_size": 32, "intermediate_size": 32,
                              "layers": 2, "heads": 2}))  # fmt: skip


@pytest.mark.slow
@of_both_heads
def test_two_ranks_share_the_environments_and_are_resumed(make_run, tmp_path, head):
    whole = make_run({"value_head": head}, output_dir=tmp_path / "whole")
    output = launched(recipe_file(whole, tmp_path / "a"), "ddp", "generalist.training")
    assert "DDP over 2 processes" in output.read_text()
    assert rows(tmp_path / "whole")[-1]["environment_steps"] == 2 * 6 * 8
    again = make_run({"value_head": head}, output_dir=tmp_path / "again")
    source = tmp_path / "whole" / "checkpoints" / "step-00000003"
    path = recipe_file(again, tmp_path / "b")
    launched(path, "ddp", "generalist.training", "--resume", str(source))
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "again")
    with pytest.raises(GeneralistError, match="played by 2 processes and cannot go on with 1"):
        train(make_run({"value_head": head}, output_dir=tmp_path / "alone"), resume_from=source)


@pytest.mark.slow
@of_both_heads
def test_cartpole_is_learned_from_nothing_in_a_minute(make_run, head):
    recipe = make_run(
        {"tasks": {CARTPOLE: {"environments": 32}}, "unroll": 32, "minibatches": 4,
         "value_head": head},
        model={"form": "compact", "hidden_size": 64, "intermediate_size": 192, "layers": 2,
               "heads": 2},
        optimizer={"lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-5, "weight_decay": 0.0,
                   "max_grad_norm": 0.5},
        schedule={"steps": 800, "warmup_steps": 20},
        checkpoint={"every_minutes": None},
        data={"window_tokens": 16, "context_steps": 1},
    )  # fmt: skip
    agent = Agent.from_pretrained(train(recipe), task=CARTPOLE)
    result = rollout(agent, episodes=20, progress=False)
    assert result.mean > 150, "random play earns 22"
