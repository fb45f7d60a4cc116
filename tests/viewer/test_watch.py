"""watch.html: recorded episodes on a page that needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from generalist.acting.hub import SHIPPED
from generalist.cli.main import main
from generalist.errors import GeneralistError, UsageError
from generalist.specs import spec_folder
from generalist.training.card import card_scores, write_model_card
from generalist.viewer.page import json_in_html
from generalist.viewer.record import record
from generalist.viewer.scores import best_first, scores_of
from generalist.viewer.watch import Show, of_all_families, tasks_to_show, write_watch_page
from tests.conftest import TinyRun

CARTPOLE, PENDULUM = "gym/CartPole-v1", "gym/Pendulum-v1"


def data_of(page: str) -> dict:
    (text,) = re.findall('<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


@pytest.fixture(scope="module")
def page(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a tiny model in the flat form, whose card has no scores."""
    out = tmp_path_factory.mktemp("watch") / "page.html"
    show = Show(tiny_run.checkpoint, (CARTPOLE, PENDULUM), max_steps=12)
    write_watch_page(show, out, name="tiny", workers=0)
    return out.read_text()


def test_the_page_needs_nothing_else(page: str):
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "@import" not in page
    assert "https://" not in page and not re.findall("%[A-Z]+%", page)
    assert page.count('<script type="text/plain" id="film-') == 2


def test_the_page_has_what_was_seen_and_chosen_at_each_step(page: str):
    cartpole, pendulum = data_of(page)["tasks"]
    assert cartpole["task"] == CARTPOLE and pendulum["ended"] == "cut"
    assert len(pendulum["moments"]) == 12
    moment = cartpole["moments"][0]
    assert len(moment["words"]) == len(cartpole["legend"]["fields"]) == len(moment["ids"])
    words = [cartpole["lexicon"][number] for number in moment["words"]]
    assert moment["action"] in ("push left", "push right") and "" in words
    assert cartpole["return"] == len(cartpole["moments"])
    assert cartpole["scores"]["expert"] == 500
    assert cartpole["header"][0]["value"] == "begin" and cartpole["legend"]["form"] == "flat"


def test_a_recording_repeats(model):
    one, other = (
        record(model.agent, model.beliefs, CARTPOLE, seed=7, max_steps=20) for _ in range(2)
    )
    assert one.moments == other.moments and one.film == other.film
    assert one.return_ == 20 and one.film[4:8] == b"ftyp"


def test_scores_come_from_the_card():
    found = scores_of(spec_folder("checkpoints") / SHIPPED, [CARTPOLE, "gym/Acrobot-v1"])
    cartpole = found[CARTPOLE]
    assert cartpole.mean is not None and cartpole.interval is not None
    assert cartpole.interval[0] <= cartpole.mean <= cartpole.interval[1]
    assert cartpole.random < 40 and cartpole.expert == 500 and cartpole.episodes >= 10
    assert found["gym/Acrobot-v1"].to_dict()["agent"] is None


def test_a_return_without_a_normalised_score_is_neither_ranked_nor_told_as_one(tmp_path: Path):
    """As of episodes that were cut: the card has their mean, and no normalised score of it."""
    row = {"mean": 400.0, "episodes": 5, "random": 20.0, "expert": 500.0}
    whole = {**row, "suite": "b", "normalized": 0.25, "mean": 140.0}
    (tmp_path / "README.md").write_text("# A card\n")
    scores = {CARTPOLE: whole, PENDULUM: {**row, "suite": "b"}}
    write_model_card(tmp_path, scores)
    write_model_card(tmp_path, {CARTPOLE: {**row, "suite": "cut"}})
    assert best_first(tmp_path, [PENDULUM, CARTPOLE]) == [CARTPOLE, PENDULUM]
    found = {task: each.to_dict() for task, each in scores_of(tmp_path, list(scores)).items()}
    assert found[CARTPOLE]["agent"]["normalized"] == 0.25 and found[CARTPOLE]["random"] == 20
    assert found[CARTPOLE]["agent"]["mean"] == 140
    assert found[PENDULUM]["agent"]["normalized"] is None and found[PENDULUM]["expert"] == 500


def test_tasks_are_of_many_families():
    assert of_all_families(["a/1", "a/2", "a/3", "b/1", "c/1"], 4) == ["a/1", "a/2", "b/1", "c/1"]
    shown = tasks_to_show(SHIPPED)
    assert len(shown) == 9
    rows = card_scores((spec_folder("checkpoints") / SHIPPED / "README.md").read_text())
    normalised = {task: float(row["normalized"]) for (task, _), row in rows.items()
                  if row.get("normalized") and "(" not in task}  # fmt: skip
    for family in {task.partition("/")[0] for task in normalised}:
        mine = [task for task in shown if task.startswith(f"{family}/")]
        best = max(each for task, each in normalised.items() if task.startswith(f"{family}/"))
        assert normalised[mine[0]] == best
    with pytest.raises(UsageError, match="it plays .*gym/CartPole-v1"):
        tasks_to_show(SHIPPED, ["gym/Acrobot-v1"])


def test_a_task_that_fails_costs_itself_alone(tiny_run: TinyRun, tmp_path: Path, monkeypatch):
    from generalist.viewer import record as recording

    def fail(*given, **options):
        if given[2] == PENDULUM:
            raise GeneralistError("its joints are stuck.")
        return record(*given, **options)

    monkeypatch.setattr(recording, "record", fail)
    out = tmp_path / "page.html"
    show = Show(tiny_run.checkpoint, (CARTPOLE, PENDULUM), max_steps=2)
    lines: list[str] = []
    write_watch_page(show, out, name="tiny", workers=0, on_task=lines.append)
    assert any("its joints are stuck" in line for line in lines)
    data = data_of(out.read_text())
    assert len(data["tasks"]) == 1 and "its joints are stuck" in data["notes"][-1]
    with pytest.raises(GeneralistError, match="No task could be played"):
        write_watch_page(Show(tiny_run.checkpoint, (PENDULUM,)), out, name="", workers=0)


def test_no_text_of_a_task_ends_the_script():
    assert json.loads(json_in_html({"a": "</script><b>"})) == {"a": "</script><b>"}
    assert "<" not in json_in_html("</script>")


def test_the_command_names_its_file(tiny_run: TinyRun, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["watch", CARTPOLE, "--steps", "3", "--workers", "0", "--picture", "two.webp"]
    assert main([*arguments, "--checkpoint", str(tiny_run.checkpoint)]) == 0
    assert "watch.html" in capsys.readouterr().out
    assert data_of((tmp_path / "watch.html").read_text())["tasks"][0]["task"] == CARTPOLE
    picture = (tmp_path / "two.webp").read_bytes()
    assert picture[:4] == b"RIFF" and b"ANIM" in picture[:60] and len(picture) < 2_000_000
