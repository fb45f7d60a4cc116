"""Strategies over several gloo ranks, started as a user starts them, against one process."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from generalist.specs import find_spec
from generalist.training.checkpoint import newest_checkpoint
from generalist.training.recipe import Recipe, dump_recipe
from tests.training.runs import weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}

WHAT_RUNS = {
    "ddp": "DDP over 2 processes",
    "fsdp2": "FSDP2 over 2 processes",
    "zero1": "DeepSpeed ZeRO-1 over 2 processes",
    "zero2": "DeepSpeed ZeRO-2 over 2 processes",
    "zero3": "DeepSpeed ZeRO-3 over 2 processes",
    "zero3_offload": "DeepSpeed ZeRO-3 over 2 processes",
}


def needs_deepspeed(config: str) -> object:
    here = importlib.util.find_spec("deepspeed") is not None
    reason = "the extra deepspeed is not installed"
    marks = [pytest.mark.skipif(not here, reason=reason)] if config.startswith("zero") else []
    return pytest.param(config, marks=marks)


STRATEGIES = [needs_deepspeed(config) for config in WHAT_RUNS]


def command_for(
    recipe: Recipe,
    folder: Path,
    config: str,
    ranks: int = 2,
    module: str = "generalist.training",
    options: Sequence[str] = (),
) -> list[str]:
    """Train under an accelerate configuration, or in one process for `one`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    command = [sys.executable]
    if config != "one":
        command += ["-m", "accelerate.commands.accelerate_cli", "launch", "--config_file"]
        command += [str(find_spec("accelerate", config)), "--num_processes", str(ranks)]
        command += ["--main_process_port", "0", *options]  # any free one
    return [*command, "-m", module, str(folder / "recipe.yaml")]


