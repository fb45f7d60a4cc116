"""Suites and reports, on a real checkpoint: resumable task by task, one self-contained file."""

from __future__ import annotations

import json
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from generalist.cli.main import main
from generalist.errors import GeneralistError, MissingPackageError, UsageError
from generalist.evaluation.measure import evaluate
from generalist.evaluation.report import training_log, write_report
from generalist.evaluation.suite import Evaluation, Job, Suite, SuiteTask, jobs, load_suite
from generalist.specs import list_specs
from tests.conftest import TinyRun

SUITE = {
    "episodes": 2,
    "prompted_episodes": 1,
    "prompts": 1,
    "videos": False,
    "tasks": ["gym/CartPole-v1", {"task": "gym/Pendulum-v1", "prompted_episodes": 0}],
}
FILES = ["gym-CartPole-v1.json", "gym-CartPole-v1.prompted.json", "gym-Pendulum-v1.json"]


@pytest.fixture
def suite() -> Suite:
    return Suite.model_validate(SUITE)


def modified(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((folder / "results").iterdir())}


@pytest.mark.parametrize("name", list_specs("suites"))
def test_every_shipped_suite_loads_and_names_its_command(name):
    from generalist.specs import find_spec

    assert load_suite(name).tasks
    first = find_spec("suites", name).read_text().splitlines()[0]
    assert first.startswith(f"# generalist evaluate {name}")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"episods": 3}, ["episods", "'episodes'"]),
        ({"tasks": ["gym/CartPool-v1"]}, ["gym/CartPool-v1", "gym/CartPole-v1"]),
        ({"tasks": [{"task": "gym/CartPole-v1", "sticky": 0.1}]}, ["tasks.0.sticky"]),
        ({"tasks": [{"task": "gym/CartPole-v1", "max_steps": 0}]}, ["tasks.0.max_steps"]),
        ({"tasks": []}, ["tasks"]),
        ({"tasks": ["gym/CartPole-v1", "gym/CartPole-v1"]}, ["gym/CartPole-v1", "2 times"]),
        ({"tasks": [{"task": "gym/CartPole-v1", "instruction": "no"}]}, ["tasks.0.instruction"]),
        ({"tasks": [{"task": "text/pydoc", "instruction": "none"}]}, ["text/pydoc", "documents"]),
    ],
)
def test_mistakes_in_a_suite_are_named(change, words, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump({**SUITE, **change}))
    with pytest.raises(UsageError) as error:
        load_suite(path)
    for word in words:
        assert word in str(error.value)


