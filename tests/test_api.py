"""The public interface: what `generalist` offers by name, and what looking at it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import generalist

PUBLIC = [
    "Agent", "Decision", "Episode", "GeneralistError", "GeneralistProcessor", "Layout", "Policy",
    "UsageError", "Vocabulary", "collect", "evaluate", "list_tasks", "load_recipe", "make",
    "make_vec", "rollout", "train",
]  # fmt: skip


def test_the_names_are_those_that_are_promised() -> None:
    assert generalist.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(generalist))
    assert (Path(generalist.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_there_with_its_documentation(name: str) -> None:
    found = getattr(generalist, name)
    assert found.__doc__ and found.__module__.startswith("generalist.")
    assert found.__name__ == name


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = generalist.nothing


def test_importing_loads_nothing_heavy() -> None:
    """And neither do the names that need no model."""
    code = (
        "import sys, generalist\n"
        "heavy = {'torch', 'transformers', 'gymnasium', 'numpy', 'yaml', 'pydantic'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "generalist.Episode, generalist.Policy, generalist.Decision, generalist.make\n"
        "generalist.list_tasks, generalist.load_recipe, generalist.GeneralistError\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_specs_may_be_given_by_name(tmp_path: Path) -> None:
    """As the commands take them; a name that is not there lists those that are."""
    for function, arguments in (
        (generalist.collect, ("nothing", tmp_path)),
        (generalist.evaluate, (tmp_path, "nothing", tmp_path / "out")),
        (generalist.train, ("nothing",)),
    ):
        with pytest.raises(generalist.UsageError, match="quickstart"):
            function(*arguments)
