"""Checkpoints to act with: a plain Hugging Face model, and what acting needs besides.

config.json, model.safetensors, generation_config.json   load in AutoModelForCausalLM alone
generalist/                                              the processor, and:
  layouts.json                                           task -> layout of its timestep
  training.json                                          how it was trained, and how it acts
  recipe.yaml                                            the resolved recipe
README.md, replay.webp                                   the model card, and its picture
manifest.json                                            size and hash of every file but the card
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from generalist.acting.hub import LAYOUTS_FILE, REPLAY, check_checkpoint
from generalist.errors import GeneralistError, UsageError
from generalist.integrity import CARD, MANIFEST, read_json, write_folder
from generalist.modeling import PARTS_FOLDER
from generalist.modeling.attention import plain_config
from generalist.modeling.build import count_parameters
from generalist.modeling.embedder_files import FORM_FILE, load_embedders, save_embedders
from generalist.modeling.embedders import MODULE as embedders_module
from generalist.modeling.embedders import embedders_of
from generalist.modeling.pretrained import load_model, verify_checkpoint
from generalist.modeling.values import MODULE as values_module
from generalist.modeling.values import load_values, save_values, values_of
from generalist.shards.strangers import names_new_code
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor

SETTINGS = ("window_tokens", "context_steps", "temperature", "environments", "returns", "worlds")
"""Keys of training.json that say how to act; `Agent` has arguments of the same names."""
FACTS_FILE = "training.json"
RECIPE_FILE = "recipe.yaml"
_OWN = {"config.json", "generation_config.json", CARD, MANIFEST, PARTS_FOLDER, REPLAY}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model with all that acting needs, and the record of its training.

    Attributes:
        model: a causal language model over the processor's vocabulary.
        processor: the processor.
        layouts: layouts of the tasks it was trained on, by name.
        facts: keys of training.json that do not follow from the above: the `SETTINGS`, and
            `steps`, `minutes` and `tokens` of training.
        recipe: text of recipe.yaml; None where there is none.
        card: text of README.md; None where there is none.
    """

    model: PreTrainedModel
    processor: GeneralistProcessor
    layouts: Mapping[str, Layout]
    facts: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    card: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The `SETTINGS` that the checkpoint holds, by name."""
        return {name: self.facts[name] for name in SETTINGS if self.facts.get(name) is not None}

    @property
    def all_facts(self) -> dict[str, Any]:
        """The content of training.json."""
        return {
            **self.facts,
            "tasks": list(self.layouts),
            "parameters": count_parameters(self.model),
            "architecture": type(self.model).__name__,
            "form": "flat" if embedders_of(self.model) is None else "compact",
            "vocabulary": self.processor.vocabulary.fingerprint,
        }

    def write(self, folder: Path) -> None:
        """Write the checkpoint to `folder` in one piece; replaces an older checkpoint."""
        write_folder(folder, self._write_into)

    def _write_into(self, folder: Path) -> None:
        weights = self.model.state_dict()
        beside = (f"{embedders_module}.", f"{values_module}.")
        plain = {n: each for n, each in weights.items() if not n.startswith(beside)}
        with _quiet():
            self.model.save_pretrained(folder, state_dict=plain)
        self._generation().save_pretrained(folder)
        parts = folder / PARTS_FOLDER
        self.processor.save_pretrained(parts)
        if (embedders := embedders_of(self.model)) is not None:
            save_embedders(embedders, folder)
        if (values := values_of(self.model)) is not None:
            save_values(values, folder)
        layouts = {task: layout.to_dict() for task, layout in self.layouts.items()}
        (parts / LAYOUTS_FILE).write_text(json.dumps(layouts, indent=1) + "\n")
        (parts / FACTS_FILE).write_text(json.dumps(self.all_facts, indent=2) + "\n")
        if self.recipe is not None:
            (parts / RECIPE_FILE).write_text(self.recipe)
        if self.card is not None:
            (folder / CARD).write_text(self.card)

    def _generation(self) -> GenerationConfig:
        """The model's generation config, with the ids that begin and end documents in training."""
        special = self.processor.vocabulary.special
        generation = copy.deepcopy(self.model.generation_config)
        generation.bos_token_id, generation.eos_token_id = special("begin"), special("end")
        return generation

    @classmethod
    def read(
        cls, folder: Path, *, device: torch.device, dtype: str | torch.dtype = "float32"
    ) -> Checkpoint:
        """Read a checkpoint that `write` wrote.

        Args:
            folder: folder of the checkpoint.
            device: device of the model.
            dtype: data type of the weights.

        Returns:
            The checkpoint, with its model in evaluation mode.

        Raises:
            GeneralistError: a file is missing, differs from the manifest, or belongs to another
                vocabulary; or weights are missing or foreign to the model.
        """
        check_checkpoint(folder)
        try:
            checkpoint = cls._loaded(folder, device, dtype)
        except Exception as error:
            said = f"{error} " if isinstance(error, GeneralistError) else ""
            try:
                verify_checkpoint(folder)
            except GeneralistError as damage:  # damage explains the error
                raise GeneralistError(f"{said}{damage}") from error
            raise
        verify_checkpoint(folder)
        return checkpoint

    @classmethod
    def _loaded(cls, folder: Path, device: torch.device, dtype: str | torch.dtype) -> Checkpoint:
        parts = folder / PARTS_FOLDER
        processor = GeneralistProcessor.from_pretrained(parts)
        layouts = _layouts(parts / LAYOUTS_FILE)
        facts = _facts(parts / FACTS_FILE)
        config = _config(folder)
        _check_vocabulary(folder, config, facts, processor)
        model = load_model(folder, config=config, dtype=dtype, exact=True)
        if (embedders := load_embedders(folder, config.hidden_size)) is not None:
            model.embedders = embedders.to(model.dtype)
        elif facts.get("form") == "compact":
            raise GeneralistError(
                f"{folder} was trained in the compact form, and {parts / FORM_FILE} is missing. "
                "Copy the checkpoint again."
            )
        if (values := load_values(folder)) is not None:
            model.values = values
        return cls(
            model=model.to(device).eval(),
            processor=processor,
            layouts=layouts,
            facts=facts,
            recipe=_text(parts / RECIPE_FILE),
            card=_text(folder / CARD),
        )


