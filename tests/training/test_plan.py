"""The plan of a run: counts against torch, formulas by hand, and the command that prints it."""

from __future__ import annotations

import json
import re

import pytest
import torch

from generalist.cli import main as cli
from generalist.errors import GeneralistError, UsageError
from generalist.modeling.build import build_model, count_parameters
from generalist.modeling.recipe import ModelRecipe
from generalist.specs import find_spec, list_specs, spec_folder
from generalist.training.plan import (
    PRECISIONS,
    STAGES,
    WORLD_SIZES,
    Parameters,
    activation_memory,
    flops_of,
    memory_per_rank,
    parameters_of,
    plan_run,
    vocabulary_size_of,
)
from generalist.training.recipe import Recipe, load_recipe
from generalist.vocabulary import Vocabulary

SIZES = list_specs("sizes")
NOMINAL = {"m": 1e6, "b": 1e9}
SMALL = Vocabulary([("special", 32), ("continuous", 16), ("image", 16)])
MODELS = {
    "llama": {"architecture": "llama"},
    "qwen3": {"architecture": "qwen3"},
    "untied": {"architecture": "qwen3", "tie_embeddings": False},
    "grouped": {"architecture": "qwen3", "kv_heads": 2, "head_dim": 24},
}


def model_recipe(**values: object) -> ModelRecipe:
    sizes = {"hidden_size": 64, "intermediate_size": 160, "layers": 3, "heads": 4}
    return ModelRecipe.model_validate(sizes | values)


# Parameters


def counted_by_torch(model: ModelRecipe, vocabulary: Vocabulary) -> dict[str, int]:
    bare = model.model_copy(update={"continuous_init": None, "image_init": None})
    with torch.device("meta"):
        return count_parameters(build_model(bare, vocabulary, window_tokens=64))


@pytest.mark.parametrize("values", MODELS.values(), ids=MODELS)
def test_parameters_are_those_of_the_model(values):
    model = model_recipe(**values)
    parameters = parameters_of(model, SMALL.size)
    expected = counted_by_torch(model, SMALL)
    assert {"total": parameters.total, "body": parameters.body} == expected


@pytest.mark.parametrize("name", ["quickstart", "laptop", *(f"sizes/{name}" for name in SIZES)])
def test_parameters_of_shipped_recipes_are_those_of_the_model(name):
    model, vocabulary = load_recipe(name).model, Vocabulary.default()
    parameters = parameters_of(model, vocabulary.size)
    expected = counted_by_torch(model, vocabulary)
    assert {"total": parameters.total, "body": parameters.body} == expected


def test_the_vocabulary_is_that_of_the_processor(shards):
    assert vocabulary_size_of(Recipe()) == Vocabulary.default().size
    recipe = Recipe.model_validate({"data": {"processor": shards["processor"]}})
    assert vocabulary_size_of(recipe) == Vocabulary.default().size
    with pytest.raises(GeneralistError, match="holds no processor"):
        vocabulary_size_of(Recipe.model_validate({"data": {"processor": shards["root"]}}))


# FLOPs


def test_flops_by_hand():
    model = model_recipe(head_dim=32)
    parameters = Parameters(matrices=1000, norms=10, tables=6400)
    flops = flops_of(model, parameters, vocabulary_size=100, window_tokens=7)
    assert flops.body == 6 * 1010
    assert flops.attention == 12 * 3 * (4 * 32) * 4  # tokens 1 to 7 see 4 on average
    assert flops.head == 6 * 64 * 100


def test_a_step_is_its_rows(make_recipe):
    plan = plan_run(make_recipe(), 100, flops_per_second=1e9)
    assert plan.tokens_per_step == 4 * 64
    assert plan.flops_per_step == 4 * 64 * plan.flops_per_token.total
    assert plan.seconds_per_step == pytest.approx(plan.flops_per_step / 1e9)
    assert plan.hours == pytest.approx(6 * plan.seconds_per_step / 3600)


@pytest.mark.parametrize(
    ("schedule", "hours"),
    [({"steps": 10}, 1.0), ({"minutes": 9}, None), ({"steps": 10, "minutes": 9}, 0.15)],
)
def test_hours_follow_the_schedule(make_recipe, schedule, hours):
    recipe = make_recipe(schedule=schedule)
    rate = plan_run(recipe, 100).flops_per_step / 360
    assert plan_run(recipe, 100, rate).hours == (None if hours is None else pytest.approx(hours))
    assert plan_run(recipe, 100).hours is None


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_positive(make_recipe, rate):
    with pytest.raises(UsageError, match="positive"):
        plan_run(make_recipe(), 100, rate)


# Memory


