"""What a recipe asks for, built: the model as it starts, and its loss by the fastest known way."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from generalist.gpu import has_flash_attention
from generalist.modeling.build import build_model
from generalist.modeling.embedder_files import start_embedders
from generalist.modeling.lora import add_adapters
from generalist.modeling.pretrained import start_model
from generalist.modeling.segments import can_run_segments
from generalist.processes import usable_cpus
from generalist.training.data import TrainingData, open_data
from generalist.training.losses import OrdinalTargets
from generalist.training.objective import TokenObjective
from generalist.training.recipe import LossRecipe, Recipe
from generalist.training.reinforcement.build import build_learner, open_tasks
from generalist.training.reinforcement.objective import ReinforcementObjective
from generalist.training.sources import Demonstrations, Source
from generalist.training.strategies.launch import (
    is_alone_on_cpu,
    launched_with_fsdp,
    resolve_precision,
    should_compile,
)
from generalist.vocabulary import Vocabulary

Objective = TokenObjective | ReinforcementObjective

_WORKERS = 4  # that prepare rows beside a GPU


def opened(recipe: Recipe) -> TrainingData:
    """What a recipe learns from: demonstrations, tasks that it plays, or both."""
    return open_data(recipe) if recipe.reinforcement is None else open_tasks(recipe)


def build_learning(
    recipe: Recipe, data: TrainingData, accelerator: Accelerator
) -> tuple[Objective, Source]:
    """The objective that a recipe asks for, and the source of its passes.

    Args:
        recipe: the recipe, with the sizes of the model it starts from.
        data: what `opened` found.
        accelerator: the accelerator of the run.
    """
    objective = build_objective(recipe, data, accelerator)
    if recipe.reinforcement is not None:
        return build_learner(recipe, data, objective, accelerator)
    return objective, Demonstrations(
        recipe,
        data,
        segments=objective.segments,
        ranks=accelerator.num_processes,
        workers=_workers(recipe, accelerator),
    )


def _workers(recipe: Recipe, accelerator: Accelerator) -> int:
    """How many processes prepare rows for this one."""
    if recipe.data.workers is not None:
        return recipe.data.workers
    if accelerator.device.type == "cpu":
        return 0  # they would take the time of those that train
    return max(0, min(_WORKERS, usable_cpus() // accelerator.num_processes - 1))


def build_objective(recipe: Recipe, data: TrainingData, accelerator: Accelerator) -> TokenObjective:
    """The model that a recipe asks for, with its loss, on the device of this process.

    recipe: with the sizes of the model it starts from.
    """
    model = build_start(recipe, data).to(accelerator.device)
    objective = objective_of(model, data.processor.vocabulary, recipe.loss)
    _choose_pass(objective, recipe, accelerator)
    return objective


def objective_of(
    model: PreTrainedModel, vocabulary: Vocabulary, loss: LossRecipe
) -> TokenObjective:
    """A model with its imitation loss."""
    bins, returns = vocabulary["continuous"], vocabulary["return"]
    spread = (returns.start, returns.stop)
    return TokenObjective(
        model,
        OrdinalTargets(bins.start, bins.stop, loss.sigma_bins, returns=spread),
        ranges=_ranges(vocabulary),
        full_every=loss.full_every,
    )


def _ranges(vocabulary: Vocabulary) -> list[tuple[int, int]]:
    """The ranges that targets are chosen within, in order.

    Text and the special ids behind it are one: whether a text goes on or ends is one choice.
    """
    text, special, *others = vocabulary
    assert (text.name, special.name) == ("text", "special")
    return [(text.start, special.stop), *((each.start, each.stop) for each in others)]


def build_start(recipe: Recipe, data: TrainingData) -> PreTrainedModel:
    """The model to be trained, as it starts; the same on every process."""
    window, processor = recipe.data.window_tokens, data.processor
    if recipe.model.init_from is not None:
        model = start_model(recipe.model, processor, window, recipe.seed)
    else:
        codes = None if processor.frames is None else processor.frames.code_coordinates
        model = build_model(recipe.model, processor.vocabulary, window, recipe.seed, codes)
    if data.form is not None:
        codes = {} if processor.frames is None else {"image": processor.frames.code_coordinates}
        model.embedders = start_embedders(
            data.form,
            model.config.hidden_size,
            seed=recipe.seed,
            coordinates=codes,
            source=recipe.model.init_from,
        )
    if recipe.model.lora is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            add_adapters(model, recipe.model.lora)
    return model


def _choose_pass(objective: TokenObjective, recipe: Recipe, accelerator: Accelerator) -> None:
    """Have hidden states computed in the fastest way that is known on the device."""
    device = accelerator.device
    decoder = objective.model.get_decoder()
    known = can_run_segments(decoder)
    # FSDP gathers the weights of a block when it is called, and adapters are no plain matrices.
    plain = not launched_with_fsdp() and recipe.model.lora is None
    objective.segments = known and plain and device.type == "cpu" and not recipe.compile
    lean = objective.segments and is_alone_on_cpu(recipe)
    objective.half = lean and resolve_precision(recipe) == "bf16"
    autocast = accelerator.mixed_precision == "bf16"
    objective.flash = known and autocast and has_flash_attention(device)
    if should_compile(recipe, accelerator):
        for block in decoder.layers:
            block.compile()
