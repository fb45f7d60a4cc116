"""Scores of what is said of pictures: counts by form, beside those who do not look."""

from __future__ import annotations

from pathlib import Path

import pytest

from generalist.acting.rollout import rollout
from generalist.collecting.collect import collect
from generalist.evaluation.measure import evaluate
from generalist.evaluation.report import write_report
from generalist.evaluation.sections import speaking_section
from generalist.evaluation.speaking import ALL, all_cells, rows_of
from generalist.evaluation.suite import Suite
from generalist.shards.reader import TaskData
from generalist.tokenization.processor import load_processor
from generalist.training.loop import train
from generalist.training.recipe import load_recipe
from generalist.windows.spec import dataset_spec


def statement(form: str, truth: str, said: str) -> dict[str, str | None]:
    return {"form": form, "asked": "?", "truth": truth, "said": said}


SAID = [
    statement("count", "1", "1"),
    statement("count", "2", "2"),
    statement("there", "yes", "no"),
    statement("there", "yes", "yes"),
]
BLIND = [statement(each["form"] or "", each["truth"] or "", "1") for each in SAID]


def test_counts_are_those_of_each_form_and_of_all() -> None:
    rows = rows_of(SAID, BLIND, {"count": "2", "there": "yes"})
    assert list(rows) == [ALL, "count", "there"]
    counts = {form: [row["pictures"], *(row[who]["count"] for who in ("right", "frequent",
              "other_picture"))] for form, row in rows.items()}  # fmt: skip
    assert counts == {ALL: [4, 3, 3, 1], "count": [2, 2, 1, 1], "there": [2, 1, 2, 0]}
    low, high = rows["there"]["right"]["interval"]
    assert low == pytest.approx(0.0126, abs=1e-3) and high == pytest.approx(0.9874, abs=1e-3)


def test_captions_have_one_form_and_one_row() -> None:
    said = [statement("caption", "a red key", "a red key")]
    rows = rows_of(said, said, {"caption": "a blue box"})
    (row,) = all_cells([{"task": "caption/BabyAI", "speaking": rows}, {"task": "gym/X"}])
    assert row[:4] == ("caption/BabyAI", ALL, "1", "1.000")


def test_there_is_no_section_where_nothing_is_said() -> None:
    assert speaking_section([{"task": "gym/X"}]) == ""


def test_from_pictures_to_a_report(tmp_path: Path) -> None:
    """The whole path on a few pictures: shards, training, text, scores."""
    spec = {
        "noise": 0,
        "processor": "pictures",
        "tasks": [{"task": f"{family}/BabyAI", "episodes": 12} for family in ("caption", "vqa")],
    }
    data, run = tmp_path / "data", tmp_path / "run"
    collect(dataset_spec(spec), data, workers=0)
    stored = TaskData(data / "vqa" / "BabyAI", processor := load_processor("pictures"))
    episode = processor.decode(stored.tokens(3), stored.layout)
    truth = rollout("truth", "vqa/BabyAI", episodes=1, seed=3, progress=False).statements[0]
    assert episode.actions.tolist() == [truth["truth"]]
    assert stored.record(3)["instruction"] == truth["asked"]
    changes = [
        f"data.root={data}", f"output_dir={run}", "schedule.minutes=null", "schedule.steps=2",
        "model.hidden_size=16", "model.intermediate_size=16", "model.layers=1", "trackers=[]",
    ]  # fmt: skip
    train(load_recipe("captions", changes))
    suite = Suite(tasks=["caption/BabyAI", "vqa/BabyAI"], episodes=6, videos=False)  # type: ignore[list-item]
    evaluation = evaluate(run / "checkpoint", suite, tmp_path / "out", workers=0, progress=False)
    assert not evaluation.failed
    report = write_report(evaluation, tmp_path / "out")
    for each in report["rollouts"]:
        assert len(each["statements"]) == 6 == each["speaking"][ALL]["pictures"]
        assert each["mean"] == each["speaking"][ALL]["right"]["share"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What is said of pictures" in page and "another picture" in page
