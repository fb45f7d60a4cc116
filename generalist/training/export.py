"""Export the final checkpoint: a plain Hugging Face model, and what acting needs besides.

`generalist/acting/checkpoint.py` describes its files; `Agent` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from generalist.acting.checkpoint import Checkpoint
from generalist.acting.hub import FOLDER_IN_CARD
from generalist.errors import GeneralistError
from generalist.modeling.embedders import Embedders, embedders_of
from generalist.modeling.lora import merged
from generalist.tokenization.layout import Layout
from generalist.training.checkpoint import RunState
from generalist.training.data import TrainingData
from generalist.training.recipe import Recipe, dump_recipe
from generalist.training.repetition import times_seen

SCORES_BEGIN, SCORES_END = "<!-- scores -->", "<!-- /scores -->"
CARD_COLUMNS = (
    "suite", "mean", "stderr", "episodes", "random", "expert", "normalized", "bits_per_byte",
)  # fmt: skip


def export(
    folder: Path,
    model: PreTrainedModel,
    weights: Mapping[str, Tensor],
    *,
    data: TrainingData,
    recipe: Recipe,
    state: RunState,
) -> Path:
    """Write a checkpoint to act with; it replaces an older one in one piece.

    Args:
        folder: folder of the checkpoint.
        model: the model; its own weights may be sharded over several processes.
        weights: the whole weights, float32, by name.
        data: the data it was trained on.
        recipe: the resolved recipe.
        state: the progress of the run.

    Returns:
        `folder`.

    Raises:
        GeneralistError: `weights` lacks a parameter of the model.
    """
    lora = recipe.model.lora
    checkpoint = Checkpoint(
        model=_whole(model, weights if lora is None else merged(weights, lora)),
        processor=data.processor,
        layouts={task: Layout.from_dict(layout) for task, layout in data.layouts.items()},
        facts={
            "steps": state.step,
            "minutes": round(state.elapsed_seconds / 60, 2),
            "tokens": state.step * recipe.data.rows_per_step * recipe.data.window_tokens,
            "window_tokens": recipe.data.window_tokens,
            "context_steps": recipe.data.context_steps,
            "temperature": recipe.acting.temperature,
            "environments": data.environments(),
            "experts": data.teachers(),
            "labels_seen": times_seen(state.labels, data.labels),
        },
        recipe=dump_recipe(recipe),
    )
    replace(checkpoint, card=_card(checkpoint.all_facts, recipe)).write(folder)
    return folder


def _whole(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """A model of the same class and config that holds these tensors themselves."""
    with torch.device("meta"):
        whole = type(model)(model.config)
    if (embedders := embedders_of(model)) is not None:
        whole.embedders = Embedders(embedders.form, model.config.hidden_size)
    whole.load_state_dict(weights, strict=False, assign=True)  # a tied head has no entry
    whole.tie_weights()
    if absent := [name for name, weight in whole.named_parameters() if weight.is_meta]:
        raise GeneralistError(f"The run holds no weights for {absent[0]}; nothing was exported.")
    return whole


def write_model_card(folder: Path, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Add scores to the table in a checkpoint's card.

    A row replaces an older one of the same task and suite; other rows stay.

    Args:
        folder: folder of the checkpoint.
        scores: task -> values of `CARD_COLUMNS`; missing ones stay blank.
    """
    path = Path(folder) / "README.md"
    card = path.read_text(encoding="utf-8")
    before, begin, rest = card.partition(SCORES_BEGIN)
    old, end, after = rest.partition(SCORES_END)
    if not begin or not end:
        before, old, after = card.rstrip() + "\n\n", "", "\n"
    rows = _rows(old)
    for task, score in scores.items():
        cells = {column: _cell(score.get(column)) for column in CARD_COLUMNS}
        rows[task, cells["suite"]] = cells
    table = _table(rows) if rows else "Not evaluated yet: `generalist evaluate` fills this in."
    text = f"{before}{SCORES_BEGIN}\n{table}\n{SCORES_END}{after}"
    path.write_text(text, encoding="utf-8")


def _rows(table: str) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of a table that `_table` wrote: (task, suite) -> column -> cell."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = {}
    for row in cells[2:]:  # skip the header and the line below it
        named = dict(zip(cells[0][1:], row[1:], strict=False))
        rows[row[0], named.get("suite", "")] = named
    return rows


def _table(rows: Mapping[tuple[str, str], Mapping[str, str]]) -> str:
    used = [column for column in CARD_COLUMNS if any(row.get(column) for row in rows.values())]
    lines = ["| task | " + " | ".join(used) + " |", "|---" * (len(used) + 1) + "|"]
    for (task, _), row in rows.items():
        lines.append(f"| {task} | " + " | ".join(row.get(column, "") for column in used) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _card(facts: dict[str, Any], recipe: Recipe) -> str:
    tasks = "\n".join(f"- `{task}`" for task in facts["tasks"])
    return f"""---
library_name: transformers
tags: [generalist, reinforcement-learning, imitation-learning]
---

# {recipe.output_dir.name}

One causal language model ({facts["architecture"]}, {facts["parameters"]["total"]:,} parameters,
{facts["parameters"]["body"]:,} without the embedding table) trained by generalist on these tasks,
in the {facts["form"]} form:

{tasks}

Trained for {facts["steps"]:,} steps, {facts["tokens"]:,} tokens, {facts["minutes"]:.1f} minutes, on
windows of {facts["window_tokens"]:,} tokens. `generalist/recipe.yaml` holds the resolved recipe.

## Scores

{SCORES_BEGIN}
Not evaluated yet: `generalist evaluate` fills this in.
{SCORES_END}

## Use

```python
import generalist

env = generalist.make("{facts["tasks"][0]}")
agent = generalist.Agent.from_pretrained("{FOLDER_IN_CARD}", task="{facts["tasks"][0]}")
observation, info = env.reset(seed=0)
action = agent.act(observation, first=True)
```

The weights are a plain transformers checkpoint: `AutoModelForCausalLM.from_pretrained` loads them
without generalist. Sequences begin with the header that `generalist/` describes.
"""
