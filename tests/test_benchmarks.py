"""The programs in benchmarks/: that they run, and that what they report is what it is called."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    ablations,
    acting,
    backgrounds,
    board_laws,
    boards,
    environments,
    forecast,
    foresight,
    frame_codes,
    imitation,
    memory,
    planning,
    priors,
    reading,
    returns,
    scaling,
    sharding,
    tokenizing,
    training,
)
from benchmarks.acting_peers import GeneratePeer, LoopPeer
from benchmarks.patch_embedding import PatchEmbedding
from generalist import envs
from generalist.modeling.build import build_model
from generalist.shards.reader import TaskData
from generalist.tokenization.outcomes import RewardBins, TaskWorld
from generalist.tokenization.processor import GeneralistProcessor
from generalist.tokenization.returns import TaskReturns
from generalist.training.reinforcement.unrolls import Played
from generalist.windows.mixture import open_mixture
from tests.conftest import TinyRun
from tests.decoding.models import compact_agent


def test_imitation_reports_every_task_of_every_folder(tiny_run: TinyRun, tmp_path: Path, capsys):
    out = tmp_path / "out.json"
    arguments = [str(tiny_run.checkpoint), str(tiny_run.data), str(tiny_run.data)]
    imitation.main([*arguments, "--rows", "8", "--json", str(out)])
    found = json.loads(out.read_text())
    assert [each["task"] for each in found] == [*tiny_run.tasks] * 2
    assert found[:2] == found[2:], "the rows of a folder are not the same twice"
    buttons, numbers = found[:2]
    assert buttons["r2"] is None and 0 <= buttons["accuracy"] <= 1
    assert numbers["accuracy"] is None and numbers["r2"] < 1
    assert "gym/Pendulum-v1" in capsys.readouterr().out


def test_backgrounds_report_both_ways_of_coding_a_picture(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(backgrounds, "EPISODES", 1)
    out = tmp_path / "out.json"
    backgrounds.main(["gym/examples.courier:SeenCourier-v0", "--json", str(out)])
    black, fitted = json.loads(out.read_text())["rows"]
    assert (black["background"], fitted["background"]) == ("black", "fitted")
    assert black["still"] == 0 and fitted["still"] > 0.7, "a white page with two small things on it"
    assert fitted["psnr"] > black["psnr"] + 5


def test_returns_that_were_asked_for_are_compared_with_what_was_got(
    tiny_run: TinyRun, tmp_path: Path
):
    task = tiny_run.tasks[0]

    def report(name: str, *results: dict) -> list[str]:
        (tmp_path / name / "results").mkdir(parents=True)
        for number, result in enumerate(results):
            own = {"task": task, "prompted": False, "instruction": "own", **result}
            (tmp_path / name / "results" / f"{number}.json").write_text(json.dumps(own))
        return [f"--{name}", str(tmp_path / name)]

    levels = [
        {"returns": [10.0, 12.0]},
        *(
            {"asked": 50.0 * n, "asked_return": n, "returns": [5.0 * n, 5.0 * n + 1]}
            for n in range(3)
        ),
    ]
    given = report("asked", *levels) + report("expert", {"returns": [90.0, 91.0]})
    # Rows of other instructions are none of these.
    given += report(
        "clone", {"returns": [0.0, 0.1], "instruction": "none"}, {"returns": [9.0, 13.0]}
    )
    given += report("best", {"returns": [500.0, 501.0]})
    out = tmp_path / "out.json"
    returns.main(["asked", "--data", str(tiny_run.data), *given, "--json", str(out)])
    nothing, expert, best = json.loads(out.read_text())["tasks"]
    assert [each["asked"] for each in (nothing, expert, best)] == ["nothing", "expert", "100%"]
    assert (nothing["got"], expert["got"], best["got"]) == (11, 90.5, 10.5)
    assert expert["above_clone"] and not expert["not_below_best_tenth"]
    assert not nothing["above_clone"] and nothing["rank_correlation"] == pytest.approx(1)


def test_values_are_read_of_every_step(tiny_run: TinyRun, tmp_path: Path):
    task, out = tiny_run.tasks[1], tmp_path / "out.json"
    own = TaskReturns(0.0, 100.0, 0.99, 256, ((0.0, 0.0), (100.0, 50.0)))
    compact_agent(task, returns=own).save_pretrained(tmp_path / "agent")
    given = ["--data", str(tiny_run.data), "--checkpoint", str(tmp_path / "agent")]
    given += ["--plot", str(tmp_path / "values.svg")]
    returns.main(["values", *given, "--episodes", "2", "--json", str(out)])
    (found,) = json.loads(out.read_text())["tasks"]
    data = next(each for each in open_mixture(tiny_run.data).tasks if each.task == task)
    assert found["steps"] == data.row(0).steps + data.row(1).steps
    groups = found["reliability"]
    assert sum(each["steps"] for each in groups) == found["steps"] and len(groups) == 10
    assert all(each["interval"] is None or each["episodes"] == 2 for each in groups)
    assert ">Pendulum-v1<" in (tmp_path / "values.svg").read_text()
    exact, one = np.linspace(0, 100, 50), np.zeros(50, int)
    assert returns.judge(task, exact, exact, one, own).correlation == pytest.approx(1)
    assert returns.judge(task, exact, exact + 10, one, own).distance == pytest.approx(0.1)


def test_games_that_were_left_out_are_compared_by_their_intervals(tmp_path: Path):
    def report(name: str, **tasks: dict) -> Path:
        (tmp_path / name).mkdir()
        scores = {
            task: {way: {"mean": sum(at) / 2, "interval": at} for way, at in ways.items()}
            for task, ways in tasks.items()
        }
        (tmp_path / name / "report.json").write_text(json.dumps({"scores": scores}))
        return tmp_path / name

    ways = {"fine-tuned": [8.0, 10.0], "from-scratch": [0.0, 8.5]}
    other = {"fine-tuned": [6.0, 7.0], "from-scratch": [0.0, 1.0]}
    asked = report("asked", Pong=ways, Alien={"fine-tuned": [1.0, 2.0]})
    clone, out = report("clone", Pong=other, Alien=other), tmp_path / "out.json"
    returns.main(["transfer", "--asked", str(asked), "--clone", str(clone), "--json", str(out)])
    (row,) = json.loads(out.read_text())["tasks"]
    assert (row["task"], row["fine_tuned"], row["clone_from_scratch"]) == ("Pong", 9, 0.5)
    assert row["above_clone"] and not row["above_from_scratch"]


def test_predicted_states_are_compared_with_what_happened(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Pendulum's speed is nearly linear over a step; an untrained model knows nothing of it."""
    task, out = tiny_run.tasks[1], tmp_path / "out.json"
    own = TaskReturns(-100.0, 0.0, 0.99, 256, ((-100.0, -90.0), (0.0, 0.0)))
    world = TaskWorld(own, RewardBins.fit(np.linspace(-16, 0, 99), 256))
    agent = compact_agent(task, world=world, context_steps=12)
    agent.save_pretrained(tmp_path / "agent")
    given = ["--train", str(tiny_run.data), "--heldout", str(tiny_run.data), "--json", str(out)]
    monkeypatch.setattr(foresight, "STEPS", (1, 5))
    foresight.main(["--checkpoint", str(tmp_path / "agent"), *given, "--beginnings", "4"])
    one, five = json.loads(out.read_text())["errors"]
    assert (one["task"], one["steps"], five["steps"]) == (task, 1, 5)
    assert 0 < one["repeat"] < five["repeat"] and one["linear"] < one["repeat"]
    assert one["linear"] < 0.1 < one["model"] and one["beginnings"] == 4
    data = next(each for each in open_mixture(tiny_run.data).tasks if each.task == task)
    coded = foresight.Coded(data.layout, agent.processor.toolbox)
    row = data.row(0)
    whole = foresight._stretch(data, row, 0, row.steps)
    states = coded.states(whole.observed)
    after = foresight.Linear(data, coded).after(states[:-1], coded.actions(whole.done[:-1]))
    assert np.abs(after - states[1:]).mean(axis=0)[2] < 0.2 * states[:, 2].std()


