"""Every command and every piece of code in README.md and docs/ runs; links and trees are true."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from generalist.envs import list_tasks
from generalist.evaluation.suite import load_suite
from generalist.training.recipe import load_recipe
from generalist.windows.spec import load_dataset_spec
from tests.conftest import TinyRun
from tests.heldout import save_heldout_suite
from tests.hub import local_hub
from tests.importing.recorded import save_recordings
from tests.language_model import save_language_model
from tests.readme import (
    DOCS,
    NOT_RUN,
    PART_OF,
    README,
    ROOT,
    SPECS,
    SPEEDS,
    Block,
    blocks,
    package_paths,
    pages,
    shown_tree,
    tree_of,
)

PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks(page)]
RUNS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
LOADERS = {"recipe": load_recipe, "dataset": load_dataset_spec, "suite": load_suite}
README_BYTES, README_LINES = 12_288, 150
GENERATED = {
    "reference/commands.md",
    "reference/recipe.md",
    "reference/dataset.md",
    "reference/selfplay.md",
    "reference/suite.md",
    "results.md",
    "changelog.md",
}
"""Pages of the site that have no file here; docs/hooks.py makes them."""


ASKED_SUITE = """
tasks: [{task: gym/Pendulum-v1, max_steps: 20}]
episodes: 2
prompted_episodes: 0
videos: false
asked: [0, 100]
"""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def params(*languages: str, tests: tuple[str, ...] = SPEEDS) -> list:
    """One pytest parameter for each block of these languages that is tested so."""
    return [
        pytest.param(block, id=f"{name_of(block.page)}-line-{block.line}")
        for block in BLOCKS
        if block.test in tests and block.language in languages
    ]


def pages_for_a_shell() -> list:
    """One pytest parameter for each page with commands, or with a long block of Python."""
    mine = [b for b in BLOCKS if b.test in ("fast", "slow") and b.language in RUNS]
    found = {b.page for b in mine if b.language == "bash" or b.test == "slow"}
    return [pytest.param(page, id=name_of(page)) for page in PAGES if page in found]


def make_sandbox(folder: Path, tiny_run: TinyRun) -> Path:
    """A folder that looks like a clone after `make quickstart`, with a tiny model in it."""
    for name in ("examples", "recipes", "datasets"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(tiny_run.checkpoint, folder / "runs" / "quickstart" / "checkpoint")
    shutil.copytree(tiny_run.data, folder / "runs" / "quickstart" / "data")
    shutil.copy(tiny_run.dataset, folder / "tiny.yaml")
    save_heldout_suite(folder)
    (folder / "asked.yaml").write_text(ASKED_SUITE)
    return folder


def run(block: Block, folder: Path, **environment: str) -> str:
    result = subprocess.run(
        [*RUNS[block.language], block.code],
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
        f"{block.where} ended with {result.returncode}:\n{block.code}\n"
        f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    )
    return result.stdout


# Runs blocks one after the other in one process, each in the folder of its page: Python in a
# namespace of its own, shell line by line, where a line is a command of ours. So torch is loaded
# once. The slow test below runs the same lines in a real shell.
RUNNER = r"""
import json, os, shlex, sys, traceback
from generalist.cli.main import main

def command(line):
    program, *arguments = shlex.split(line, comments=True)
    assert program == "generalist", f"{line!r} is no command of ours: test it as slow"
    assert main(arguments) == 0, line

