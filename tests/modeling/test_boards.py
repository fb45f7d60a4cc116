"""The pass of boards equals the plain forward pass, with its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from generalist.errors import UsageError
from generalist.modeling.boards import BoardIds, BoardNetwork
from generalist.modeling.build import build_model
from generalist.modeling.embedders import Embedders
from generalist.modeling.recipe import ModelRecipe
from generalist.tokenization.compact import CompactForm, Run, Signature
from generalist.vocabulary import Vocabulary

VOCABULARY = Vocabulary([("text", 40), ("special", 32), ("discrete", 64), ("return", 16)])
FIRST = VOCABULARY["discrete"].start
IDS = BoardIds(
    signature="observation-board9x4",
    begin=VOCABULARY.special("begin"),
    separator=VOCABULARY.special("separator"),
    first_cell=FIRST,
    moves=[FIRST + 3, FIRST + 1, FIRST + 20],
    outcomes=[VOCABULARY["return"].start + each for each in (0, 8, 15)],
    tasks=[2, 1],
)


def model_of(positions: int = 1, convolutions: int = 0, **sizes: Any) -> Any:
    given = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 4, **sizes}
    model = build_model(
        ModelRecipe(form="compact", continuous_init=None, image_init=None, **given), VOCABULARY, 16
    )
    run = Run("board", 9, FIRST, 4)
    form = CompactForm(
        positions=positions,
        width=8,
        convolutions=convolutions,
        tasks=("board/Hex", "board/Gomoku"),
        signatures=(Signature("observation", (run,)),),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.embedders = Embedders(form, 32)
    return model


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"convolutions": 2},
        {"architecture": "qwen3", "kv_heads": 2, "tie_embeddings": False},
    ],
)
def test_it_equals_the_plain_forward_pass(sizes: dict[str, Any]) -> None:
    model = model_of(**sizes)
    network = BoardNetwork(model, IDS)
    cells = torch.randint(0, 4, (5, 9), dtype=torch.uint8)
    task = torch.tensor([0, 1, 1, 0, 1])
    embedders, table = model.embedders, model.get_input_embeddings()
    header = table.weight[IDS.begin] + embedders.tasks[torch.tensor(IDS.tasks)[task]]
    seen = (
        table.weight[IDS.separator] + embedders.by_name[IDS.signature](cells.long() + FIRST)[:, 0]
    )
    hidden = model.get_decoder()(
        inputs_embeds=torch.stack([header, seen], 1), use_cache=False
    ).last_hidden_state[:, 1]
    expected = F.linear(hidden, model.get_output_embeddings().weight)
    moves, outcomes = network(cells, task)
    assert torch.allclose(moves, expected[:, IDS.moves], atol=1e-5)
    assert torch.allclose(outcomes, expected[:, IDS.outcomes], atol=1e-5)
    assert torch.equal(network.judge(cells, task)[0], moves)
    # Gradients of the body and the embedder.
    loss = expected[:, IDS.moves].square().sum()
    names = [name for name in network.trained() if name not in ("given", "head")]
    parameters = [network.trained()[name] for name in names]
    plain = torch.autograd.grad(loss, parameters, retain_graph=True)
    own = torch.autograd.grad(moves.square().sum(), parameters)
    for name, one, other in zip(names, plain, own, strict=True):
        assert torch.allclose(one, other, atol=2e-4), name


def test_rows_are_stored_and_judging_takes_changed_weights_once_told() -> None:
    model = model_of()
    network = BoardNetwork(model, IDS)
    cells, task = torch.zeros(2, 9, dtype=torch.uint8), torch.tensor([0, 1])
    before, _ = network.judge(cells, task)
    with torch.no_grad():
        network.head += 1
        network.body.layers[0].mlp.up_proj.weight += 0.5
    network.forget()
    after, _ = network.judge(cells, task)
    assert not torch.allclose(before, after)
    again = BoardNetwork(network.store(), IDS)
    assert torch.equal(again.judge(cells, task)[0], after)


def test_other_models_are_refused() -> None:
    model = model_of()
    with pytest.raises(UsageError, match="one \\(model.embedders.positions\\)"):
        BoardNetwork(model_of(positions=2), IDS)
    del model.embedders
    with pytest.raises(UsageError, match="knows no boards"):
        BoardNetwork(model, IDS)