def test_r2_is_one_for_the_labels_and_zero_for_their_mean():
    label = np.random.default_rng(0).normal(size=500)
    exact = imitation._prediction(Path(), "a/b", [np.stack([label, label], 1)], None)
    constant = np.full_like(label, label.mean())
    mean = imitation._prediction(Path(), "a/b", [np.stack([constant, label], 1)], None)
    assert exact.r2 == pytest.approx(1) and mean.r2 == pytest.approx(0)
    assert exact.labels == 500


@pytest.mark.slow  # plays a game of Freeway with each of two clones
def test_every_way_to_show_a_frame_is_cloned_and_played(tmp_path: Path):
    out = tmp_path / "out.json"
    arguments = ["--game", "Freeway", "--codes", "64", "--codes", "0", "--tflops", "0.05"]
    small = ["--episodes", "2", "--max-steps", "150", "--games", "1", "--tokenizer-steps", "5"]
    frame_codes.main([*arguments, *small, "--json", str(out)])
    codes, patches = json.loads(out.read_text())["clones"]
    assert (codes["frame"], patches["frame"]) == ("64 codes", "36 patches")
    for each in (codes, patches):
        assert each["labels"] >= 64 and math.isfinite(each["nats"]) and 0 <= each["right"] <= 1
        assert 0 <= each["least"] <= each["mean"] <= each["most"] <= 40


