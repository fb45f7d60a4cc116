"""The interface of rounds: one that learns from what the model itself did would fit it."""

from __future__ import annotations

from pathlib import Path

import torch

from generalist.training.loop import Trainer
from generalist.training.setup import build_objective
from generalist.training.sources import Demonstrations
from generalist.training.strategies.launch import (
    StopSignal,
    start_accelerator,
    torch_settings_kept,
)
from tests.training.runs import Counting, replaced


class Online:
    """Due before every second step: asks the model in this process, and gives rows of its own."""

    def __init__(self, data) -> None:
        self.data, self.windows = data, []
        self.played: list[int] = []
        self.beliefs: list[torch.Tensor] = []

    def due(self, state) -> bool:
        return state.step % 2 == 0 and state.step not in self.played

    def play(self, run) -> bool:
        self.played.append(run.state.step)
        model = run.objective.model
        assert next(model.parameters()).device.type == run.ranks.device.type
        with torch.no_grad():
            self.beliefs.append(model(input_ids=torch.tensor([[1, 2, 3]])).logits)
        self.windows.append(Counting(self.data.windows))
        return not run.stop.raised

    def rows(self, state):
        return replaced(self.data, self.windows[-1]) if self.windows else None

    def restore(self, run, checkpoint: Path) -> None:
        self.played = list(range(0, run.state.step, 2))


def trained(recipe, data, round_, stop: StopSignal | None = None) -> Trainer:
    with torch_settings_kept():
        accelerator = start_accelerator(recipe)
        objective = build_objective(recipe, data, accelerator)
        source = Demonstrations(recipe, data, segments=objective.segments, ranks=1)
        trainer = Trainer(recipe, accelerator, objective=objective, source=source, rounds=[round_])
        trainer.resume()
        trainer.run(stop or StopSignal())
        trainer.close()
    return trainer


def test_a_round_may_ask_the_model_and_change_the_rows_as_often_as_it_likes(make_recipe, data):
    online = Online(data)
    trainer = trained(make_recipe(), data, online)
    assert online.played == [0, 2, 4, 6], "also after the last step"
    assert not torch.equal(online.beliefs[0], online.beliefs[-1]), "it was asked as it learned"
    first = [min(windows.rows) for windows in online.windows]
    assert first == [4 * step for step in online.played], "each step's rows are of the last round"
    assert trainer.state.step == 6

    # It is done: nothing more is trained, and what was played is known.
    again = Online(data)
    trained(make_recipe(), data, again)
    assert again.played == [0, 2, 4, 6]
