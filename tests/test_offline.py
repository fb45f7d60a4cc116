"""Offline data of others: recorded by Minari's collector, imported, trained on, asked for more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import offline
from generalist.cli.main import main
from generalist.envs import get_task
from generalist.errors import UsageError
from generalist.shards.reader import TaskData
from generalist.windows.mixture import open_mixture

HOPPER, WALKER = "gym/Hopper-v5", "gym/Walker2d-v5"  # untrained they fall within some 20 steps
STEPS = 60
SUITE = {"tasks": [HOPPER, WALKER], "episodes": 3, "prompted_episodes": 0, "videos": False}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sets of two tasks; the policies have learned for a few steps."""
    pytest.importorskip("jax", reason="Minari's DataCollector needs it")
    pytest.importorskip("stable_baselines3")
    folder = tmp_path_factory.mktemp("offline")
    tasks = ["--task", HOPPER, "--task", WALKER]
    small = ["--steps", str(STEPS), "--train-steps", "30", "--json", str(folder / "made.json")]
    offline.main(["make", "--out", str(folder / "data"), *tasks, *small])
    return folder


def rounded(value: float):
    """About this: shards keep rewards in single precision, Minari in double."""
    return pytest.approx(value, rel=1e-5, abs=1e-4)


def recorded(sets: Path, task: str, strength: str):
    import minari

    name = task.removeprefix("gym/")
    return minari.MinariDataset(str(sets / "data" / "minari" / name / f"{strength}-v0" / "data"))


@pytest.mark.parametrize("strength", offline.STRENGTHS)
def test_a_set_is_what_minari_recorded_and_each_record_says_how_strong(
    sets: Path, strength: str
) -> None:
    data, episodes = TaskData(sets / "data" / strength / HOPPER), recorded(sets, HOPPER, strength)
    assert len(data) == len(episodes) and data.steps == episodes.total_steps >= STEPS
    for record, episode in zip(data.records, episodes, strict=True):
        assert record["dataset"] == f"Hopper-v5/{strength}-v0"
        assert record["return"] == rounded(episode.rewards.sum())
        assert record["terminated"] and not record["truncated"]
    policy = {"random": "random", "half": "sac@15", "trained": "sac@30"}[strength]
    assert episodes.storage.metadata["algorithm_name"] == policy


def test_the_three_policies_are_three(sets: Path) -> None:
    first = [recorded(sets, HOPPER, strength)[0] for strength in offline.STRENGTHS]
    begun = {tuple(episode.observations[0]) for episode in first}
    acted = {tuple(episode.actions[0]) for episode in first}
    assert len(begun) == len(acted) == 3


def test_scores_of_the_data_are_those_that_minari_makes_of_them(sets: Path) -> None:
    import minari

    rows = json.loads((sets / "made.json").read_text())["rows"]
    assert {row["task"] for row in rows} == {HOPPER, WALKER} and len(rows) == 6
    for row in rows:
        episodes = recorded(sets, row["task"], row["who"].split("/")[1].removesuffix("-v0"))
        returns = np.array([episode.rewards.sum() for episode in episodes])
        assert row["episodes"] == len(returns) and row["mean"] == rounded(returns.mean())
        if row["task"] == HOPPER:
            wanted = 100 * minari.get_normalized_score(episodes, returns).mean()
            assert row["references"] == "D4RL"
        else:
            wanted = 100 * get_task(WALKER).normalized(returns.mean())
        assert row["score"] == rounded(wanted)


def test_sets_that_are_there_are_not_written_over(sets: Path) -> None:
    with pytest.raises(UsageError, match="holds sets already; delete"):
        offline.main(["make", "--out", str(sets / "data"), "--task", HOPPER])


def test_the_sets_of_a_task_share_its_weight_by_their_steps(sets: Path) -> None:
    mixture = open_mixture(sets / "data", {HOPPER: 3, WALKER: 1})
    weights = {(each.task, each.folder.parts[-3]): weight
               for each, weight in zip(mixture.tasks, mixture.weights, strict=True)}  # fmt: skip
    total = {
        task: sum(w for (own, _), w in weights.items() if own == task) for task in SUITE["tasks"]
    }
    assert total[HOPPER] == pytest.approx(3 * total[WALKER])
    steps = {each.folder.parts[-3]: each.steps for each in mixture.tasks if each.task == HOPPER}
    for strength in offline.STRENGTHS:
        share = weights[HOPPER, strength] / total[HOPPER]
        assert share == pytest.approx(steps[strength] / sum(steps.values()))


def test_a_checkpoint_is_asked_for_more_than_the_mean_and_scored_as_d4rl_does(
    sets: Path, tmp_path: Path, capsys
) -> None:
    keys = ["schedule={steps: 3}", "model.layers=1", "data.rows_per_step=2", "cores=1"]
    keys += ["data.rows_per_forward=2", "precision=fp32", "trackers=[]", f"data.root={sets}/data"]
    assert main(["train", "offline", *keys, f"output_dir={tmp_path}/run"]) == 0
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({**SUITE, "asked": [100]}))
    command = ["evaluate", f"{tmp_path}/suite.yaml", "--checkpoint", f"{tmp_path}/run/checkpoint"]
    command += ["--workers", "0"]
    assert main([*command, "--out", f"{tmp_path}/levels"]) == 0
    assert "On the scale of D4RL" in capsys.readouterr().out
    # Another report of the same episodes: they are counted once.
    given = ["--report", f"{tmp_path}/levels", "--report", f"{tmp_path}/levels"]
    out = tmp_path / "scores.json"
    offline.main(["scores", "--data", f"{sets}/data", *given, "--json", str(out)])
    found = json.loads(out.read_text())
    rows = {(row["task"], row["who"]): row for row in found["rows"]}
    ways = {"clone", "asked 100%"}
    strengths = {f"Hopper-v5/{strength}-v0" for strength in offline.STRENGTHS}
    assert {who for task, who in rows if task == HOPPER} == ways | strengths
    assert len(found["rows"]) == 2 * len(ways | strengths)
    assert offline._asked_for({"settings": {"wanted_return": "expert"}}) == "asked expert"
    for who in ways:
        hopper, walker = rows[HOPPER, who], rows[WALKER, who]
        scale = 100 / (3234.3 + 20.272305)
        assert hopper["score"] == pytest.approx((hopper["mean"] + 20.272305) * scale)
        assert walker["score"] == pytest.approx(100 * get_task(WALKER).normalized(walker["mean"]))
        assert hopper["episodes"] == 3 and hopper["cut"] is None
    assert {each["who"]: each["score"] for each in found["means"]} == {
        who: rows[HOPPER, who]["score"] for who in ways
    }
    report = json.loads((tmp_path / "levels" / "report.json").read_text())
    assert report["d4rl"] == {HOPPER: pytest.approx(rows[HOPPER, "clone"]["score"])}
    page = (tmp_path / "levels" / "report.html").read_text()
    assert "<h2>On the scale of D4RL</h2>" in page
    assert report["training"]["experts"][HOPPER] == "minari " + ", ".join(sorted(strengths))
    asked = next(each for each in report["rollouts"]
                 if "asked" in each and each["task"] == HOPPER)  # fmt: skip
    mean = np.mean([record["return"] for strength in offline.STRENGTHS
                    for record in TaskData(sets / "data" / strength / HOPPER).records])  # fmt: skip
    assert asked["asked_return"] > mean