def test_documents_are_not_prompted_and_settings_are_inherited():
    suite = Suite.model_validate({"tasks": ["text/pydoc", "gym/CartPole-v1"], "episodes": 7})
    planned = [(job.entry.task, job.prompted, job.episodes) for job in jobs(suite)]
    assert planned == [
        ("text/pydoc", False, 7), ("gym/CartPole-v1", False, 7), ("gym/CartPole-v1", True, 20),
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupted_evaluation_continues_task_by_task(
    suite, tiny_run: TinyRun, tmp_path, workers
):
    def stop_after_two(number: int, *_: object) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(
            tiny_run.checkpoint,
            suite,
            tmp_path,
            on_result=stop_after_two,
            progress=False,
            workers=workers,
        )
    before = modified(tmp_path)
    assert len(before) == 2

    seen = []
    evaluation = evaluate(
        tiny_run.checkpoint, suite, tmp_path, progress=False, workers=1,
        on_result=lambda number, total, result, there: seen.append((number, total, there)),
    )  # fmt: skip
    assert seen == [(1, 3, True), (2, 3, True), (3, 3, False)]
    after = modified(tmp_path)
    assert sorted(after) == FILES
    assert {name: after[name] for name in before} == before
    assert [score.task for score in evaluation.scores()] == ["gym/CartPole-v1", "gym/Pendulum-v1"]
    assert [score.episodes for score in evaluation.scores(prompted=True)] == [1]

    # A damaged result and one of other settings are measured anew, the rest stays.
    (tmp_path / "results" / FILES[0]).write_text('{"task": ')
    suite.prompts = 2
    evaluate(tiny_run.checkpoint, suite, tmp_path, progress=False, workers=1)
    again = modified(tmp_path)
    assert [name for name in FILES if again[name] != after[name]] == FILES[:2]


def test_results_are_the_same_side_by_side_and_in_the_order_of_the_suite(
    suite, tiny_run: TinyRun, tmp_path
):
    suite.tasks[1].max_steps = 20
    runs = [
        evaluate(
            tiny_run.checkpoint, suite, tmp_path / str(workers), progress=False, workers=workers
        )
        for workers in (1, 2)
    ]
    alone, together = (
        [{k: v for k, v in r.items() if "second" not in k} for r in e.results] for e in runs
    )
    assert alone == together
    assert [(r["task"], r["prompted"]) for r in together] == [
        ("gym/CartPole-v1", False), ("gym/Pendulum-v1", False), ("gym/CartPole-v1", True),
    ]  # fmt: skip


def test_a_task_too_long_for_prompts_is_skipped_with_the_reason(
    tiny_run: TinyRun, tmp_path, capsys, monkeypatch
):
    """The window of 128 tokens leaves 32 for a demonstration; a timestep of BabyAI has 52."""
    import generalist.acting.prompts

    monkeypatch.delattr(generalist.acting.prompts, "demonstrations")  # said before any is played
    suite, out, result = tmp_path / "my.yaml", tmp_path / "out", tmp_path / "result.json"
    checkpoint = shutil.copytree(tiny_run.checkpoint, tmp_path / "checkpoint")
    task = {"task": "babyai/GoToLocal", "max_steps": 3}
    suite.write_text(yaml.safe_dump({**SUITE, "tasks": [task]}))
    command = ["evaluate", str(suite), "--checkpoint", str(checkpoint),
               "--out", str(out), "--json", str(result), "--workers", "1"]  # fmt: skip
    reason = "a timestep of 52 tokens does not fit a quarter of the window of 128"
    for _ in range(2):  # the second time from what the first wrote
        assert main(command) == 0
        line = f"[2/2] babyai/GoToLocal prompted zero-shot: skipped because {reason}"
        assert line in capsys.readouterr().err.splitlines()
        report = json.loads(result.read_text())
        (skipped,) = report["skipped"]
        assert (skipped["task"], skipped["prompted"]) == ("babyai/GoToLocal", True)
        assert skipped["skipped"] == reason
        assert len(report["scores"]) == 1 and report["scores_prompted"] == []
        assert reason in parse(out / "report.html").text

    command = ["rollout", "babyai", "GoToLocal", "--checkpoint", str(checkpoint)]
    assert main([*command, "--episodes", "1", "--prompt-episodes", "1"]) == 1
    assert f"cannot begin with a demonstration: {reason}." in capsys.readouterr().err


def test_episodes_can_be_cut_and_the_report_says_so(suite, tiny_run: TinyRun, tmp_path):
    suite.tasks, suite.prompted_episodes = suite.tasks[1:], 0  # Pendulum's own limit is 200
    whole = evaluate(tiny_run.checkpoint, suite, tmp_path, progress=False)
    assert whole.rollouts[0]["lengths"] == [200, 200] and whole.rollouts[0]["options"] == {}
    assert whole.scores()[0].normalized is not None
    suite.tasks[0].max_steps = 9
    cut = evaluate(tiny_run.checkpoint, suite, tmp_path, progress=False)
    assert cut.rollouts[0]["lengths"] == [9, 9]
    report = write_report(cut, tmp_path)
    assert report["rollouts"][0]["options"] == {"max_steps": 9}
    assert report["scores"][0]["normalized"] is None and report["scores"][0]["above_random"] is None
    said = "gym/Pendulum-v1, because its episodes were cut after 9 steps"
    assert said in parse(tmp_path / "report.html").text


def test_zero_shot_is_marked_and_what_does_not_fit_the_model_is_skipped(
    tiny_run: TinyRun, tmp_path, capsys
):
    """A timestep of Humanoid has 366 tokens, the window 128."""
    suite, out = tmp_path / "my.yaml", tmp_path / "out"
    checkpoint = shutil.copytree(tiny_run.checkpoint, tmp_path / "checkpoint")
    names = ("gym/Acro*", "gym/Humanoid-v5", "gym/CartPole*")
    short = {"episodes": 1, "prompted_episodes": 0}
    suite.write_text(yaml.safe_dump({**SUITE, **short, "tasks": list(names)}))
    command = ["evaluate", str(suite), "--checkpoint", str(checkpoint), "--zero-shot",
               "--out", str(out), "--workers", "1"]  # fmt: skip
    assert main(command) == 0
    assert "gym/Acrobot-v1 zero-shot: return" in capsys.readouterr().err
    report = json.loads((out / "report.json").read_text())
    assert [each["task"] for each in report["scores"]] == ["gym/Acrobot-v1", "gym/CartPole-v1"]
    assert report["zero_shot"] == ["gym/Acrobot-v1"] and report["reached"]["tasks"] == 2
    (skipped,) = report["skipped"]
    assert skipped["task"] == "gym/Humanoid-v5" and "does not fit" in skipped["skipped"]
    text = parse(out / "report.html").text
    assert "Never trained on: gym/Acrobot-v1" in text and "How many tasks" in text
    assert "gym/Humanoid-v5 was not acted in: " in text


@pytest.mark.slow
def test_many_tasks_continue_after_kill_9(tiny_run: TinyRun, tmp_path):
    """Results that were there are kept, the one under way is measured again, none is half."""
    import signal
    import subprocess
    import sys
    import time

    checkpoint = shutil.copytree(tiny_run.checkpoint, tmp_path / "checkpoint")
    entries = [{"task": "gym/*", "max_steps": 30}, {"task": "dmc/*", "max_steps": 30}]
    suite, out = tmp_path / "many.yaml", tmp_path / "out"
    suite.write_text(yaml.safe_dump({**SUITE, "zero_shot": True, "prompted_episodes": 0,
                                     "tasks": entries}))  # fmt: skip
    command = [sys.executable, "-m", "generalist", "evaluate", str(suite), "--workers", "1",
               "--checkpoint", str(checkpoint), "--out", str(out)]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list((out / "results").glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = modified(out)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = modified(out)
    assert 3 <= len(before) < len(after) and {n: after[n] for n in before} == before
    assert done.stderr.count("from before") == len(before)
    report = json.loads((out / "report.json").read_text())
    assert len(report["scores"]) + len(report["skipped"]) == len(after)


def test_other_weights_are_measured_anew(suite, tiny_run: TinyRun, tmp_path):
    from safetensors.numpy import load_file, save_file

    suite.tasks = suite.tasks[:1]
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_run.checkpoint, checkpoint)
    evaluate(checkpoint, suite, tmp_path, progress=False, workers=1)
    before = modified(tmp_path)
    weights = load_file(checkpoint / "model.safetensors")
    save_file({name: array * 1.5 for name, array in weights.items()},
              checkpoint / "model.safetensors", {"format": "pt"})  # fmt: skip
    (checkpoint / "manifest.json").unlink()  # which says of these weights that they are damaged
    evaluate(checkpoint, suite, tmp_path, progress=False, workers=1)
    assert all(modified(tmp_path)[name] != before[name] for name in before)


def test_a_missing_package_for_videos_is_said_before_anything_is_measured(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "imageio", None)
    suite = Suite(tasks=[SuiteTask(task="gym/CartPole-v1")], videos=True)
    with pytest.raises(MissingPackageError, match="Filming needs"):
        evaluate(tiny_run.checkpoint, suite, tmp_path, progress=False, workers=1)
    assert not list(tmp_path.rglob("*.json"))


def test_no_checkpoint_is_said(suite, tmp_path):
    with pytest.raises(GeneralistError, match="not a checkpoint to act with"):
        evaluate(tmp_path, suite, tmp_path)


class _Page(HTMLParser):
    """Checks that tags are closed in order, and collects what the page loads from elsewhere."""

    VOID = {"meta", "br", "img", "link", "input", "hr", "path", "use", "line", "rect"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.counts: dict[str, int] = {}
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parse(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text())
    assert page.open == []
    return page


def test_evaluate_writes_one_file_that_needs_nothing_else(tiny_run: TinyRun, tmp_path, capsys):
    suite, out, result = tmp_path / "my.yaml", tmp_path / "out", tmp_path / "result.json"
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_run.checkpoint, checkpoint)
    suite.write_text(yaml.safe_dump({**SUITE, "videos": True, "tasks": ["gym/CartPole-v1"]}))
    assert main(["evaluate", str(suite), "--checkpoint", str(checkpoint),
                 "--out", str(out), "--json", str(result), "--workers", "1"]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "gym/CartPole-v1" in printed and "report.html" in printed

    page = parse(out / "report.html")
    assert "gym/CartPole-v1" in page.text and page.counts["video"] == 1
    assert all(source.startswith(("#", "data:")) for source in page.sources), page.sources
    report = json.loads(result.read_text())
    assert report == json.loads((out / "report.json").read_text())
    (score,) = report["scores"]
    assert score["episodes"] == 2 and len(score["values"]) == 2
    assert report["rollouts"][0]["seeds"] == [1_000_000, 1_000_001]
    assert report["training"]["steps"] == 20
    card = (checkpoint / "README.md").read_text()
    (row,) = [line for line in card.splitlines() if line.startswith("| gym/CartPole-v1")]
    assert f"{score['mean']:.3g}" in row and "Not evaluated yet" not in card


def test_names_are_escaped_and_text_is_reported(tmp_path):
    text = {
        "task": "text/pydoc", "instruction": "own", "prompted": False,
        "bits_per_byte": 2.5, "documents": 3,
        "trigram_bits_per_byte": 3.0, "xz_bits_per_byte": 2.0, "heldout_bytes": 10,
        "train_bytes": 100, "sample_prompt": "a <b>", "sample": "</code><script>x</script>",
    }  # fmt: skip
    report = write_report(Evaluation("s", "no <where>", [text]), tmp_path)
    page = parse(tmp_path / "report.html")
    assert "script" not in page.counts and "no <where>" in page.text and "2.500" in page.text
    assert report["texts"] == [text] and report["aggregate"]["tasks"] == []


def test_a_resumed_run_shows_each_step_once(tmp_path):
    rows = [(10, 3.0), (20, 2.0), (30, 1.9), (20, 2.1), (30, 1.8)]
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in rows]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 40, "lo')
    log = training_log(tmp_path / "checkpoint")
    assert [(row["step"], row["loss"]) for row in log] == [(10, 3.0), (20, 2.1), (30, 1.8)]


def test_results_of_two_returns_never_have_one_file() -> None:
    entry = SuiteTask(task="gym/CartPole-v1")
    files = {Job(entry, 1, False, asked).file for asked in (50.0, 33.3333333, 33.3333334)}
    assert len(files) == 3 and "gym-CartPole-v1.asked-50.json" in files
