"""The core without extras: it says what there is, and acts with the checkpoint that ships."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from generalist.acting.hub import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
# Hides every installed package that the core's own requirements do not bring in.
BARE = """
import json, re, sys
from importlib import metadata
from packaging.requirements import Requirement

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def needs(texts, extra):
    for need in map(Requirement, texts or []):
        if need.marker is None or need.marker.evaluate({"extra": extra}):
            yield from ((plain(need.name), each) for each in ("", *need.extras))

core, ahead = set(), list(needs(json.loads(sys.argv.pop(1)), ""))
while ahead:
    name, extra = ahead.pop()
    if (name, extra) in core:
        continue
    core.add((name, extra))
    try:
        ahead += needs(metadata.requires(name), extra)
    except metadata.PackageNotFoundError:  # a requirement of other systems
        pass
kept = {name for name, _ in core}
hidden = {
    module for module, owners in metadata.packages_distributions().items()
    if not kept & {plain(owner) for owner in owners}
} - {"generalist", "packaging"}
assert "scipy" in hidden and "accelerate" in hidden and "numpy" not in hidden, sorted(hidden)

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):  # metadata of packages
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from generalist.cli.main import main
for arguments in sys.argv[1:]:
    if code := main(arguments.split()):
        sys.exit(code)
"""


def test_a_bare_installation_lists_tasks_and_acts() -> None:
    commands = [
        "--version",
        "tasks gym",
        f"rollout gym CartPole-v1 --checkpoint {SHIPPED} --episodes 1 --max-steps 20",
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = json.dumps(project["dependencies"])
    done = subprocess.run(
        [sys.executable, "-c", BARE, core, *commands], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "CartPole-v1" in done.stdout
