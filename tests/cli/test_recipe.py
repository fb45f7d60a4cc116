"""`generalist recipe`: paths that hold in any folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from generalist.cli.main import main
from generalist.specs import list_specs
from generalist.training.recipe import load_recipe


@pytest.mark.parametrize("name", list_specs("accelerate"))
def test_a_configuration_is_found_from_any_folder(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", name]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.is_absolute() and "distributed_type" in yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", ["quickstart", "sizes/79m"])
def test_so_is_a_recipe(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", name]) == 0
    assert load_recipe(capsys.readouterr().out.strip()) == load_recipe(name)


def test_without_a_name_all_are_listed_and_a_wrong_one_names_the_nearest(capsys):
    assert main(["recipe"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("quickstart", "sizes/364m", "zero2", "ddp"))
    assert main(["recipe", "zero4"]) == 2
    assert "did you mean 'zero" in capsys.readouterr().err