@pytest.mark.parametrize(
    ("precision", "stage", "gigabytes"),
    [("bf16", 0, 120), ("bf16", 1, 31.4), ("bf16", 2, 16.6), ("bf16", 3, 1.875),
     ("fp32", 0, 120), ("fp32", 1, 60.94), ("fp32", 2, 31.41), ("fp32", 3, 1.875)],
)  # fmt: skip
def test_zero_divides_what_its_paper_says(precision, stage, gigabytes):
    """7.5 billion parameters on 64 ranks, figure 1 of Rajbhandari et al. 2020; fp32 by hand."""
    parameters = Parameters(matrices=7_400_000_000, norms=0, tables=100_000_000)
    memory = memory_per_rank(parameters, precision, stage, world_size=64)
    assert memory.total / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_each_part_of_the_memory_by_hand():
    parameters = Parameters(matrices=60, norms=10, tables=30)
    adamw = memory_per_rank(parameters, "bf16", 2, world_size=8)
    assert (adamw.weights, adamw.gradients, adamw.optimizer) == (200, 25, 150)
    muon = memory_per_rank(parameters, "fp32", 0, world_size=8, optimizer="muon")
    assert (muon.weights, muon.gradients, muon.optimizer) == (400, 400, 800 - 4 * 60)


def test_memory_falls_with_the_stage_and_with_the_ranks(make_recipe):
    memory = plan_run(make_recipe(), 100).memory
    for precision in PRECISIONS:
        for stage in range(1, len(STAGES)):
            for size in WORLD_SIZES[1:]:
                here = memory[precision, stage, size].total
                assert here < memory[precision, stage - 1, size].total
                assert here < memory[precision, stage, size // 2].total
        assert len({memory[precision, stage, 1].total for stage in range(len(STAGES))}) == 1


def kept_bytes(model: ModelRecipe, rows: int, window_tokens: int, bf16: bool) -> int:
    """What torch really keeps of a forward pass over two packed segments a row."""
    network = build_model(model, SMALL, window_tokens)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.Tensor] = {}  # by their storage; held, so that none is used twice

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    positions = (torch.arange(window_tokens) % (window_tokens // 2)).expand(rows, -1)
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        network.get_decoder()(
            input_ids=torch.zeros_like(positions),
            position_ids=positions.contiguous(),
            attention_mask=None,
            use_cache=False,
        )
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("values", MODELS.values(), ids=MODELS)
def test_activations_are_what_torch_keeps(values, precision):
    shape = {"rows": 2, "window_tokens": 64}
    one, three = (
        (
            kept_bytes(model, **shape, bf16=precision == "bf16"),
            activation_memory(model, SMALL.size, **shape, precision=precision).blocks,
        )
        for model in (model_recipe(**values, layers=1), model_recipe(**values, layers=3))
    )
    # The difference is of two blocks alone: without embedding and final norm.
    assert three[1] - one[1] == pytest.approx(three[0] - one[0], rel=0.03)


# Recipes of the sizes


@pytest.mark.parametrize("name", SIZES)
def test_a_size_is_what_it_is_called(name):
    recipe = load_recipe(f"sizes/{name}")
    nominal = float(name[:-1]) * NOMINAL[name[-1]]
    plan = plan_run(recipe, Vocabulary.default().size)
    assert plan.parameters.body == pytest.approx(nominal, rel=0.1)
    assert recipe.data.window_tokens == 1024 and recipe.precision == "auto"
    assert recipe.data.rows_per_step % recipe.data.rows_per_forward == 0


@pytest.mark.parametrize("name", SIZES)
def test_a_size_says_how_it_is_launched(name):
    path = spec_folder("sizes") / f"{name}.yaml"
    config, module = "$(generalist recipe gpu)", "generalist.training"
    assert path.read_text().splitlines()[0] == (
        f"# accelerate launch --config_file {config} -m {module} sizes/{name}"
    )
    assert find_spec("recipes", f"sizes/{name}") == path


# The command


def test_the_command_prints_the_plan_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "sizes/79m", "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "79,049,984 in the body" in printed and "not estimated" in printed
    assert re.search(r"bf16 ZeRO 3 +1\.407 +0\.703 +0\.352 +0\.176\n", printed)
    assert list(tmp_path.iterdir()) == []


def test_the_command_estimates_time_and_writes_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--flops", "4e14", "--json", "plan.json", "schedule.steps=100"]
    assert cli.main(["train", "sizes/1m", "--plan", *arguments]) == 0
    assert "s a step" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    written = json.loads((tmp_path / "plan.json").read_text())
    expected = plan_run(load_recipe("sizes/1m", ["schedule.steps=100"]), 11_552, 4e14)
    assert written == json.loads(json.dumps(expected.to_dict()))
    assert written["tokens_per_step"] == 128 * 1024
    assert len(written["memory_per_rank_bytes"]) == 2 * 4 * 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plan", "model.layer=2"], ["model.layer", "layers"]),
        (["--plan", "--flops", "-1"], ["positive"]),
        (["--flops", "1e12"], ["--plan"]),
        (["--json", "plan.json"], ["--plan"]),
    ],
)
def test_wrong_use_ends_with_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "quickstart", *arguments]) == 2
    printed = capsys.readouterr().err
    assert all(word in printed for word in words) and printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
