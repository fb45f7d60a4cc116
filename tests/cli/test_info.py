"""`generalist info`: facts for a report of a fault, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import generalist
from generalist.cli import info
from generalist.cli.main import main
from generalist.errors import EXTRAS


def test_the_facts_are_those_of_this_installation(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setitem(EXTRAS, "no_such_module", "nothing")
    path = tmp_path / "info.json"
    assert main(["info", "--json", str(path)]) == 0
    found, shown = json.loads(path.read_text()), capsys.readouterr().out
    assert found["generalist"] == generalist.__version__
    assert found["packages"]["torch"] == torch.__version__
    assert found["extras"]["nothing"] == "no_such_module is missing"
    assert found["extras"]["train"] == "installed"
    processor = generalist.GeneralistProcessor.default()
    assert found["fingerprints"]["processor"] == processor.fingerprint
    assert found["cpu"]["usable"] >= 1 and set(found["cpu"]["flags"]) <= set(info.CPU_FLAGS)
    for words in (generalist.__version__, torch.__version__, "no_such_module is missing"):
        assert words in shown


def test_a_machine_that_does_not_describe_itself(monkeypatch):
    monkeypatch.setattr(info, "_cpu_info", lambda: "")
    assert info._cpu_model() and info._cpu_flags() == []
    assert info._version("no-such-distribution") is None
