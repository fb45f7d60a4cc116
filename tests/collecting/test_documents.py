"""Documents: one that fails costs no other, and whatever interrupts it, each is there once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from generalist.collecting import collect as module
from generalist.collecting.collect import CollectReport, collect
from generalist.collecting.worker import Job, Worker
from generalist.envs import text
from generalist.errors import GeneralistError
from generalist.shards.manifest import Manifest
from generalist.shards.reader import TaskData
from generalist.shards.validate import validate
from generalist.tokenization.processor import GeneralistProcessor
from generalist.windows.spec import DatasetSpec, dataset_spec
from tests.collecting.test_collect import TOY, processor, toy

__all__ = ["processor"]

TASK = "text/pydoc"
NO_TEXT = "half of a pair: \ud800"  # no tokenizer takes it
COUNT = 200


def spec(episodes: int | None = None) -> DatasetSpec:
    task = {"task": TASK, "episodes": episodes}
    return dataset_spec({"shard_tokens": 2_000, "block_tokens": 500, "tasks": [task]})


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents of this test, to be changed by it; none is held out."""
    found = [f"This is document number {number}. " * 3 for number in range(COUNT)]
    monkeypatch.setattr(text, "documents", lambda task: list(found))
    return found


def collected(root: Path, processor: str, episodes: int | None = None) -> CollectReport:
    return collect(spec(episodes), root, 0, progress=False, processor=processor)


def check(root: Path, processor: str, expected: dict[int, str]) -> None:
    """Each of these documents is there once, and no other."""
    data, loaded = TaskData(root / TASK), GeneralistProcessor.from_pretrained(processor)
    numbers = [record["seed"] for record in data.records]
    assert sorted(numbers) == sorted(expected), Counter(numbers).most_common(3)
    for i, number in enumerate(numbers):
        assert loaded.decode_text(data.tokens(i)) == expected[number]
    assert validate(root).ok


def test_one_that_fails_costs_no_other_and_is_tried_again(
    tmp_path: Path, processor: str, texts: list[str]
) -> None:
    right = dict(enumerate(texts))
    bad = (0, 77, 78, 199)
    for number in bad:
        texts[number] = NO_TEXT
    for times in range(2):
        report = collected(tmp_path, processor)
        outcome = report.tasks[TASK]
        assert (outcome.episodes, outcome.added) == (196, 196 * (times == 0))
        assert [failure.split(":")[0] for failure in report.failures] == [
            f"{TASK}, document {number}" for number in bad
        ]
        failures = json.loads((tmp_path / TASK / "failures.json").read_text())
        assert failures == report.failures
        check(tmp_path, processor, {n: t for n, t in right.items() if n not in bad})
    for number in bad[:2]:
        texts[number] = right[number]
    report = collected(tmp_path, processor)
    assert report.tasks[TASK].added == 2 and len(report.failures) == 2
    for number in bad[2:]:
        texts[number] = right[number]
    assert collected(tmp_path, processor).tasks[TASK].added == 2
    check(tmp_path, processor, right)
    assert not (tmp_path / TASK / "failures.json").exists()
    assert collected(tmp_path, processor).tasks[TASK].added == 0


def test_a_batch_that_cannot_be_read_is_a_failure_and_not_left_out(
    without_frames: GeneralistProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(task: str) -> list[str]:
        raise OSError("the disk is away")

    monkeypatch.setattr(text, "documents", away)
    job = Job(spec().tasks[0], 64, documents=(64, 65))
    result = Worker(without_frames).run(job)
    assert not result.episodes and not result.rejections
    (failure,) = result.failures
    assert f"{TASK}, documents 64 to 65" in failure and "the disk is away" in failure


def test_an_empty_one_is_left_out_once(
    tmp_path: Path, processor: str, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts[5] = texts[199] = ""
    report = collected(tmp_path, processor)
    assert report.tasks[TASK].rejected == 2 and not report.failures
    check(tmp_path, processor, {n: t for n, t in enumerate(texts) if t})
    monkeypatch.delattr(module, "open_pool")  # nothing is left to do
    assert collected(tmp_path, processor).tasks[TASK].rejected == 0


def test_more_are_added_when_more_are_asked_for(
    tmp_path: Path, processor: str, texts: list[str]
) -> None:
    for episodes, total in ((30, 30), (100, 100), (40, 100), (None, COUNT)):
        collected(tmp_path, processor, episodes)
        check(tmp_path, processor, dict(enumerate(texts[:total])))


ENDED = """
import os, sys
from generalist.collecting.collect import collect
from tests.collecting.test_documents import spec

def progress(task, done, total):
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), int(sys.argv[4]))

if __name__ == "__main__":
    try:
        collect(spec(300), sys.argv[1], 0, progress=False, processor=sys.argv[2],
                on_progress=progress)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_ended_in_the_middle_it_continues(tmp_path: Path, processor: str, number: int) -> None:
    """Real documents: Ctrl-C loses nothing that was read, a kill no shard that was finished."""
    script = tmp_path / "script.py"
    script.write_text(ENDED)
    root, data = Path(__file__).parents[2], tmp_path / "data"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(script), str(data), processor, "128", str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    if number == signal.SIGINT:
        assert len(TaskData(data / TASK)) >= 128
    assert 0 < len(TaskData(data / TASK)) < 300
    collected(data, processor, 300)
    check(data, processor, dict(enumerate(text.documents(TASK)[:300])))


def test_what_another_process_has_written_meanwhile_is_not_written_twice(
    tmp_path: Path, processor: str, texts: list[str]
) -> None:
    """The jobs of a task are planned long before it is its turn."""
    both = dataset_spec({"tasks": [*toy(3).model_dump()["tasks"], {"task": TASK, "episodes": 150}]})

    def another(task: str, done: int, total: int) -> None:
        if (task, done) == (TOY, 1):
            collected(tmp_path, processor, 100)

    report = collect(both, tmp_path, 0, progress=False, on_progress=another, processor=processor)
    check_documents = dict(enumerate(texts[:150]))
    data = TaskData(tmp_path / TASK)
    assert sorted(r["seed"] for r in data.records) == sorted(check_documents)
    assert report.tasks[TASK].episodes == 150 and report.tasks[TASK].added == 50


def test_shards_that_are_missing_or_damaged_stop_it(
    tmp_path: Path, processor: str, texts: list[str]
) -> None:
    collected(tmp_path, processor, 100)
    shard = tmp_path / TASK / Manifest.read(tmp_path / TASK).shards[1].name
    shard.unlink()
    with pytest.raises(GeneralistError, match=f"{shard.name} is damaged"):
        collected(tmp_path, processor, 150)