failed = []
for block in json.load(sys.stdin):
    os.chdir(block["folder"])
    try:
        if block["language"] == "bash":
            for line in block["code"].replace("\\\n", " ").splitlines():
                command(line)
        else:
            exec(compile(block["code"], block["where"], "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        failed.append(block["where"])
sys.exit(f"failed: {failed}" if failed else 0)
"""


def test_short_blocks_run(tmp_path: Path, tiny_run: TinyRun):
    """All short Python and all short commands of README and docs."""
    todo = []
    for number, page in enumerate(PAGES):
        mine = [b for b in blocks(page) if b.test == "fast" and b.language in RUNS]
        if not mine:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        make_sandbox(folder, tiny_run)
        for block in mine:
            told = {"code": block.code, "language": block.language, "where": block.where}
            todo.append({"folder": str(folder), **told})
    assert {each["language"] for each in todo} == set(RUNS)
    result = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(todo),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-6000:]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment variables that name a Hub of this machine's own."""
    with local_hub() as server:
        yield server.environment(tmp_path_factory.mktemp("hub"))


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("page", pages_for_a_shell())
def test_page_runs(page: Path, tmp_path: Path, tiny_run: TinyRun, hub: dict[str, str]):
    """All of a page from top to bottom, in one folder."""
    folder = make_sandbox(tmp_path, tiny_run)
    save_language_model(folder / "language_model")
    mine = [b for b in blocks(page) if b.test in ("fast", "slow") and b.language in RUNS]
    if any("recordings" in block.code for block in mine):
        save_recordings(folder / "recordings")
    for block in mine:
        run(block, folder, **(hub if "generalist push" in block.text else {}))


@pytest.fixture(scope="module")
def bare_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a newcomer has: the committed files and nothing else."""
    folder = tmp_path_factory.mktemp("clone") / "generalist"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", params("bash", tests=("make",)))
def test_make_works_in_a_bare_clone(block: Block, bare_clone: Path):
    """Installs for real. TESTS and QUICKSTART make the two jobs short, not other ones."""
    run(
        block,
        bare_clone,
        PYTHON=getattr(sys, "_base_executable", sys.executable),
        TESTS="tests/test_vocabulary.py",
        QUICKSTART="--smoke",
    )


def test_every_block_says_how_it_is_tested():
    for block in BLOCKS:
        if block.language in NOT_RUN:
            continue
        how = block.test or ""
        if block.language in RUNS and not how.startswith(PART_OF):
            assert how in SPEEDS, f"{block.where}: put <!-- test: fast -->, slow or make above it"
        else:
            assert how in SPECS or how.startswith(PART_OF), (
                f"{block.where}: {block.language}, {how}"
            )
        assert block.code


def test_python_parses():
    for block in BLOCKS:
        if block.language == "python":
            compile(block.code, block.where, "exec")


def test_shell_parses():
    code = "\n".join(block.code for block in BLOCKS if block.language == "bash")
    subprocess.run(["bash", "-n", "-c", code], check=True)


def test_parts_of_files_stand_in_them():
    found = [block for block in BLOCKS if (block.test or "").startswith(PART_OF)]
    assert found
    for block in found:
        file = ROOT / block.test.removeprefix(PART_OF)
        assert block.text in file.read_text(encoding="utf-8"), f"{block.where}: not in {file}"


def test_specs_are_read(tmp_path: Path):
    found = [block for block in BLOCKS if block.test in SPECS]
    assert found
    for number, block in enumerate(found):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block.code)
        LOADERS[block.test](file)


def test_readme_is_short():
    """Two minutes to read; everything else is in docs/."""
    text = README.read_text(encoding="utf-8")
    assert len(text.encode()) <= README_BYTES and text.count("\n") <= README_LINES


def test_readme_has_the_commands_to_begin_with():
    commands = "".join(b.text for b in BLOCKS if b.test == "make" and b.page == README)
    assert "make quickstart\n" in commands and "make test\n" in commands


def test_readme_counts_the_registered_tasks():
    text = README.read_text(encoding="utf-8")
    tasks = list_tasks()
    assert f"\n{len(tasks)} tasks are registered" in text
    for family, shown in re.findall(r"^\| `(\w+)` \| (\d+)\b", text, re.MULTILINE):
        assert int(shown) == len([task for task in tasks if task.family == family]), family


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path):
    """Pages of the site link within docs/ alone; what is generated has no file here."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        path = (page.parent / target).resolve()
        if page != README:
            assert path.is_relative_to(DOCS), f"{name_of(page)}: {target} is not on the site"
        if not (path.is_relative_to(DOCS) and str(path.relative_to(DOCS)) in GENERATED):
            assert path.exists(), f"{name_of(page)}: there is no {target}"


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
    with pytest.raises(ValueError, match="README.md:2"):
        _ = block.code


def test_a_block_without_its_comment_is_seen(tmp_path: Path):
    path = tmp_path / "README.md"
    path.write_text("```bash\nfalse\n```\n\n<!-- test: slow -->\n```bash\ntrue\n```\n")
    assert [block.test for block in blocks(path)] == [None, "slow"]
