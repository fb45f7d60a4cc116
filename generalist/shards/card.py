"""The card of a folder of shards: README.md, written with them, for people and for Hubs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from generalist.shards.files import replacing
from generalist.shards.manifest import DatasetHeader
from generalist.tokenization.described import parts_in_words
from generalist.tokenization.layout import Layout

CARD = "README.md"
_OURS = "<!-- written with the shards: generalist replaces this file -->"
_KNOWN = ("expert", "noise", "options")  # of a collection; the other facts are listed after them


def write_card(folder: Path, header: DatasetHeader, counts: Mapping[str, int]) -> None:
    """Write or replace the card of a folder; one that somebody else wrote stays.

    Args:
        folder: of the dataset.
        header: of the dataset.
        counts: as `Manifest.counts` gives them.
    """
    path = folder / CARD
    if path.exists() and _OURS not in path.read_text(encoding="utf-8", errors="replace"):
        return
    with replacing(path) as file:
        file.write(dataset_card(header, counts).encode())


def dataset_card(header: DatasetHeader, counts: Mapping[str, int]) -> str:
    """The text of a card: the task, how much there is, who played, and how it is read.

    Its metadata name no licence: whoever shares the data knows what they are made of.
    """
    layout = Layout.from_dict(header.layout)
    metadata = {
        "pretty_name": header.task,
        "tags": ["generalist", "webdataset", "reinforcement-learning", "imitation-learning"],
    }
    facts = {name: header.collection[name] for name in _KNOWN if header.collection.get(name)}
    facts |= {name: each for name, each in header.collection.items() if name not in _KNOWN and each}
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False).rstrip(),
        "---",
        "",
        _OURS,
        "",
        f"# {header.task}",
        "",
        f"Episodes of the task `{header.task}` as tokens, in shards of generalist: "
        + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
        + ".",
        "",
        "| observes | does |",
        "|---|---|",
        f"| {parts_in_words(layout, 'observation')} | {parts_in_words(layout, 'action')} |",
        "",
        "## How it was made",
        "",
        "| fact | value |",
        "|---|---|",
        *(f"| {name} | {_cell(value)} |" for name, value in facts.items()),
        f"| vocabulary | `{header.vocabulary_fingerprint}` |",
        f"| processor | `{header.processor_fingerprint}` |",
        "",
        "## Use",
        "",
        "`generalist validate FOLDER` checks every byte, `generalist inspect FOLDER` counts, and",
        "`generalist train RECIPE data.root=FOLDER` trains. The shards are WebDataset tars of",
        "NumPy arrays and JSON. Nothing in them is run as code.",
        "",
    ]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """A fact in one line of a table."""
    return str(value).replace("|", "\\|").replace("\n", " ")
