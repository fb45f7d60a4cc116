"""Starting: what is really running, the command line, and two processes against one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from generalist.errors import GeneralistError, UsageError
from generalist.modeling.recipe import LoraRecipe, ModelRecipe
from generalist.training.__main__ import main
from generalist.training.recipe import DataRecipe, Recipe, dump_recipe
from generalist.training.strategies import launch
from generalist.training.strategies.launch import (
    StopSignal,
    check_world,
    resolve_precision,
    should_compile,
    start_accelerator,
)
from generalist.training.strategies.replicated import check_wrapped
from tests.training.conftest import TASKS
from tests.training.runs import launched, recipe_file, weights

MODULE = [sys.executable, "-m", "generalist.training"]


def accelerator(processes: int, summed: float):
    """What check_world looks at, of an Accelerator that went wrong in some way."""
    return SimpleNamespace(
        num_processes=processes,
        device=torch.device("cpu"),
        reduce=lambda tensor, how: tensor * summed,
        distributed_type=SimpleNamespace(value="NO"),
    )


@pytest.mark.parametrize(
    ("launched", "processes", "summed"), [(2, 1, 1), (1, 2, 2), (2, 2, 2), (1, 1, 2)]
)
def test_disagreement_about_the_world_is_refused(monkeypatch, launched, processes, summed):
    monkeypatch.setenv("WORLD_SIZE", str(launched))
    with pytest.raises(GeneralistError, match="each would train alone"):
        check_world(accelerator(processes, summed))


def test_one_process_agrees_with_itself(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_world(accelerator(1, 1))
    check_wrapped(torch.nn.Linear(2, 2), accelerator(1, 1))


def test_an_unwrapped_model_under_two_processes_is_refused():
    with pytest.raises(GeneralistError, match="averages no gradients"):
        check_wrapped(torch.nn.Linear(2, 2), accelerator(2, 2))


def recipe_of(hidden_size: int = 128, **changed) -> Recipe:
    model = ModelRecipe(hidden_size=hidden_size, heads=2)
    return Recipe(data=DataRecipe(root="data"), model=model, **changed)


def test_precision_names():
    assert resolve_precision(recipe_of(precision="fp32")) == "fp32"
    assert resolve_precision(recipe_of(precision="bf16")) == "bf16"


@pytest.mark.parametrize(
    ("gpu", "amx", "processes", "changed", "expected"),
    [
        (True, False, 1, {}, "bf16"),
        (False, False, 1, {"hidden_size": 768}, "fp32"),
        (False, True, 1, {}, "bf16"),
        (False, True, 1, {"compile": True}, "fp32"),
        (False, True, 2, {}, "fp32"),
        (False, True, 2, {"hidden_size": 768}, "bf16"),
    ],
)
def test_auto_is_bf16_where_it_is_fast(monkeypatch, gpu, amx, processes, changed, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert resolve_precision(recipe_of(**changed)) == expected


@pytest.mark.parametrize(
    ("triton", "changed", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"compile": False}, False),
        (False, {"compile": True}, True),
        (True, {"model": ModelRecipe(lora=LoraRecipe())}, False),
        (True, {"distributed": DistributedType.DEEPSPEED}, False),
    ],
)
def test_blocks_are_compiled_where_that_pays(monkeypatch, triton, changed, expected):
    """On a GPU with Triton, unless the recipe says otherwise; not adapters, not shards."""
    monkeypatch.setattr(launch, "has_triton", lambda device: triton)
    changed = dict(changed)
    kind = changed.pop("distributed", DistributedType.NO)
    running = SimpleNamespace(device=torch.device("cpu"), distributed_type=kind)
    assert should_compile(recipe_of().model_copy(update=changed), running) == expected


def test_the_first_signal_sets_a_flag_and_the_second_has_its_usual_effect():
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop.raised
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)


def test_torch_notes_on_deepspeed_are_left_out_and_no_others():
    old = "`torch.distributed.all_gather_into_tensor` is deprecated. Please use another."
    mine = "generalist.old is deprecated"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        launch.ignore_what_deepspeed_calls()
        for text, kind in ((old, FutureWarning), (old, UserWarning), (mine, FutureWarning)):
            warnings.warn(text, kind, stacklevel=1)
    assert [str(each.message) for each in heard] == [old, mine]


def test_a_deepspeed_configuration_that_is_not_there_is_named(monkeypatch, tmp_path):
    """accelerate takes its name for base64 and ends in a traceback."""
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", "recipes/deepspeed/zero9.json")
    with pytest.raises(UsageError, match="no DeepSpeed configuration recipes/deepspeed/zero9.json"):
        start_accelerator(recipe_of(trackers=[]))


def test_what_a_deepspeed_configuration_leaves_out_is_filled_in():
    pytest.importorskip("deepspeed")
    from generalist.training.strategies.zero import complete

    config = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 7}}
    complete(config)
    zero = config["zero_optimization"]
    assert zero["reduce_bucket_size"] == 7 and zero["allgather_bucket_size"] == 10_000_000
    assert config["zero_force_ds_cpu_optimizer"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-such-recipe"], 2, "no-such-recipe"),
        (["quickstart", "optimizer.lrr=1"], 2, "optimizer.lrr"),
        (["quickstart", "data.root=/no/such/folder", "output_dir=OUT"], 1, "/no/such/folder"),
    ],
)
def test_wrong_use_is_one_sentence(capsys, tmp_path, arguments, code, message):
    arguments = [argument.replace("OUT", str(tmp_path)) for argument in arguments]
    assert main(arguments) == code
    error = capsys.readouterr().err.strip()
    assert message in error and "Traceback" not in error and len(error.splitlines()) == 1


@pytest.mark.slow
def test_rounds_on_two_processes_equal_those_of_one(make_recipe, tmp_path):
    """Both ranks play, and all train on what either has played: same weights within rounding."""
    cut = {"episodes": 2, "max_steps": 30}
    rounds = {
        "corrections": {"tasks": {task: cut for task in TASKS}, "rounds": 1, "begin": 0.5},
        "improvement": {
            "tasks": {TASKS[1]: {**cut, "least_return": 5}}, "rounds": 1, "begin": 0.5,
        },
        "evaluation": {"tasks": ["*"], **cut, "every_steps": 3},
    }  # fmt: skip
    one = make_recipe(output_dir=tmp_path / "one", **rounds)
    done = subprocess.run(
        [*MODULE, str(recipe_file(one, tmp_path / "launch-one"))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "1 process on cpu" in done.stdout
    two = recipe_file(make_recipe(output_dir=tmp_path / "two", **rounds), tmp_path / "launch-two")
    assert "DDP over 2 processes" in launched(two, "ddp", "generalist.training").read_text()
    for name in ("one", "two"):
        assert len(list((tmp_path / name).glob("corrections/round-1/gym/*/dataset.json"))) == 2
        assert len(list((tmp_path / name).glob("improvement/round-1/gym/*/dataset.json"))) == 1
        assert not (tmp_path / name / ".acting").exists()
    mine, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, atol=1e-5, rtol=1e-5)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    rounds = [[row for row in map(json.loads, log) if "loss" not in row] for log in logs]
    assert rounds[0] == rounds[1] and [row["step"] for row in rounds[0]] == [3, 3, 6]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_signal_saves_says_how_to_continue_and_the_same_command_does(
    make_recipe, tmp_path, number
):
    recipe = make_recipe(schedule={"steps": 100_000, "warmup_steps": 2})
    (tmp_path / "long.yaml").write_text(dump_recipe(recipe))
    command = [*MODULE, str(tmp_path / "long.yaml")]
    for start in range(2):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        line = process.stdout.readline()
        if start:
            assert line.startswith("Continuing from")
        time.sleep(3)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 1, error
        assert "The same command continues" in error and "Traceback" not in error
