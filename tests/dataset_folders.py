"""Small dataset folders of plain token arrays: the storage layer needs no environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from generalist.shards.manifest import DatasetHeader
from generalist.shards.shards import EncodedEpisode, ShardWriter
from generalist.tokenization.continuous import ContinuousCodec
from generalist.tokenization.discrete import DiscreteCodec
from generalist.tokenization.layout import Layout, Part, stored_layout
from generalist.vocabulary import Vocabulary

VOCABULARY = Vocabulary.default()


def control_layout(observations: int = 3, actions: int = 2) -> Layout:
    """Continuous observations and actions."""
    start = VOCABULARY["continuous"].start

    def codec(count: int) -> ContinuousCodec:
        return ContinuousCodec((count,), "float32", (-1.0,) * count, (1.0,) * count, 1024)

    fields = (
        Part("observation", (), codec(observations), start),
        Part("action", (), codec(actions), start),
    )
    return stored_layout(fields, VOCABULARY.special("separator"))


def grid_layout(cells: int = 49) -> Layout:
    """Discrete observations, one discrete action."""
    start = VOCABULARY["discrete"].start
    cell_codec = DiscreteCodec((cells,), "int64", (0,) * cells, (9,) * cells)
    fields = (
        Part("observation", (), cell_codec, start),
        Part("action", (), DiscreteCodec((), "int64", (0,), (7,)), start),
    )
    return stored_layout(fields, VOCABULARY.special("separator"))


def make_header(task: str, layout: Layout, **collection: Any) -> DatasetHeader:
    return DatasetHeader.create(task, layout, VOCABULARY, "processor-1", collection=collection)


def make_episode(
    layout: Layout, steps: int, seed: int, labelled: bool = False, **record: Any
) -> EncodedEpisode:
    """Random legal ids; the first two observation tokens tell the step and the seed."""
    rng = np.random.default_rng(seed)
    legal = np.array(layout.legal)
    actions = rng.integers(legal[:, 0], legal[:, 1], (steps, len(legal)))
    ids = {"action": actions}
    if not layout.is_document:
        start = layout.parts[0].start
        observed = start + rng.integers(0, 9, (steps, len(layout.positions.of_role("observation"))))
        observed[:, 0] = start + np.arange(steps)
        observed[:, 1] = start + seed
        ids["observation"] = observed
    tokens = layout.weave(ids)
    labels = None
    if labelled:
        labels = rng.integers(legal[:, 0], legal[:, 1], actions.shape).ravel()
    rewards = np.zeros(steps) if layout.is_document else rng.normal(size=steps)
    return EncodedEpisode(tokens.ravel(), rewards, labels, {"seed": seed, **record})


def write_task(
    root: Path,
    task: str,
    layout: Layout,
    lengths: list[int],
    labelled: bool = False,
    instructions: tuple[str | None, ...] = (None,),
    **options: Any,
) -> Path:
    folder = root / task
    with ShardWriter(folder, make_header(task, layout), **options) as writer:
        for seed, steps in enumerate(lengths):
            instruction = instructions[seed % len(instructions)]
            writer.add(make_episode(layout, steps, seed, labelled, instruction=instruction))
    return folder