def test_a_decision_sees_frames_of_its_own_episode():
    starts = np.array([0, 0, 0, 3, 3])
    shown = frame_codes.Shown(np.zeros(5), np.zeros(5), starts, held_out=3)
    assert shown.seen(np.array([0, 2, 3, 4]), 2).tolist() == [[0, 0], [1, 2], [3, 3], [3, 4]]


def test_embedded_patches_know_where_they_stand():
    embed = PatchEmbedding(16).eval()
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    frames[1] = np.tile(frames[1, :16, :16], (6, 6, 1))  # the same patch everywhere
    with torch.no_grad():
        vectors = embed(torch.from_numpy(frames))
        again = embed(torch.from_numpy(frames[1:]))
    assert vectors.shape == (2, 36, 16)
    assert torch.allclose(vectors[1:], again, atol=1e-5), "positions are drawn in evaluation"
    assert (torch.cdist(vectors[1], vectors[1]) + torch.eye(36) > 1e-3).all()


def test_the_acting_benchmark_compares_equal_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(acting, "installed", lambda: False)  # tests/test_llama.py has llama.cpp
    out = tmp_path / "out.json"
    arguments = ["--size", "1M", "--window", "96", "--rounds", "8", "--batch", "2"]
    acting.main([*arguments, "--json", str(out)])
    (found,) = json.loads(out.read_text())["sizes"]
    subjects = {each["subject"]: each for each in found["timings"]}
    many = {"decoder", "compact", "generate"}
    assert set(subjects) == many | {f"{name} x 2" for name in many} | {"loop", "crop", "recompute"}
    assert "llama.cpp is left out" in capsys.readouterr().out
    assert found["facts"]["largest_logit_difference"] < 1e-4 * found["facts"]["logit_spread"]
    decoder, peer = subjects["decoder"], subjects["generate"]
    assert 0 < decoder["least_ms"] <= decoder["median_ms"] <= decoder["p99_ms"]
    assert found["facts"]["times_generate"] == pytest.approx(
        peer["median_ms"] / decoder["median_ms"]
    )
    assert decoder["gain"] == 1 and subjects["decoder x 2"]["gain"] > 0


def test_the_cached_peers_choose_the_same_tokens():
    vocabulary = GeneralistProcessor.default().vocabulary
    model = build_model(acting.SIZES["1M"], vocabulary, 96).eval()
    generate, loop = (Peer(model, vocabulary, 96, 2) for Peer in (GeneratePeer, LoopPeer))
    for _ in range(6):  # cut back to half a window on the way
        generate.step()
        loop.step()
        assert np.array_equal(generate.tokens, loop.tokens)
    assert (loop.tokens[0] != loop.tokens[1]).any(), "environments see the same"


