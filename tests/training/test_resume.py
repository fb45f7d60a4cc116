"""What a run may continue from: its own newest checkpoint, or one that is named."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from generalist.errors import GeneralistError, UsageError
from generalist.training import resume
from generalist.training.checkpoint import list_checkpoints
from generalist.training.loop import train
from generalist.training.resume import only_run_in
from generalist.vocabulary import Vocabulary
from tests.training.runs import assert_bitwise_equal, last_step


def test_from_a_certain_checkpoint_into_another_folder(make_recipe, data, tmp_path):
    train(make_recipe(output_dir=tmp_path / "whole"), data)
    third = tmp_path / "whole" / "checkpoints" / "step-00000003"
    train(make_recipe(output_dir=tmp_path / "again"), data, resume_from=third)
    assert_bitwise_equal(tmp_path / "whole", tmp_path / "again")
    with pytest.raises(UsageError, match="goes on to step-00000006"):
        train(make_recipe(output_dir=tmp_path / "whole"), data, resume_from=third)


def test_a_damaged_or_missing_one_is_not_continued(make_recipe, data, tmp_path):
    train(make_recipe(output_dir=tmp_path / "whole"), data)
    third = tmp_path / "whole" / "checkpoints" / "step-00000003"
    recipe = make_recipe(output_dir=tmp_path / "again")
    (third / "model.safetensors").write_bytes(b"half")
    with pytest.raises(GeneralistError, match="model.safetensors is damaged: it has 4 bytes"):
        train(recipe, data, resume_from=third)
    with pytest.raises(UsageError, match="There is no checkpoint"):
        train(recipe, data, resume_from=tmp_path / "nothing")
    assert not list_checkpoints(tmp_path / "again" / "checkpoints")


def test_a_longer_schedule_goes_on_if_allowed(make_recipe, data, tmp_path):
    train(make_recipe(), data)
    longer = make_recipe(schedule={"steps": 8, "warmup_steps": 2})
    with pytest.raises(GeneralistError, match="schedule.steps: 6 -> 8.*--allow-changes"):
        train(longer, data)
    train(longer, data, allow_changes=True)
    assert last_step(tmp_path / "run") == 8
    train(longer, data)  # from then on it is this recipe's run


def test_other_shards_are_another_run_unless_allowed(make_recipe, data, tmp_path):
    train(make_recipe(), data)
    name, mark = data.shards[0]
    grown = replace(data, shards=[[name, "0" * len(mark)], *data.shards[1:]])
    with pytest.raises(GeneralistError, match=f"other shards of {name}"):
        train(make_recipe(), grown)
    train(make_recipe(), grown, allow_changes=True)


def test_another_model_or_vocabulary_is_never_continued(make_recipe, data):
    train(make_recipe(), data)
    wider = {"hidden_size": 32, "intermediate_size": 32, "layers": 2, "heads": 2}
    with pytest.raises(GeneralistError, match="another model.*hidden_size: 16 -> 32"):
        train(make_recipe(model=wider), data, allow_changes=True)
    processor = type(data.processor)(
        Vocabulary.default().append("gripper", 8), data.processor.text, data.processor.frames
    )
    with pytest.raises(GeneralistError, match="another model.*vocabulary"):
        train(make_recipe(), replace(data, processor=processor), allow_changes=True)


def test_the_same_shards_elsewhere_are_the_same_data(make_recipe, shards, tmp_path):
    from generalist.training.data import open_data

    shutil.copytree(shards["root"], tmp_path / "moved")
    here, there = make_recipe(), make_recipe()
    there.data.root = tmp_path / "moved"
    assert open_data(here).facts() == open_data(there).facts()


def test_other_episodes_or_weights_are_other_data(make_recipe, data):
    """A registry or a spec that changed may change them while recipe and shards stay the same."""
    from generalist.training.data import open_data

    recipe = make_recipe()
    recipe.data.episodes = {"gym/CartPole-v1": 1}
    fewer = open_data(recipe)
    assert fewer.facts()["tasks"] != data.facts()["tasks"]
    train(make_recipe(), data)
    name = data.task_names[list(data.task_names).index("gym/CartPole-v1")]
    with pytest.raises(GeneralistError, match=f"other shards of {name}"):
        train(make_recipe(), fewer)
    heavier = replace(data, weights=[2 * data.weights[0], *data.weights[1:]])
    with pytest.raises(GeneralistError, match="other mixture weights"):
        train(make_recipe(), heavier)


def test_two_do_not_train_in_one_folder(make_recipe, data, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "LOCK_SECONDS", 0.3)
    with (
        only_run_in(tmp_path / "run"),
        pytest.raises(GeneralistError, match="Another process is training in"),
    ):
        train(make_recipe(), data)
    train(make_recipe(), data)  # whoever held it is gone
