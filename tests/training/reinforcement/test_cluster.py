"""Reinforcement with actors on a real Ray of this machine: lost, overdue, resumed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from functools import partial

import numpy as np
import pytest
import torch

from generalist.acting.agent import Agent
from generalist.envs import make
from generalist.errors import GeneralistError, UsageError
from generalist.modeling.values import start_values
from generalist.shards.validate import validate
from generalist.training.loop import train
from generalist.training.reinforcement.cluster import Cluster
from generalist.training.reinforcement.fleet import Fleet
from generalist.training.reinforcement.recipe import ReinforcementRecipe
from generalist.training.reinforcement.timesteps import Shower
from generalist.training.reinforcement.unrolls import play_unroll
from tests.decoding.models import compact_agent
from tests.training.reinforcement.conftest import CARTPOLE, GOTO
from tests.training.reinforcement.test_fleet import seed_of
from tests.training.reinforcement.test_recorder import folders

BOARD = "board/TicTacToe"


def players() -> list[int]:
    """Processes of this test's Ray that play, the oldest first."""
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ray::Player" in " ".join(child.cmdline()):
                found.append((child.create_time(), child.pid))
    return [pid for _, pid in sorted(found)]


@pytest.mark.slow
def test_actors_play_as_here_and_one_that_dies_or_hangs_is_replaced():
    tasks = (CARTPOLE, GOTO, BOARD)
    agent = compact_agent(*tasks)
    agent.model.values = start_values("categorical", tasks, agent.model.config.hidden_size)
    wanted = ReinforcementRecipe(tasks={task: {} for task in tasks}, unroll=30)
    options = {
        "makers": [partial(make, task) for task in tasks], "counts": [4] * 3, "seed_of": seed_of,
    }  # fmt: skip

    def shower() -> Shower:
        return Shower(agent.processor, agent.model.embedders.form, agent.layouts)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(7)

    fleet = Fleet(shower(), agent.processor, **options)
    fleet.begin()
    first = torch.Generator().manual_seed(int(torch.randint(2**62, (1,), generator=generator())))
    here = play_unroll(agent.model, fleet, wanted, random=first)
    alone = Cluster(shower(), agent.processor, address="local", actors=1, **options)
    try:
        there = alone.play(agent.model, wanted, random=generator(), version=0)
    finally:
        alone.close()
    assert there.finished == here.finished and there.steps == here.steps == 12 * 30
    one, two = here.unroll.arrays(), there.unroll.arrays()
    assert one.keys() == two.keys() and one["usable"].all()
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=1e-5, atol=1e-5, err_msg=name)

    both = Cluster(shower(), agent.processor, address="local", actors=2, **options)
    try:
        random, came = generator(), np.zeros(12, int)
        for step in range(8):
            played = both.play(agent.model, wanted, random=random, version=step)
            usable = played.unroll.usable
            assert usable.sum() in (6, 12) and played.steps == usable.sum() * 30
            assert (played.unroll.log_probs[usable].sum(axis=1) < 0).all()
            assert not played.unroll.log_probs[~usable].any()
            came += usable
        assert came.min() > 0 and not both.failures
        before = both._episodes.copy()

        def until_all_came() -> None:
            came[:] = 0
            while not came.all():
                came[:] += both.play(agent.model, wanted, random=random, version=9).unroll.usable

        doomed, hanging = players()
        os.kill(doomed, signal.SIGKILL)
        until_all_came()
        assert len(both.failures) == 1 and "is lost (ActorDiedError)" in both.failures[0]
        os.kill(hanging, signal.SIGSTOP)
        end = time.monotonic() + 300
        both._patience = 20
        while len(both.failures) < 2:
            both.play(agent.model, wanted, random=random, version=10)
            assert time.monotonic() < end
        assert "gave no unroll in 20 seconds" in both.failures[1]
        both._patience = 300
        until_all_came()
        assert len(both.failures) == 2 and (both._episodes > before).all()
    finally:
        both.close()
    assert players() == []


@pytest.mark.slow
def test_a_run_goes_on_without_one_of_its_actors_and_is_resumed(
    make_run, tmp_path, monkeypatch, capfd
):
    tasks = {
        CARTPOLE: {"environments": 4, "options": {"max_steps": 20}},
        "gym/Pendulum-v1": {"environments": 4, "options": {"max_steps": 20}},
    }
    wanted = {"tasks": tasks, "actors": 2, "ray": "local", "record": tmp_path / "played"}
    wanted |= {"kl": 0.1, "unroll": 20}
    checkpoint = {"every_steps": 20, "every_minutes": None, "keep": 2}
    calls, play = [], Cluster.play

    def with_a_loss(self, *arguments, **options):
        calls.append(0)
        if len(calls) == 4:
            os.kill(players()[0], signal.SIGKILL)
        return play(self, *arguments, **options)

    monkeypatch.setattr(Cluster, "play", with_a_loss)
    run = make_run(wanted, checkpoint=checkpoint, schedule={"steps": 48, "warmup_steps": 2})
    folder = train(run)
    said = capfd.readouterr()
    assert "is lost (ActorDiedError); another begins the next episodes" in said.out + said.err
    row = json.loads((run.output_dir / "log.jsonl").read_text().splitlines()[-1])
    assert row["failures"] == 1 and row["environment_steps"] >= 12 * 4 * 20
    assert Agent.from_pretrained(folder, task=CARTPOLE).layouts
    longer = make_run(wanted, checkpoint=checkpoint, schedule={"steps": 64, "warmup_steps": 2})
    train(longer, allow_changes=True)
    said = capfd.readouterr()
    assert "episodes that were running are not gone on with" in said.out + said.err
    again = json.loads((run.output_dir / "log.jsonl").read_text().splitlines()[-1])
    assert again["environment_steps"] > row["environment_steps"]
    assert validate(tmp_path / "played").ok
    for data in folders(tmp_path / "played"):
        records = [data.record(number) for number in range(len(data))]
        assert len({record["seed"] for record in records}) == len(records) > 8
        assert all(one <= two for one, two in (record["policy_steps"] for record in records))
    assert players() == []


def test_what_a_cluster_needs_is_said(make_run):
    with pytest.raises(ValueError, match="ray needs the number of actors"):
        make_run({"ray": "local"})
    with pytest.raises(ValueError, match="leave curriculum out"):
        make_run({"ray": "local", "actors": 1, "curriculum": {}})
    with pytest.raises(UsageError, match="CartPole-v1 has 4 environments for 5 actors"):
        train(make_run({"ray": "local", "actors": 5}))
    with pytest.raises(GeneralistError, match="'127.0.0.1:1' cannot be reached"):
        train(make_run({"ray": "127.0.0.1:1", "actors": 2}))