def test_the_training_benchmark_compares_equal_losses(tiny_run: TinyRun, tmp_path: Path):
    out = tmp_path / "out.json"
    arguments = ["--size", "1M", "--window", "192", "--rows", "2", "--rounds", "2"]
    training.main([str(tiny_run.data), *arguments, "--json", str(out)])
    (found,) = json.loads(out.read_text())["sizes"]
    losses = {each["subject"]: each["loss"] for each in found["timings"]}
    assert losses.pop("compact") > 0  # of other rows
    halves = [losses.pop(name) for name in ("segments, bf16", "labels, bf16")]
    assert losses == pytest.approx(dict.fromkeys(("segments", "rows", "labels"), losses["labels"]))
    assert halves == pytest.approx(2 * [losses["labels"]], rel=0.01)


def test_the_reading_benchmark_measures_every_subject(tiny_run: TinyRun, tmp_path: Path):
    out = tmp_path / "out.json"
    arguments = ["--window", "128", "--rows", "20", "--rounds", "1"]
    reading.main([str(tiny_run.data), *arguments, "--json", str(out)])
    found = json.loads(out.read_text())
    speed = {each["subject"]: each["per_second"] for each in found["rates"]}
    assert set(speed) == {"reader", "memmap", "webdataset", "windows"}
    assert found["facts"]["times_webdataset"] == pytest.approx(
        speed["reader"] / speed["webdataset"]
    )


def test_all_readers_deliver_the_rows_of_the_shards(tiny_run: TinyRun, tmp_path: Path):
    window = 100
    stored = []
    for task in tiny_run.tasks:  # in the order of their folders
        for path in sorted((tiny_run.data / task).glob("*.tar")):
            with tarfile.open(path) as tar:
                for name in tar.getnames():
                    if name.endswith(".tokens.npy"):
                        tokens = np.load(io.BytesIO(tar.extractfile(name).read()))
                        whole = len(tokens) // window
                        stored += list(tokens[: whole * window].reshape(whole, window))
    rows = reading.Rows(open_mixture(tiny_run.data).tasks, window)
    assert len(rows) == len(stored)
    order = reading.draw(len(rows), 30, seed=1)
    assert len(set(order)) == 30 and order != sorted(order)
    sources = [
        lambda: (rows[number] for number in order),
        reading.memmap_source(rows, order, tmp_path / "rows.bin"),
        reading.webdataset_source(rows, order, tmp_path / "rows.tar"),
    ]
    expected = np.stack([stored[number] for number in order])
    for source in sources:
        for _ in range(2):  # a source gives its rows at every call
            out = np.zeros_like(expected)
            assert np.array_equal(reading.deliver(source, out), expected)
    with pytest.raises(RuntimeError, match="webdataset does not deliver"):
        reading.check("webdataset", expected[::-1], expected)


def test_the_memory_benchmark_reads_and_packs_what_it_made(tiny_run: TinyRun, tmp_path: Path):
    full = memory.fill_shards(tiny_run.data, tmp_path / "full", 30_000)
    large = memory.enlarge(full, tmp_path / "large", 5)
    for task in tiny_run.tasks:
        one, whole, five = (TaskData(root / task) for root in (tiny_run.data, full, large))
        tokens = whole.index.counts["tokens"]
        assert 30_000 <= tokens and five.index.counts["tokens"] == 5 * tokens
        again = len(one) % len(whole)
        assert np.array_equal(whole.tokens(again), one.tokens(again % len(one)))
        own = {"offset": whole.record(again)["offset"]}
        assert whole.record(again) == one.record(again % len(one)) | own
    assert min(memory.make_index(large)) >= 0
    seconds, *gained = memory.open_and_read(large, 128)
    assert seconds > 0 and len(gained) == 3 and min(gained) >= 0
    assert memory.pack(large, 128, 64)[2] > 0


