"""What ranks tell each other, and that all continue from one checkpoint or none does."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

import pytest
from accelerate import Accelerator

from generalist.errors import GeneralistError, UsageError
from generalist.training.data import open_data
from generalist.training.loop import build_trainer, train
from generalist.training.ranks import Ranks
from generalist.training.recipe import load_recipe
from generalist.training.strategies.launch import start_accelerator, torch_settings_kept
from tests.training.runs import recipe_file
from tests.training.two_ranks import LIMIT_SECONDS, on_two_ranks


def refuse() -> None:
    raise UsageError("no such thing")


def talk(rank: int) -> dict[str, object]:
    """All that ranks say to each other, while rank 1 is late by more than the time limit."""
    ranks = Ranks(Accelerator(cpu=True))
    if rank == 1:
        time.sleep(1.5 * LIMIT_SECONDS)
    said: dict[str, object] = {"late": ranks.gather(rank)}
    said["main"] = ranks.on_main(lambda: Path(f"of rank {rank}"))
    said["sum"] = ranks.sum([1.0, rank])
    board = ranks.board()
    said["taken"] = [board.take() for _ in range(3)]
    for name, ask in {
        "refused": lambda: ranks.on_main(refuse),
        "required": lambda: ranks.require("cannot see it" if rank else None, "Share it."),
    }.items():
        try:
            ask()
        except GeneralistError as error:
            said[name] = f"{type(error).__name__}: {error}"
    ranks.require(None, "Nothing is wrong.")
    return said


@pytest.mark.slow
def test_ranks_hear_each_other_however_late_they_are():
    one, other = on_two_ranks(talk)
    assert one["late"] == other["late"] == [0, 1]
    assert one["main"] == other["main"] == Path("of rank 0")
    assert one["sum"] == other["sum"] == [2.0, 1.0]
    assert sorted(one["taken"] + other["taken"]) == list(range(6))
    assert one["refused"] == other["refused"] == "UsageError: no such thing"
    assert one["required"] == other["required"]
    assert one["required"].startswith("GeneralistError: Rank 1 (")
    assert one["required"].endswith(" cannot see it. Share it.")


def test_one_process_hears_itself():
    ranks = Ranks(Accelerator(cpu=True))
    assert ranks.gather("x") == ["x"] and ranks.on_main(lambda: 3) == 3
    assert ranks.sum([2.0]) == [2.0]
    with pytest.raises(UsageError, match="no such thing"):
        ranks.on_main(refuse)
    ranks.meet()


def begin(rank: int, cases: list[str], folder: Path) -> dict[str, object]:
    """Where a run begins, in each case with a disk for each rank and a folder of the same name."""
    found: dict[str, object] = {}
    for case in cases:
        os.chdir(folder / case / f"disk-{rank}")
        recipe = load_recipe("recipe.yaml")
        with torch_settings_kept():
            trainer = build_trainer(recipe, open_data(recipe), start_accelerator(recipe))
            try:
                trainer.resume()
                found[case] = trainer.state.step
            except GeneralistError as error:
                found[case] = str(error)
    return found


def test_all_ranks_continue_from_one_checkpoint_or_say_who_does_not_see_it(
    make_recipe, data, shards, tmp_path
):
    """Each rank used to look for itself: one continued while the other began at 0, in silence."""
    for name, steps in {"run": 6, "longer": 9}.items():
        schedule = {"steps": steps, "warmup_steps": 2}
        train(make_recipe(output_dir=tmp_path / name, schedule=schedule), data)
    # Which checkpoints lie on the disk of each rank.
    third = tmp_path / "run" / "checkpoints" / "step-00000003"
    sixth, others = (tmp_path / run / "checkpoints" / "step-00000006" for run in ("run", "longer"))
    disks = {
        "the same": ([third, sixth], [third, sixth]),
        "nothing": ([third], []),
        "older": ([third, sixth], [third]),
        "newer": ([third], [third, sixth]),
        "only the other": ([], [third]),
        "another run": ([sixth], [others]),
        "other data": ([], []),
    }
    for case, of_ranks in disks.items():
        for rank, checkpoints in enumerate(of_ranks):
            disk = tmp_path / case / f"disk-{rank}"
            for checkpoint in checkpoints:
                shutil.copytree(checkpoint, disk / "run" / "checkpoints" / checkpoint.name)
            recipe = make_recipe(output_dir="run")
            if case == "other data" and rank:
                recipe.data.root = shards["root"] / "gym" / "CartPole-v1"
            recipe_file(recipe, disk)
    one, other = on_two_ranks(begin, list(disks), tmp_path)
    assert one == other
    assert one["the same"] == 6 and one["newer"] == 3 and one["only the other"] == 0
    for case, problem in {
        "nothing": "cannot continue from run/checkpoints/step-00000003: ",
        "older": "cannot continue from run/checkpoints/step-00000006: ",
        "another run": "has another checkpoint run/checkpoints/step-00000006 than rank 0",
    }.items():
        assert f"Rank 1 ({socket.gethostname()}) {problem}" in one[case]
        assert "Rank 0" not in one[case]
        assert "output_dir on a disk that all ranks share" in one[case]
    assert "has other data than rank 0" in one["other data"]