def check_replaceable(folder: Path) -> None:
    """Check that a checkpoint may replace `folder`.

    Raises:
        UsageError: `folder` is a file, or holds other things than a checkpoint.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file; name a folder for the checkpoint.")
    if not folder.is_dir():
        return
    foreign = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in _OWN and ".safetensors" not in path.suffixes
    )
    if foreign:
        raise UsageError(
            f"{folder} holds other things than a checkpoint, such as {foreign[0]}. Saving a "
            "checkpoint would remove them; name a new folder."
        )


def only_task(layouts: Mapping[str, Layout], name: str) -> str:
    """The name of the only task of a checkpoint.

    Args:
        layouts: the checkpoint's layouts, by task.
        name: name of the checkpoint, for errors; may be empty.

    Raises:
        UsageError: the checkpoint has several tasks, or the task's name would import code.
    """
    if len(layouts) == 1:
        (task,) = layouts
        if names_new_code(task):
            raise UsageError(
                f"The checkpoint {name or 'given'} knows {task!r} alone, which names a module to "
                "import. That is done only where you name the task yourself: pass task=."
            )
        return task
    raise UsageError(
        f"The checkpoint {name or 'given'} knows {len(layouts)} tasks; say which to act in: "
        f"{', '.join(sorted(layouts))}."
    )


def layout_of(task: str, layouts: Mapping[str, Layout], name: str) -> Layout:
    """The layout of a task.

    Args:
        task: name of the task.
        layouts: the checkpoint's layouts, by task.
        name: name of the checkpoint, for errors; may be empty.

    Raises:
        UsageError: the checkpoint does not know the task.
    """
    if task not in layouts:
        raise UsageError(
            f"The checkpoint {name or 'given'} was not trained on {task!r}; it knows "
            f"{', '.join(sorted(layouts)) or 'no task'}. To act in it anyway, pass "
            "layout=processor.layout(env.observation_space, env.action_space)."
        )
    return layouts[task]


def _layouts(path: Path) -> dict[str, Layout]:
    stored = _object(path)
    try:
        return {task: Layout.from_dict(layout) for task, layout in stored.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise GeneralistError(f"{path} is damaged: {error!r}.") from error


def _facts(path: Path) -> dict[str, Any]:
    """The content of training.json; empty where there is none."""
    return _object(path) if path.exists() else {}


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise GeneralistError(f"{path} is damaged: it holds no JSON object.")
    return value


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _config(folder: Path) -> PretrainedConfig:
    try:
        return plain_config(folder)
    except (OSError, ValueError) as error:
        raise GeneralistError(f"The model in {folder} cannot be loaded: {error}") from error


def _check_vocabulary(
    folder: Path, config: PretrainedConfig, facts: dict[str, Any], processor: GeneralistProcessor
) -> None:
    vocabulary = processor.vocabulary
    trained_with = facts.get("vocabulary", vocabulary.fingerprint)
    if trained_with != vocabulary.fingerprint:
        raise GeneralistError(
            f"The model in {folder} was trained with the vocabulary {trained_with}, but the "
            f"processor beside it has {vocabulary.fingerprint}; they do not belong together."
        )
    if config.vocab_size < vocabulary.size:
        raise GeneralistError(
            f"The model in {folder} has {config.vocab_size} token embeddings, but the vocabulary "
            f"{vocabulary.fingerprint} of the processor beside it has {vocabulary.size} ids."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bar of transformers, because writing takes a second."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
