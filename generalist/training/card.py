"""The card of a checkpoint: what it is, how it was made, and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from generalist.acting.hub import FOLDER_IN_CARD
from generalist.errors import GeneralistError
from generalist.training.card_sections import with_model_index

SCORES_HEADING, LICENCE_HEADING = "\n## Scores\n", "\n## Licence\n"
SCORES_BEGIN, SCORES_END = "<!-- scores -->", "<!-- /scores -->"
CARD_COLUMNS = (
    "suite", "mean", "stderr", "interval", "episodes", "random", "expert", "normalized",
    "normalized_interval", "bits_per_byte",
)  # fmt: skip


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
    table = score_table(rows) if rows else old.strip()
    text = f"{before}{SCORES_BEGIN}\n{table}\n{SCORES_END}{after}"
    path.write_text(with_model_index(text, scores), encoding="utf-8")


def license_card(folder: Path, license: str) -> None:
    """Write a licence into the card of a checkpoint; it replaces an older one.

    Args:
        folder: folder of the checkpoint.
        license: SPDX identifier of the weights' licence.

    Raises:
        GeneralistError: the checkpoint has no card with metadata.
    """
    path = Path(folder) / "README.md"
    card = path.read_text(encoding="utf-8") if path.exists() else ""
    if not card.startswith("---\n"):
        raise GeneralistError(f"{path} is no card with metadata, so it cannot name a licence.")
    front, fence, body = card.removeprefix("---\n").partition("\n---\n")
    metadata = yaml.safe_load(front) | {"license": license.lower()}
    body = body.partition(LICENCE_HEADING)[0].rstrip()
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    text = f"---\n{front}---\n\n{body.lstrip()}\n{LICENCE_HEADING}\nThe weights: {license}.\n"
    path.write_text(text, encoding="utf-8")


def card_scores(card: str) -> dict[tuple[str, str], dict[str, str]]:
    """The scores in the text of a card: (task, suite) -> column -> cell."""
    return _rows(card.partition(SCORES_BEGIN)[2].partition(SCORES_END)[0])


def _rows(table: str) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of a table that `_table` wrote: (task, suite) -> column -> cell."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = {}
    for row in cells[2:]:  # skip the header and the line below it
        named = dict(zip(cells[0][1:], row[1:], strict=False))
        rows[row[0], named.get("suite", "")] = named
    return rows


def score_table(rows: Mapping[tuple[str, str], Mapping[str, str]]) -> str:
    """The rows of `card_scores` as a Markdown table."""
    used = [column for column in CARD_COLUMNS if any(row.get(column) for row in rows.values())]
    lines = ["| task | " + " | ".join(used) + " |", "|---" * (len(used) + 1) + "|"]
    for (task, _), row in rows.items():
        lines.append(f"| {task} | " + " | ".join(row.get(column, "") for column in used) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_cell, value))}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def new_card(
    facts: Mapping[str, Any],
    *,
    title: str,
    license: str | None = None,
    made: str = "",
    scores: str = "Not evaluated yet: `generalist evaluate` fills this in.",
) -> str:
    """The text of a checkpoint's card.

    Args:
        facts: content of training.json.
        title: of the card.
        license: SPDX identifier of the weights' licence; None says nothing.
        made: how the checkpoint was made, beyond the facts.
        scores: what stands in place of the table until the checkpoint is evaluated.
    """
    front = "" if license is None else f"license: {license.lower()}\n"
    licence = "" if license is None else f"{LICENCE_HEADING}\nThe weights: {license}.\n"
    made = f"\n{made}\n" if made else ""
    tasks = "\n".join(f"- `{task}`" for task in facts["tasks"])
    return f"""---
library_name: transformers
{front}tags: [generalist, reinforcement-learning, imitation-learning]
---

# {title}

One causal language model ({facts["architecture"]}, {facts["parameters"]["total"]:,} parameters,
{facts["parameters"]["body"]:,} without the embedding table) trained by generalist on these tasks,
in the {facts["form"]} form:

{tasks}

Trained for {facts["steps"]:,} steps, {facts["tokens"]:,} tokens, {facts["minutes"]:.1f} minutes, on
windows of {facts["window_tokens"]:,} tokens. `generalist/recipe.yaml` holds the resolved recipe.
{made}{SCORES_HEADING}
{SCORES_BEGIN}
{scores}
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
{licence}"""