def test_memory_is_seen_at_its_peak():
    """In a process of its own: here, what earlier tests held may be freed in the same moment."""
    program = (
        "import numpy as np\n"
        "from benchmarks.memory import Peak\n"
        "peak = Peak()\n"
        "held = np.ones(2**23)\n"  # 64 MiB
        "peak.look()\n"
        "del held\n"
        "print(peak.gained[0])\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 60 < float(said.stdout) < 100, said.stderr


@pytest.mark.slow
def test_collecting_is_watched_process_by_process(tmp_path: Path):
    found = memory.measure_collecting("gym/CartPole-v1", 300, tmp_path)
    assert len(TaskData(tmp_path / "gym/CartPole-v1")) == 300
    assert "writes" in {each.process for each in found} and len(found) >= 3
    assert all(each.second_half > 1 for each in found)


def test_a_folder_is_enlarged_without_copies(tiny_run: TinyRun, tmp_path: Path):
    large = memory.enlarge(tiny_run.data, tmp_path / "large", 4)
    for task in tiny_run.tasks:
        one, four = TaskData(tiny_run.data / task), TaskData(large / task)
        assert len(four) == 4 * len(one)
        assert np.array_equal(four.tokens(len(four) - 1), one.tokens(len(one) - 1))
        assert all(path.is_symlink() for path in (large / task).glob("*.tar"))


def slow_codes(name: str, step: np.ndarray, bins: int) -> list[int]:
    """The codes of one step's values, one after the other, in Python's own arithmetic."""
    if name == "grid":
        cells = step.reshape(-1, 3).tolist()
        return [(kind * 6 + colour) * 3 + state for kind, colour, state in cells]
    values = step.ravel().tolist()
    if name == "discrete":
        return values
    if name == "mu-law":
        values = [
            math.copysign(math.log(abs(x) * 100 + 1) / math.log(256 * 100 + 1), x) for x in values
        ]
    return [min(max(math.floor((x + 1) / 2 * bins), 0), bins - 1) for x in values]


@pytest.mark.parametrize("name", ["mu-law", "uniform", "discrete", "grid"])
def test_a_codec_its_peer_and_a_slow_loop_agree(name: str):
    bins = 1024
    case = tokenizing.cases(bins, steps=40)[name]
    expected = [slow_codes(name, step, bins) for step in case.values]
    toolbox = GeneralistProcessor.default().toolbox
    assert case.codec.encode(case.values, toolbox).tolist() == expected
    assert case.peer().tolist() == expected
    assert len(np.unique(expected)) > 10


def test_the_tokenizing_benchmark_compares_equal_codes(tmp_path: Path):
    out = tmp_path / "out.json"
    tokenizing.main(["--steps", "20", "--frames", "4", "--rounds", "1", "--json", str(out)])
    found = json.loads(out.read_text())
    for part, names in (
        ("codecs", ("mu-law", "uniform", "discrete", "grid")),
        ("frames", tokenizing.GAMES),
        ("episodes", tokenizing.EPISODES),
    ):
        subjects = {each["subject"] for each in found[part]["rates"]}
        peers = set() if part == "episodes" else {f"{name}, peer" for name in names}
        assert subjects == {*names} | peers
        same = "same ids" if part == "episodes" else "same codes"
        assert all(found[part]["facts"][f"{name}, {same}"] > 0.999 for name in names)


def test_codes_that_differ_are_noticed():
    codes = np.arange(1000).reshape(10, 100)
    assert tokenizing.agreement("frames", codes, codes) == 1
    with pytest.raises(RuntimeError, match="only 0.00% of the codes"):
        tokenizing.agreement("frames", codes, codes + 1)


def test_random_play_gives_as_many_frames_as_asked_for():
    frames = tokenizing.frames_of("atari/Breakout", 200)  # more than one game of it
    assert (
        frames.shape == (200, 84, 84, 3) and (frames != frames[0]).any(axis=(1, 2, 3)).sum() > 100
    )


@pytest.mark.parametrize(
    ("task", "steps"),
    [
        ("gym/LunarLander-v3", 300),
        ("dmc/cartpole-balance", 30),
        ("babyai/GoToLocal", 1000),
        ("atari/Breakout", 300),
    ],
)
def test_the_bare_simulator_plays_the_same_episodes(task: str, steps: int):
    env = envs.make(task)
    env.action_space.seed(1)
    actions = [env.action_space.sample() for _ in range(steps)]
    ours = environments.act(environments.Gym(env), actions)
    bare = environments.act(environments.bare(task, env), actions)
    env.close()
    assert np.allclose(ours, bare) and ours.any()


def test_the_environments_benchmark_splits_a_rollout(tmp_path: Path):
    out = tmp_path / "out.json"
    tasks = ["gym/CartPole-v1", "dmc/reacher-easy"]
    arguments = [word for task in tasks for word in ("--task", task)]
    arguments += ["--steps", "20", "--envs", "2", "--rollout-steps", "3", "--rounds", "1"]
    environments.main([*arguments, "--json", str(out)])
    found = json.loads(out.read_text())
    assert [each["task"] for each in found["tasks"]] == tasks
    for each in found["tasks"]:
        assert {rate["subject"] for rate in each["rates"]} == {"ours", "bare"}
        assert 0 < each["outside_agent"] < each["outside_model"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("learns", ["imitation", "reinforcement", "two actors"])
def test_kills_lose_nothing(tiny_run: TinyRun, tmp_path: Path, learns: str):
    """As a program of its own: it forks, which the process of the tests should not."""
    out = tmp_path / "out.json"
    what = {"imitation": [str(tiny_run.data)], "two actors": ["--actors", "2"]}.get(learns, [])
    command = [sys.executable, "-m", "benchmarks.crashes", *what, "--kills", "3"]
    subprocess.run([*command, "--steps", "12", "--json", str(out)], check=True)
    found = json.loads(out.read_text())
    assert found["kills"] == 3 and found["starts"] == found["runs"] + 3
    assert found["largest_difference"] == found["damaged"] == found["failed_starts"] == 0
    assert found["left_behind"] == 0


def test_an_unroll_comes_late_and_its_episodes_at_once():
    numbers = iter(range(9))

    def play() -> Played:
        number = next(numbers)
        return Played(number, [f"episode {number}"], 10)

    late = ablations.Late(play, 2)
    assert late() == Played(0, ["episode 0", "episode 1", "episode 2"], 30)
    assert late() == Played(1, ["episode 3"], 10)
    at_once = ablations.Late(play, 0)
    assert at_once() == Played(4, ["episode 4"], 10)


def test_all_rows_of_an_ablation_play_as_many_steps(tmp_path: Path):
    for setting in (each for rows in ablations.EXPERIMENTS.values() for each in rows):
        recipe, late = ablations.recipe_for(setting, 30_000, 0, tmp_path)
        updates = recipe.reinforcement.passes * recipe.reinforcement.minibatches
        assert late * updates == setting.lag_updates in (0, 16)
        unrolls = recipe.schedule.steps / updates + late
        assert unrolls == round(30_000 / (3 * 16 * 32)), setting.name


@pytest.mark.slow
def test_the_ablations_go_on_from_their_file(tmp_path: Path, capsys):
    out = tmp_path / "out.json"
    arguments = ["scales", "--steps", "13000", "--json", str(out)]
    ablations.main(arguments)
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 6 and {row["steps"] for row in rows} == {8 * 3 * 16 * 32}
    assert all(row["returns"]["minatar/Freeway"] is not None for row in rows)
    out.write_text(json.dumps({"rows": rows[1:]}))
    capsys.readouterr()
    ablations.main(arguments)
    again = json.loads(out.read_text())["rows"]
    assert again[1:] == rows[1:] and again[0]["returns"] == rows[0]["returns"]
    assert capsys.readouterr().out.count("seed 0:") == 1, "a row that is there was run again"


def test_half_the_games_is_no_elo_and_ten_times_the_odds_are_400():
    assert board_laws.elo_above(0.5, 200) == 0
    assert board_laws.elo_above(10 / 11, 10**9) == pytest.approx(400, abs=1e-3)
    best, worst = (board_laws.elo_above(score, 200) for score in (1.0, 0.0))
    assert best == pytest.approx(-worst) and best < 1100


@pytest.mark.slow
def test_networks_for_all_boards_and_of_all_sizes_meet(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(board_laws, "BOARDS", ("TicTacToe", "Hex-3x3"))
    monkeypatch.setattr(board_laws, "LADDER_BOARD", "TicTacToe")
    monkeypatch.setattr(board_laws, "WIDTHS", (16, 32, 48, 64, 96))
    out = tmp_path / "out.json"
    options = ["--games", "20", "--met", "4", "--simulations", "3", "--json", str(out)]
    for experiment, rows in (("together", 2), ("sizes", 5)):
        arguments = [experiment, "--out", str(tmp_path / "laws"), *options]
        board_laws.main(arguments)
        found = json.loads(out.read_text())
        assert len(found["rows"]) == rows
        with monkeypatch.context() as patched:
            patched.setattr(board_laws, "selfplay", None)  # what is there is not trained again
            board_laws.main(arguments)
        assert json.loads(out.read_text()) == found
    counts = [row["parameters"] for row in found["rows"]]
    assert counts == sorted(counts) and len(set(counts)) == 5


@pytest.mark.slow
def test_sharding_trains_the_same_under_each(tiny_run: TinyRun, tmp_path: Path):
    out = tmp_path / "out.json"
    small = ["model.hidden_size=32", "model.intermediate_size=64", "model.heads=2"]
    small += ["model.layers=2", "data.window_tokens=64"]
    arguments = [str(tiny_run.data), *small, "--config", "ddp", "--config", "fsdp2"]
    sharding.main([*arguments, "--steps", "6", "--json", str(out)])
    one, other = json.loads(out.read_text())["strategies"]
    assert (one["config"], one["times_first"]) == ("ddp", 1)
    assert other["last_loss"] == pytest.approx(one["last_loss"], abs=1e-5)
    for each in (one, other):
        assert each["step_seconds"] > 0
        assert 0 < each["in_use_mib"] < each["peak_mib"] <= each["run_mib"]


def test_the_fit_finds_the_rates_that_made_the_times():
    rates = {"layers": 3e-5, "rows": 1e-5, "weights": 1e-10, "tokens": 5e-11, "keys": 2e-10}
    rng = np.random.default_rng(0)
    points = []
    for number in range(40):
        layers, parameters, environments = rng.integers([2, 10**6, 1], [12, 3 * 10**7, 16])
        found = {
            "layers": 6.0 * layers,
            "rows": 6.0 * layers * environments,
            "weights": 24.0 * parameters,
            "tokens": 48.0 * parameters * environments,
            "keys": float(environments * rng.integers(10**6, 10**8)),
        }
        seconds = sum(rates[part] * amount for part, amount in found.items())
        points.append(scaling.Point(str(number), 1, int(environments), 6, found, 1e3 * seconds))
    assert scaling.fit(points) == pytest.approx(rates, rel=1e-6)
    assert sum(point.held_out for point in points) == 10
    assert max(point.error for point in points) < 1e-6


def test_the_scaling_benchmark_counts_what_the_decoder_does(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(scaling, "ENVIRONMENTS", (1, 2))
    out = tmp_path / "out.json"
    arguments = ["--size", "1m", "--window", "64", "--window", "96", "--rounds", "2"]
    scaling.main([*arguments, "--json", str(out)])
    found = json.loads(out.read_text())
    assert len(found["points"]) == 8 and all(rate >= 0 for rate in found["rates"].values())
    for point in found["points"]:
        layers, amounts = 4, point["amounts"]
        assert amounts["layers"] == point["action_tokens"] * layers
        assert amounts["rows"] == amounts["layers"] * point["environments"]
        context = amounts["keys"] / (2 * amounts["rows"] * 128 * 4)
        assert point["window"] / 3 < context <= point["window"]


def test_the_forecast_is_its_formula():
    device = forecast.Device(1e12, 1e15, 80e9, 4e11, 5e10, 0.5, 0.25)
    body, layers, width, window = 1_176_608_768, 24, 2048, 1024
    keys = 2 * layers * width * 2
    one = forecast.acting("1.18b", device, 1, 18, 6)
    assert one.bound == "bytes"
    assert one.step_ms == pytest.approx(1e3 * 6 * (2 * body + 768 * keys) / 5e11)
    assert one.memory_gb == pytest.approx((2 * body + 2 * window * keys) / 1e9)
    slower = replace(device, flops=5e14)
    many = forecast.acting("1.18b", slower, 256, 18, 6)
    first, later = 2 * body * 256 * (1.5 * 24 - 5) / 1.25e14, (2 * body + 256 * 768 * keys) / 5e11
    assert many.step_ms == pytest.approx(1e3 * (first + 5 * later)) and first > later
    assert many.bound == "bytes, first pass FLOPs" and not many.fits
    compact = forecast.acting_compact("1.18b", device, 256, 6, 16)
    assert compact.step_ms == pytest.approx(1e3 * 2 * body * 256 * 1.5 * 6 / 2.5e14)
    alone = forecast.acting_compact("1.18b", device, 1, 6, 16)
    assert alone.step_ms == pytest.approx(1e3 * (2 * body + 72 * keys) / 5e11)
    steps = {n: forecast.training("1.18b", device, "ZeRO 2", n) for n in (1, 8)}
    assert steps[1].communication_seconds == 0
    assert steps[1].compute_seconds == pytest.approx(8 * steps[8].compute_seconds)
    total = 1_200_267_264
    assert steps[8].communication_seconds == pytest.approx(4 * total * 7 / 8 / 4e11)
    more = forecast.training("1.18b", device, "ZeRO 3", 8)
    assert more.communication_seconds == pytest.approx(1.5 * steps[8].communication_seconds)
    assert forecast.storage(10, 1, 20, 18, 6).tokens == 10 * 72_000 * 25


def test_the_planning_benchmark_goes_on_from_its_log(tmp_path: Path):
    out, log = tmp_path / "out.json", tmp_path / "log.jsonl"
    arguments = ["control", "dmc/pendulum-swingup", "--budget", "4", "--random-episodes", "1"]
    arguments += ["--log", str(log), "--json", str(out)]
    planning.main(arguments)
    (row,) = json.loads(out.read_text())["rows"]
    assert row["episodes"] == 1 and row["steps"] == 1000
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    planning.main(arguments)
    assert log.read_text().splitlines() == lines and json.loads(out.read_text())["rows"] == [row]
    planning.main([*arguments, "--budget", "3"])
    budgets = [each["budget"] for each in json.loads(out.read_text())["rows"]]
    assert budgets == [4, 3] and len(log.read_text().splitlines()) == len(lines) + 1
    with pytest.raises(SystemExit):
        planning.main(["control", "dmc/lqr-lqr_2_1"])


def test_a_search_is_measured_beside_the_planner_of_as_many_steps(monkeypatch, tmp_path: Path):
    task, out = "gym/CartPole-v1", tmp_path / "rows.json"
    agent = compact_agent(task)
    monkeypatch.setattr(priors, "checkpoint_tasks", lambda folder: [task])
    monkeypatch.setattr(priors.Agent, "from_pretrained", lambda *given, **options: agent)
    priors.main(
        ["given", task, "--plan", "tree:simulations=2,horizon=4", "--episodes", "2",
         "--max-steps", "5", "--json", str(out)]
    )  # fmt: skip
    alone, tree, planner = json.loads(out.read_text())["rows"]
    assert [row["decisions"] for row in (alone, tree, planner)] == [10] * 3
    assert alone["simulated"] == 0 and alone["who"] == "alone"
    assert 4 < tree["simulated"] <= 4 + 2 * 4 and tree["who"].startswith("tree:simulations=2")
    assert planner["who"] == f"planner@{round(tree['simulated'])}"


def test_what_passes_in_planning():
    assert planning.beats_random(50.0, 10.0) and not planning.beats_random(49.0, 10.0)
    assert planning.beats_random(620.0, 320.0) and not planning.beats_random(619.0, 320.0)
    assert not planning.beats_random(0.0, 0.0)
    assert planning.human_normalised("atari/Boxing", 4.3) == pytest.approx(1.0)
    assert planning.human_normalised("atari/Krull", 1598.0) == 0.0
    assert len(planning.CONTROL) == 28 and len(planning.ATARI) == 10
    assert set(planning.CONTROL) | set(planning.ATARI) <= {task.name for task in envs.list_tasks()}


def test_boards_reports_every_subject(tmp_path: Path):
    pytest.importorskip("pyspiel")
    out = tmp_path / "boards.json"
    arguments = ["--board", "TicTacToe", "--games", "8", "--seconds", "0.2", "--json", str(out)]
    boards.main(arguments)
    rates = json.loads(out.read_text())["simulations_per_second"]
    assert set(rates) == {"selfplay", "search", "openspiel"}
    assert all(rate > 0 for rate in rates.values())
