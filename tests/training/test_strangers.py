"""Nothing that a dataset or a checkpoint from elsewhere names is imported as code."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from generalist import integrity
from generalist.acting.agent import Agent
from generalist.acting.rollout import rollout
from generalist.envs.registry import registered_names
from generalist.errors import GeneralistError, UsageError
from generalist.experts import expert_names
from generalist.modeling.attention import plain_config
from generalist.shards.manifest import DatasetHeader
from generalist.shards.strangers import expert_of_header, names_new_code, tasks_matching
from generalist.training.data import open_data
from generalist.training.loop import train
from generalist.windows.mixture import open_mixture
from generalist.windows.selection import Selection
from tests.dataset_folders import control_layout, write_task

TASK = "gym/CartPole-v1"
MODULE = "strangers_module"
STRANGE = f"gym/{MODULE}:Env-v0"
CODE = """
from pathlib import Path
from generalist.experts.classic import CartPoleLQR
Path(__file__).with_suffix(".imported").touch()
class Expert(CartPoleLQR):
    pass
"""


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the stranger's module, which can be imported, was."""
    (tmp_path / f"{MODULE}.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    yield tmp_path / f"{MODULE}.imported"
    sys.modules.pop(MODULE, None)


def with_expert(shards: dict[str, Path], root: Path, expert: str) -> dict[str, Path]:
    """The shards, as if this expert had demonstrated CartPole."""
    folder = Path(shutil.copytree(shards["root"], root)) / TASK
    header = DatasetHeader.read(folder)
    header.collection["expert"] = expert
    header.write(folder, {})
    return {**shards, "root": root}


@pytest.mark.parametrize("expert", [f"{MODULE}:Expert", f"{MODULE}:Expert@256", "FOLDER"])
def test_an_expert_that_data_name_is_not_taken(
    make_recipe, shards, tmp_path: Path, imported: Path, expert: str
) -> None:
    folder = tmp_path / "expert"
    folder.mkdir()
    (folder / "expert.json").write_text("{}")
    expert = str(folder) if expert == "FOLDER" else expert
    recipe = make_recipe(
        data={**with_expert(shards, tmp_path / "data", expert), "window_tokens": 64},
        corrections={"tasks": {TASK: {"episodes": 1, "max_steps": 5}}, "rounds": 1, "begin": 0.5},
    )
    with pytest.raises(UsageError, match=rf"{TASK} name the expert .*corrections\.tasks"):
        train(recipe, open_data(recipe))
    assert not imported.exists() and not (recipe.output_dir / "checkpoints").exists()


def test_the_same_expert_is_taken_from_the_user(
    make_recipe, shards, tmp_path: Path, imported: Path
) -> None:
    expert = f"{MODULE}:Expert"
    mine = {"episodes": 1, "max_steps": 5, "expert": expert}
    recipe = make_recipe(
        data={**with_expert(shards, tmp_path / "data", expert), "window_tokens": 64},
        corrections={"tasks": {TASK: mine}, "rounds": 1, "begin": 0.5},
    )
    train(recipe, open_data(recipe))
    assert imported.exists()


def test_every_expert_of_this_package_may_be_named_by_data() -> None:
    names = {name for task in registered_names() for name in expert_names(task)}
    assert len(names) > 10
    for name in [*names, "planner@256", None]:
        assert expert_of_header(TASK, {"expert": name}) == name


@pytest.mark.parametrize(
    "name", ["a:B", "a.b:C@3", "../expert", "/expert", "runs/expert", ".", "", "lqr\n", 3, ["lqr"]]
)
def test_no_other_may(name) -> None:
    with pytest.raises(UsageError, match="name it yourself"):
        expert_of_header(TASK, {"expert": name})


def test_a_task_that_data_name_is_read_and_not_imported(tmp_path: Path, imported: Path) -> None:
    write_task(tmp_path / "data", STRANGE, control_layout(), [25] * 4)
    mixture = open_mixture(tmp_path / "data", selection=Selection(min_expert_share=0.5))
    assert [data.task for data in mixture.tasks] == [STRANGE] and names_new_code(STRANGE)
    with pytest.warns(UserWarning, match="names a module to import"):
        assert tasks_matching([STRANGE, TASK], ["gym/*"]) == [TASK]
    assert tasks_matching([STRANGE, TASK], [STRANGE]) == [STRANGE], "at the user's own word"
    assert not imported.exists()
    __import__(MODULE)
    assert tasks_matching([STRANGE, TASK], ["gym/*"]) == [STRANGE, TASK], "the user imported it"


def renamed(tiny_run, folder: Path) -> Path:
    """A checkpoint of one task, of a stranger's name."""
    shutil.copytree(tiny_run.checkpoint, folder)
    path = folder / "generalist" / "layouts.json"
    path.write_text(json.dumps({STRANGE: json.loads(path.read_text())[TASK]}))
    integrity._write_manifest(folder)
    return folder


def test_a_task_that_a_checkpoint_names_is_not_imported(
    tiny_run, tmp_path: Path, imported: Path
) -> None:
    folder = renamed(tiny_run, tmp_path / "checkpoint")
    with pytest.raises(UsageError, match="names a module to import.*pass task="):
        rollout(Agent.from_pretrained(folder), episodes=1, progress=False)
    assert not imported.exists()
    agent = Agent.from_pretrained(folder, task=STRANGE)
    action = agent.act(np.zeros(4, np.float32), first=True)
    assert action in (0, 1) and not imported.exists()


@pytest.mark.parametrize(
    "strange",
    [
        {"attn_implementation": "someone/kernel"},
        {"_attn_implementation": "someone/kernel"},
        {"_attn_implementation_internal": "someone/kernel"},
        {"auto_map": {"AutoConfig": f"{MODULE}.Config", "AutoModelForCausalLM": f"{MODULE}.Model"}},
    ],
)
def test_a_config_names_no_code(tiny_run, tmp_path: Path, imported: Path, strange: dict) -> None:
    folder = Path(shutil.copytree(tiny_run.checkpoint, tmp_path / "checkpoint"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | strange))
    shutil.copy(tmp_path / f"{MODULE}.py", folder)
    integrity._write_manifest(folder)
    assert plain_config(folder)._attn_implementation == "sdpa"
    agent = Agent.from_pretrained(folder, task=TASK)
    assert agent.act(np.zeros(4, np.float32), first=True) in (0, 1)
    assert agent.model.config._attn_implementation == "sdpa" and not imported.exists()


def test_a_model_of_a_strangers_own_code_is_refused(
    tiny_run, tmp_path: Path, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would ask a person at the keyboard whether to run it."""
    folder = Path(shutil.copytree(tiny_run.checkpoint, tmp_path / "checkpoint"))
    path = folder / "config.json"
    code = {"auto_map": {"AutoConfig": f"{MODULE}.Config"}, "model_type": "strange"}
    path.write_text(json.dumps(json.loads(path.read_text()) | code))
    shutil.copy(tmp_path / f"{MODULE}.py", folder)
    integrity._write_manifest(folder)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(GeneralistError, match="custom code"):
        Agent.from_pretrained(folder, task=TASK)
    assert not imported.exists()


def test_weights_are_no_pickle(tiny_run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_run.checkpoint, tmp_path / "checkpoint"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    integrity._write_manifest(folder)
    with pytest.raises(GeneralistError, match="cannot be loaded"):
        Agent.from_pretrained(folder, task=TASK)
