"""Starting from a model that is there: a language model, or a checkpoint of our own.

The text range comes first in the vocabulary and keeps the ids of its tokenizer, so the embedding
table of a pretrained language model is a prefix of ours; the rows of all other ranges are new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from generalist.errors import GeneralistError, UsageError
from generalist.integrity import MANIFEST, verify
from generalist.modeling import PARTS_FOLDER
from generalist.modeling.attention import plain_config
from generalist.modeling.build import ARCHITECTURES, bin_coordinates, initialise_by_value
from generalist.modeling.embedder_files import stored_form

if TYPE_CHECKING:
    from generalist.modeling.recipe import ModelRecipe
    from generalist.tokenization.processor import GeneralistProcessor

_NAMES_SHOWN = 3


def with_sizes_of_start(recipe: ModelRecipe) -> ModelRecipe:
    """The recipe with the sizes of the model it starts from, if it starts from one.

    Raises UsageError where the recipe gives another size itself, or there is no model we know.
    """
    if recipe.init_from is None:
        return recipe
    found = _sizes(recipe.init_from, _config(recipe.init_from))
    if stored_form(recipe.init_from) is not None:
        found["form"] = "compact"
    for key, size in found.items():
        given = getattr(recipe, key)
        if key in recipe.model_fields_set and given is not None and given != size:
            raise UsageError(
                f"model.{key} is {given}, but {recipe.init_from}, which model.init_from names, has "
                f"{size}. Leave model.{key} out."
            )
    return recipe.model_copy(update=found)


def start_model(
    recipe: ModelRecipe, processor: GeneralistProcessor, window_tokens: int, seed: int = 0
) -> PreTrainedModel:
    """The model `recipe.init_from` names, in float32, with a row for every id of the vocabulary.

    Rows that it has keep what they are. New ones start at the mean of the old, those of scalars and
    frames with the features of `initialise_by_value` around it, as large as old rows spread.

    Raises UsageError where its ids mean something else than the processor's, or its positions end
    within a window.
    """
    source = str(recipe.init_from)
    kept = _rows_kept(source, processor)
    model = load_model(source)
    config = model.config
    if window_tokens > config.max_position_embeddings:
        raise UsageError(
            f"data.window_tokens is {window_tokens}, but {source} knows positions up to "
            f"{config.max_position_embeddings}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _extend(model, recipe, processor, kept)
    vocabulary = processor.vocabulary
    config.bos_token_id, config.eos_token_id = map(vocabulary.special, ("begin", "end"))
    config.pad_token_id = None  # with one, nn.Embedding would freeze that row
    model.get_input_embeddings().padding_idx = None
    model.generation_config = GenerationConfig.from_model_config(config)
    return model


def load_model(
    source: str | Path,
    *,
    config: PretrainedConfig | None = None,
    dtype: str | torch.dtype = "float32",
    exact: bool = False,
) -> PreTrainedModel:
    """A causal LM with all of its weights.

    source: its folder, or its repository on the Hub.
    exact: also refuse weights that the model has no place for.

    Raises GeneralistError where weights are damaged, missing or of other shapes than the config
    says, or too many; it names them.
    """
    try:
        with _without_warnings():  # of what is an error here
            model, loading = AutoModelForCausalLM.from_pretrained(
                source,
                config=plain_config(source) if config is None else config,
                dtype=dtype,
                output_loading_info=True,
                use_safetensors=True if exact else None,  # ours are never pickled
            )
    except SafetensorError as error:  # it does not say which file
        files = ", ".join(sorted(str(path) for path in Path(source).glob("*.safetensors")))
        raise GeneralistError(
            f"The weights {files or source} are damaged or cut short: {error}. Copy them again, or "
            "repeat the command that wrote them."
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise GeneralistError(
            f"The model in {source} cannot be loaded: {str(error).splitlines()[0]}"
        ) from error
    problems = {"missing": loading["missing_keys"]}
    if exact:
        problems["too many"] = loading["unexpected_keys"]
    wrong = [f"{which}: {_some(names)}" for which, names in problems.items() if names]
    if wrong:
        raise GeneralistError(
            f"The weights in {source} are not those of the model that its config.json describes "
            f"({'; '.join(wrong)}). Copy them again, or repeat the command that wrote them."
        )
    return model


@contextmanager
def _without_warnings() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def verify_checkpoint(folder: Path) -> None:
    """Compare the files of a checkpoint of our own with its manifest, where it has one.

    Raises GeneralistError that names the file that is not what was written.
    """
    path = folder / MANIFEST
    if not path.exists():
        return
    try:
        verify(folder)
    except GeneralistError as error:
        raise GeneralistError(
            f"{error} If you changed the checkpoint on purpose, remove {path}."
        ) from error


def _some(names: Collection[str]) -> str:
    """The first of some names, and how many there are besides."""
    first = ", ".join(sorted(names)[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{first} and {more} more" if more > 0 else first


def _config(source: str) -> PretrainedConfig:
    try:
        return plain_config(source)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"model.init_from names {source!r}, which is no model: {str(error).splitlines()[0]}"
        ) from error


def _sizes(source: str, config: PretrainedConfig) -> dict[str, Any]:
    """Keys of ModelRecipe with what they are in a config."""
    if config.model_type not in ARCHITECTURES:
        raise UsageError(
            f"model.init_from names {source!r}, a {config.model_type}; generalist acts with "
            f"{' and '.join(ARCHITECTURES)} alone."
        )
    return {
        "architecture": config.model_type,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "tie_embeddings": config.tie_word_embeddings,
        "rope_theta": float(config.rope_parameters["rope_theta"]),
    }


def _rows_kept(source: str, processor: GeneralistProcessor) -> int:
    """How many ids, from 0, mean the same to the model and to the processor."""
    own = Path(source) / PARTS_FOLDER
    if own.is_dir():
        verify_checkpoint(own.parent)
        from generalist.tokenization.processor import GeneralistProcessor

        before = GeneralistProcessor.from_pretrained(own)
        if not processor.extends(before):
            raise UsageError(
                f"The tokens of {source} are not the first of the data's: its processor is "
                f"{before.fingerprint}, the data's {processor.fingerprint}. Only ranges appended "
                "at the end keep old ids."
            )
        return before.vocabulary.size
    try:
        theirs = AutoTokenizer.from_pretrained(source, trust_remote_code=False).get_vocab()
    except (OSError, ValueError) as error:
        raise UsageError(f"{source} has no tokenizer to compare with: {error}") from error
    if theirs != processor.text.tokenizer.get_vocab(with_added_tokens=True):
        raise UsageError(
            f"The data's text tokens are not those of {source}. Make a processor of them with "
            f"`generalist tokenizer adopt {source}`, collect with --processor, and give "
            "data.processor."
        )
    return processor.vocabulary["text"].size


@torch.no_grad()
def _extend(
    model: PreTrainedModel, recipe: ModelRecipe, processor: GeneralistProcessor, kept: int
) -> None:
    """Rows for all ids, of which the first `kept` stay."""
    vocabulary, frames = processor.vocabulary, processor.frames
    old = [table[:kept].clone() for table in _tables(model)]
    model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    spread = float(old[0].std())
    values: dict[str, np.ndarray] = {}
    if recipe.continuous_init is not None:
        values["continuous"] = bin_coordinates(vocabulary)
    if recipe.image_init is not None and frames is not None:
        values["image"] = frames.code_coordinates
    for table in _tables(model):
        table[kept:] = 0
    for name, coordinates in values.items():
        features = recipe.continuous_init if name == "continuous" else recipe.image_init
        if vocabulary[name].start >= kept and features is not None:
            scaled = features.model_copy(update={"scale": spread})
            initialise_by_value(model, vocabulary[name], coordinates, scaled)
    for table, rows in zip(_tables(model), old, strict=True):
        table[:kept] = rows
        table[kept:] += rows.mean(dim=0)


def _tables(model: PreTrainedModel) -> list[torch.Tensor]:
    """(V, D) weights of the input embedding, and of the head where it is another."""
    tables = [model.get_input_embeddings().weight]
    if model.get_output_embeddings().weight is not tables[0]:
        tables.append(model.get_output_embeddings().weight)
    return tables
