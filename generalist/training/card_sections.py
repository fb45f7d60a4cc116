"""Parts of a card: scores as the Hub reads them, and what each task observes and does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from generalist.tokenization.described import parts_in_words
from generalist.tokenization.layout import Layout

_FENCE = "---\n"
_METRIC = "normalized_score"


def with_model_index(card: str, scores: Mapping[str, Mapping[str, Any]]) -> str:
    """The card with normalised scores in its metadata, under `model-index`.

    A score replaces an older one of the same task and suite. A card without metadata stays as it
    is.

    Args:
        card: text of the card.
        scores: task -> values; those without `normalized` are left out.
    """
    if not card.startswith(_FENCE):
        return card
    head, _, body = card.removeprefix(_FENCE).partition(f"\n{_FENCE}")
    metadata = yaml.safe_load(head) or {}
    (model,) = metadata.get("model-index") or [{"name": _name(body), "results": []}]
    results = {_key(result): result for result in model["results"]}
    for task, score in scores.items():
        if score.get("normalized") is not None:
            result = _result(task, score)
            results[_key(result)] = result
    if not results:
        return card
    metadata["model-index"] = [{**model, "results": list(results.values())}]
    head = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"{_FENCE}{head}{_FENCE}{body}"


def _name(body: str) -> str:
    """The title of a card."""
    title = next((line for line in body.splitlines() if line.startswith("# ")), "# checkpoint")
    return title.removeprefix("# ")


def _result(task: str, score: Mapping[str, Any]) -> dict[str, Any]:
    """A score in the form of the Hub's `model-index`."""
    suite = score.get("suite")
    metric = {"type": _METRIC, "value": round(float(score["normalized"]), 4)}
    return {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": task, "type": task, **({"config": suite} if suite else {})},
        "metrics": [{**metric, "name": "Normalised score: 0 is random play, 1 is the expert"}],
    }


def _key(result: Mapping[str, Any]) -> tuple[str, str | None]:
    """Task and suite of a result."""
    return result["dataset"]["type"], result["dataset"].get("config")


def interface(layouts: Mapping[str, Layout]) -> str:
    """Sections on what each task observes and does, and on the command that trains again.

    Args:
        layouts: layout of each task.
    """
    rows = []
    for task, layout in layouts.items():
        observed, done = (parts_in_words(layout, role) for role in ("observation", "action"))
        rows.append(f"| `{task}` | {observed} | {done} |")
    return "\n".join(
        [
            "",
            "## Inputs and outputs",
            "",
            "| task | observes | does |",
            "|---|---|---|",
            *rows,
            "",
            "## Training",
            "",
            "`generalist train generalist/recipe.yaml output_dir=NEW` in this folder trains it",
            "again, on the data that the recipe names.",
            "",
        ]
    )
