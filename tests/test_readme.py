"""Every command and every piece of code in README.md runs; its file tree is the true one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TinyRun
from tests.heldout import save_heldout_suite
from tests.hub import local_hub
from tests.importing.recorded import save_recordings
from tests.language_model import save_language_model
from tests.readme import (
    NOT_RUN,
    README,
    ROOT,
    SPEEDS,
    Block,
    blocks,
    package_paths,
    shown_tree,
    tree_of,
)

BLOCKS = blocks(README)


def params(*languages: str, speeds: tuple[str, ...] = SPEEDS) -> list:
    """One pytest parameter for each block of these languages and speeds."""
    return [
        pytest.param(block, id=f"line-{block.line}")
        for block in BLOCKS
        if block.speed in speeds and block.language in languages
    ]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, tiny_run: TinyRun) -> Path:
    """A folder that looks like a clone after `make quickstart`, with a tiny model in it."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("examples", "recipes"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(tiny_run.checkpoint, folder / "runs" / "quickstart" / "checkpoint")
    shutil.copytree(tiny_run.data, folder / "runs" / "quickstart" / "data")
    shutil.copy(tiny_run.dataset, folder / "tiny.yaml")
    save_language_model(folder / "language_model")
    save_heldout_suite(folder)
    return folder


@pytest.fixture(scope="module")
def recordings(sandbox: Path) -> None:
    """Small datasets for the importers, made by the libraries they are from."""
    save_recordings(sandbox / "recordings")


def run(block: Block, folder: Path, **environment: str) -> str:
    interpreter = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    result = subprocess.run(
        [*interpreter[block.language], block.code],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, (
        f"README line {block.line} ended with {result.returncode}:\n{block.code}\n"
        f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    )
    return result.stdout


@pytest.mark.parametrize("block", params("bash", "python", speeds=("fast",)))
def test_block_runs(block: Block, sandbox: Path):
    run(block, sandbox)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment variables that name a Hub of this machine's own."""
    with local_hub() as server:
        yield server.environment(tmp_path_factory.mktemp("hub"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("block", params("bash", "python", speeds=("slow",)))
def test_long_block_runs(block: Block, sandbox: Path, recordings: None, hub: dict[str, str]):
    run(block, sandbox, **(hub if "generalist push" in block.text else {}))


@pytest.fixture(scope="module")
def bare_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a newcomer has: the committed files and nothing else."""
    folder = tmp_path_factory.mktemp("clone") / "generalist"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", params("bash", speeds=("make",)))
def test_make_works_in_a_bare_clone(block: Block, bare_clone: Path):
    """Installs for real. TESTS and QUICKSTART make the two jobs short, not other ones."""
    run(
        block,
        bare_clone,
        PYTHON=getattr(sys, "_base_executable", sys.executable),
        TESTS="tests/test_vocabulary.py",
        QUICKSTART="--smoke",
    )


@pytest.mark.parametrize(
    "block", [pytest.param(b, id=f"line-{b.line}") for b in BLOCKS if b.language not in NOT_RUN]
)
def test_block_says_how_it_is_tested(block: Block):
    assert block.speed in SPEEDS, (
        f"README line {block.line}: put <!-- test: fast -->, <!-- test: slow --> or "
        f"<!-- test: make --> above this block."
    )
    assert block.language in ("bash", "python", "yaml")
    assert block.code


@pytest.mark.parametrize("block", params("python"))
def test_python_blocks_parse(block: Block):
    compile(block.code, "README.md", "exec")


@pytest.mark.parametrize("block", params("bash"))
def test_shell_blocks_parse(block: Block):
    subprocess.run(["bash", "-n", "-c", block.code], check=True)


@pytest.mark.parametrize("block", params("yaml"))
def test_yaml_blocks_are_files_that_the_commands_use(block: Block):
    files = [*(ROOT / "examples").glob("*.yaml"), *(ROOT / "datasets").glob("*.yaml")]
    used = [file for file in files if file.read_text(encoding="utf-8") == block.text]
    assert used, "a YAML block must be a file of examples/ or datasets/, word for word"
    shell = "".join(b.text for b in BLOCKS if b.language == "bash")
    assert any(file.name in shell for file in used)


def test_readme_has_the_two_commands():
    commands = "".join(block.text for block in BLOCKS if block.speed == "make")
    assert "make quickstart\n" in commands and "make test\n" in commands


def test_links_lead_somewhere():
    text = README.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_file_tree_names_what_there_is():
    """Each path of the tree exists, and every module of the package is in it."""
    shown = tree_of(shown_tree().text)
    assert [path for path in shown if not (ROOT / path).exists()] == []
    missing = {str(path) for path in package_paths()} - shown.keys()
    assert not missing, f"run `python -m tests.readme`; the tree lacks {sorted(missing)}"
    assert [path for path, text in shown.items() if not text and path != "generalist"] == []


def test_file_tree_is_read_by_its_indentation():
    text = "a/\n  b.py   does b\n  c/     holds\n    d.py  does d\ne.py  does e\n"
    assert tree_of(text) == {
        "a": "",
        "a/b.py": "does b",
        "a/c": "holds",
        "a/c/d.py": "does d",
        "e.py": "does e",
    }


def test_a_replacement_that_finds_nothing_is_an_error(tmp_path: Path):
    path = tmp_path / "README.md"
    path.write_text('<!-- test: fast; "b" -> "c" -->\n```bash\necho a\n```\n')
    (block,) = blocks(path)
    with pytest.raises(ValueError, match="line 2"):
        _ = block.code


def test_a_block_without_its_comment_is_seen(tmp_path: Path):
    path = tmp_path / "README.md"
    path.write_text("```bash\nfalse\n```\n\n<!-- test: slow -->\n```bash\ntrue\n```\n")
    assert [block.speed for block in blocks(path)] == [None, "slow"]