def start(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `command_for` to its end, in the folder of the run, as any folder will do."""
    command = command_for(*arguments, **options)  # type: ignore[arg-type]
    folder = arguments[1]
    return subprocess.run(command, env=ENVIRONMENT, cwd=folder, capture_output=True, text=True)


def ranks_below(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    """The training processes that a launcher has started."""
    children = psutil.Process(launcher.pid).children(recursive=True)
    return [child for child in children if "generalist.training" in child.cmdline()]


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.01)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def assert_equal_within_rounding(run: Path, other: Path) -> None:
    mine, theirs = weights(run), weights(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, atol=1e-5, rtol=1e-5)


def assert_moments_equal_within_rounding(run: Path, other: Path) -> None:
    mine, theirs = (
        load_file(folder / "checkpoints" / "step-00000006" / "optimizer.safetensors")
        for folder in (run, other)
    )
    assert mine.keys() == theirs.keys()
    for key, moment in mine.items():
        torch.testing.assert_close(theirs[key], moment, atol=1e-6, rtol=1e-4)


@pytest.fixture
def whole(make_recipe, tmp_path) -> Path:
    """The run of one process, from beginning to end."""
    recipe = make_recipe(output_dir=tmp_path / "one")
    done = start(recipe, tmp_path / "one", "one")
    assert done.returncode == 0, done.stderr[-3000:]
    return tmp_path / "one"


@pytest.mark.parametrize("config", STRATEGIES)
def test_two_ranks_equal_one_process(make_recipe, tmp_path, whole, config):
    """Same losses, same weights, and an export that plain transformers loads."""
    run = tmp_path / config
    done = start(make_recipe(output_dir=run), run, config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert WHAT_RUNS[config] in done.stdout
    assert losses(run) == pytest.approx(losses(whole), abs=1e-5)
    assert_equal_within_rounding(whole, run)
    model = AutoModelForCausalLM.from_pretrained(run / "checkpoint")
    assert torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)


SIZES = {"hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2}


def assert_one_process_and_two_ranks_are_equal(
    make_recipe: Callable[..., Recipe], folder: Path, config: str, **sections: object
) -> None:
    """The same losses, weights and embedders of one process as under an accelerate configuration.

    The rows are of two tasks whose embedders differ, so a rank's pass may use one of them alone.
    """
    for run, launch in ((folder / "one", "one"), (folder / config, config)):
        done = start(make_recipe(output_dir=run, **sections), run, launch)
        assert done.returncode == 0, done.stderr[-3000:]
    assert losses(folder / config) == pytest.approx(losses(folder / "one"), abs=1e-5)
    assert_equal_within_rounding(folder / "one", folder / config)
    mine, theirs = (
        load_file(folder / run / "checkpoint" / "generalist" / "embedders.safetensors")
        for run in ("one", config)
    )
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", STRATEGIES)
def test_two_ranks_equal_one_process_in_the_compact_form(make_recipe, tmp_path, config):
    model = {**SIZES, "form": "compact", "embedders": {"positions": 2, "width": 4}}
    assert_one_process_and_two_ranks_are_equal(make_recipe, tmp_path, config, model=model)


@pytest.mark.parametrize("config", map(needs_deepspeed, ("ddp", "fsdp2", "zero1")))
def test_two_ranks_equal_one_process_with_a_world_model(make_recipe, tmp_path, config):
    """Its losses have weights, places and heads of their own, task by task."""
    model = {**SIZES, "form": "compact", "embedders": {"positions": 1, "width": 4}}
    # Cut after 60 steps, CartPole earns 1 a step for ever: discounted, all returns are the same.
    world = {"discount": {"gym/CartPole-v1": 1, "default": 0.99}}
    assert_one_process_and_two_ranks_are_equal(
        make_recipe, tmp_path, config, model=model, world=world
    )
    heads = load_file(tmp_path / config / "checkpoint" / "generalist" / "embedders.safetensors")
    assert any("world" in name for name in heads), "nothing of a world model was trained"


@pytest.mark.parametrize("config", STRATEGIES)
def test_two_ranks_equal_one_process_with_returns(make_recipe, tmp_path, config):
    """One of the two tasks has none, as all its discounted returns are the same."""
    model = {**SIZES, "form": "compact", "embedders": {"positions": 1, "width": 4}}
    assert_one_process_and_two_ranks_are_equal(
        make_recipe, tmp_path, config, model=model, returns={}
    )
    stored = tmp_path / config / "checkpoint" / "generalist" / "training.json"
    assert list(json.loads(stored.read_text())["returns"]) == ["gym/Pendulum-v1"]


@pytest.mark.parametrize("config", map(needs_deepspeed, ("zero2", "zero3")))
def test_a_world_model_is_refused_where_its_gradients_would_be_wrong(make_recipe, tmp_path, config):
    model = {**SIZES, "form": "compact", "embedders": {"positions": 1, "width": 4}}
    done = start(make_recipe(output_dir=tmp_path / "run", model=model, world={}), tmp_path, config)
    assert done.returncode != 0
    assert f"ZeRO {config[-1]}" in done.stderr and "zero1" in done.stderr, done.stderr[-3000:]


@pytest.mark.parametrize("config", STRATEGIES)
def test_a_run_goes_on_under_another_strategy_and_with_other_ranks(
    make_recipe, tmp_path, whole, config
):
    """From the third step of two ranks: on one process, on four ranks, and on two again."""
    first = tmp_path / "first"
    done = start(make_recipe(output_dir=first), first, config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_moments_equal_within_rounding(whole, first)
    for follower, ranks in (("one", 1), ("ddp", 4), (config, 2)):
        run = tmp_path / f"{follower}-{ranks}"
        shutil.copytree(first / "checkpoints", run / "checkpoints")
        shutil.rmtree(run / "checkpoints" / "step-00000006")
        done = start(make_recipe(output_dir=run), run, follower, ranks)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Continuing from" in done.stdout
        assert_equal_within_rounding(whole, run)
        # What was loaded is saved again: ranks must gather the moments in one order.
        assert_moments_equal_within_rounding(whole, run)


@pytest.mark.parametrize("config", STRATEGIES)
def test_a_gradient_that_is_not_finite_is_no_step(make_recipe, tmp_path, config):
    """The third of six is skipped on all ranks; the others are taken."""
    run = tmp_path / config
    done = start(make_recipe(output_dir=run), run, config, module="tests.training.spoiled")
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads((run / "checkpoints" / "step-00000006" / "state.json").read_text())
    assert state["skipped"] == 1 and state["step"] == 6
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())
    moments = load_file(run / "checkpoints" / "step-00000006" / "optimizer.safetensors")
    assert {int(value) for key, value in moments.items() if key.startswith("step/")} == {5}


@pytest.mark.parametrize("config", [c for c in STRATEGIES if c.values[0] != "ddp"])
def test_muon_is_refused_where_matrices_are_cut(make_recipe, tmp_path, config):
    run = tmp_path / config
    done = start(make_recipe(output_dir=run, optimizer={"name": "muon"}), run, config)
    assert done.returncode != 0 and "use adamw" in done.stderr


def test_a_killed_rank_is_restarted_by_the_launcher(make_recipe, tmp_path):
    """`--max_restarts`: all ranks start again from the newest checkpoint; nothing is lost."""
    long = {"schedule": {"steps": 300, "warmup_steps": 2}}
    done = start(make_recipe(**long, output_dir=tmp_path / "one"), tmp_path / "one", "one")
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "ddp"
    recipe = make_recipe(**long, output_dir=run)
    command = command_for(recipe, run, "ddp", options=["--max_restarts", "2"])
    with (tmp_path / "output.txt").open("w") as output:
        launcher = subprocess.Popen(command, env=ENVIRONMENT, stdout=output, stderr=output)
        wait_for(lambda: bool(list((run / "checkpoints").glob("step-*"))))
        killed = ranks_below(launcher)[-1]
        killed.kill()
        code = launcher.wait(timeout=300)
    said = (tmp_path / "output.txt").read_text()
    assert code == 0, said[-3000:]
    assert "Continuing from" in said, "the killed rank came too late"
    assert_equal_within_rounding(tmp_path / "one", run)


@pytest.mark.parametrize("config", [needs_deepspeed("zero2")])
def test_a_killed_run_is_resumed_and_exported(make_recipe, tmp_path, config):
    """kill -9 of all processes after a checkpoint; the same command trains to the end."""
    long = {"schedule": {"steps": 60, "warmup_steps": 2}}
    done = start(make_recipe(**long, output_dir=tmp_path / "one"), tmp_path / "one", "one")
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / config
    recipe = make_recipe(**long, output_dir=run)
    with (tmp_path / "output.txt").open("w") as output:
        launcher = subprocess.Popen(
            command_for(recipe, run, config), env=ENVIRONMENT, stdout=output, stderr=output
        )
        wait_for(lambda: bool(list((run / "checkpoints").glob("step-*"))), 400)
        for process in [*psutil.Process(launcher.pid).children(recursive=True), launcher]:
            process.kill()
        launcher.wait()
    assert not (run / "checkpoint").exists(), "it was done before it was killed"
    done = start(recipe, run, config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Continuing from" in done.stdout and WHAT_RUNS[config] in done.stdout
    assert "FutureWarning" not in done.stderr
    assert_equal_within_rounding(tmp_path / "one", run)
    table = AutoModelForCausalLM.from_pretrained(run / "checkpoint").get_input_embeddings().weight
    assert torch.equal(table, weights(run)["model.embed_tokens.weight"])


@pytest.mark.parametrize("config", [needs_deepspeed("zero2"), "ddp"])
def test_a_terminated_launcher_leaves_a_checkpoint(make_recipe, tmp_path, config):
    """SIGTERM reaches the ranks, which save before they leave."""
    run = tmp_path / config
    recipe = make_recipe(
        output_dir=run,
        schedule={"steps": 100_000, "warmup_steps": 2},
        checkpoint={"every_minutes": None},
    )
    with (tmp_path / "output.txt").open("w") as output:
        launcher = subprocess.Popen(
            command_for(recipe, run, config), env=ENVIRONMENT, stdout=output, stderr=output
        )
        wait_for(lambda: (run / "log.jsonl").exists() and len(losses(run)) > 2)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=120) != 0
    wait_for(lambda: newest_checkpoint(run / "checkpoints") is not None, 30)
    state = json.loads((newest_checkpoint(run / "checkpoints") / "state.json").read_text())
    assert state["step"] > 2


@pytest.mark.parametrize("config", [needs_deepspeed("zero2"), needs_deepspeed("zero3"), "fsdp2"])
def test_adapters_on_two_ranks_equal_one_process(make_recipe, tmp_path, config):
    """Weights that are not trained lie elsewhere than those that are, and are exported too."""
    for name in ("one", config):
        recipe = make_recipe(model={**SIZES, "lora": {"rank": 2}}, output_dir=tmp_path / name)
        done = start(recipe, tmp_path / name, name)
        assert done.returncode == 0, done.stderr[-3000:]
    assert_equal_within_rounding(tmp_path / "one", tmp_path / config)
