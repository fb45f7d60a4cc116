"""What a run of self-play begins with: its games, its model and the layouts of its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from generalist.acting.boards import FAMILY, SELFPLAY, NetworkJudge, board_ids, played_before
from generalist.acting.checkpoint import FACTS_FILE, SETTINGS, Checkpoint
from generalist.acting.hub import LAYOUTS_FILE
from generalist.envs.board_games import find_game
from generalist.envs.board_view import Boards, BoardView, CommonBoard
from generalist.errors import UsageError
from generalist.integrity import read_json
from generalist.modeling import PARTS_FOLDER
from generalist.modeling.boards import BoardIds, BoardNetwork
from generalist.modeling.build import build_model
from generalist.modeling.embedder_files import start_embedders, stored_form
from generalist.modeling.pretrained import start_model, with_sizes_of_start
from generalist.settings import DEFAULT, family_of, setting_of
from generalist.tokenization.boards import board_layout, common_side
from generalist.tokenization.compact import CompactForm, without_size
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor
from generalist.training.selfplay.recipe import SelfplayRecipe

WINDOW_TOKENS = 64
"""Longest context of a model that begins here; a board is two positions."""
_FLAT_START = 0.1  # of the usual spread: at first all moves are about equally likely


@dataclass(frozen=True)
class Start:
    """The parts of a run.

    Attributes:
        boards: the games.
        model: the model with its embedders.
        network: the part of it that plays.
        judge: the network, for searches.
        tasks: (games,) the network's task of each game.
        checkpoint: what the final checkpoint holds, but for the progress and the recipe.
    """

    boards: Boards
    model: PreTrainedModel
    network: BoardNetwork
    judge: NetworkJudge
    tasks: np.ndarray
    checkpoint: Checkpoint


def start(recipe: SelfplayRecipe) -> Start:
    """The parts of a run as it begins; the same for the same recipe.

    Raises:
        UsageError: the boards do not fit, or the run cannot start from the checkpoint given.
    """
    source = recipe.model.init_from
    processor, kept = GeneralistProcessor.default(), dict[str, Layout]()
    if source is not None:
        processor, kept = _of_checkpoint(source)
    common = CommonBoard(_side(recipe, kept))
    views = [BoardView.named(name) for name in recipe.boards]
    boards = Boards(views, common)
    vocab = processor.vocabulary
    layouts = {
        f"{FAMILY}{name}": board_layout(view.game, common.side, vocab)
        for name, view in zip(recipe.boards, views, strict=True)
    }
    form = _form(recipe).extended({without_size(task): each for task, each in layouts.items()})
    model = _model(recipe, processor)
    model.embedders = start_embedders(
        form, model.config.hidden_size, seed=recipe.seed, coordinates={}, source=source
    )
    tasks = list(layouts)
    ids, numbers = board_ids(tasks, form, common, boards, vocab)
    if source is not None and not played_before(source):
        _flatten_outcomes(model, ids)
    network = BoardNetwork(model, ids, whole=recipe.imitation is not None)
    if source is None:
        with torch.no_grad():
            network.head *= _FLAT_START
    judge = NetworkJudge(network, boards, numbers)
    checkpoint = Checkpoint(
        model=model,
        processor=processor,
        layouts={**kept, **layouts},
        facts=_settings(source, kept) | {SELFPLAY: sorted({*played_before(source), *tasks})},
    )
    return Start(boards, model, network, judge, numbers, checkpoint)


@torch.no_grad()
def _flatten_outcomes(model: PreTrainedModel, ids: BoardIds) -> None:
    """Let a model that never learned outcomes find all about equally likely at first."""
    model.get_output_embeddings().weight[list(ids.outcomes)] *= _FLAT_START


def _of_checkpoint(source: str) -> tuple[GeneralistProcessor, dict[str, Layout]]:
    """Processor and layouts of a checkpoint of our own."""
    parts = Path(source) / PARTS_FOLDER
    if stored_form(source) is None:
        raise UsageError(
            f"model.init_from names {source!r}, which is no checkpoint in the compact form. Name "
            "the folder of one, or leave the key out."
        )
    layouts = read_json(parts / LAYOUTS_FILE)
    return GeneralistProcessor.from_pretrained(parts), {
        task: Layout.from_dict(layout) for task, layout in layouts.items()
    }


def _settings(source: str | None, kept: dict[str, Layout]) -> dict[str, Any]:
    """How the final checkpoint acts: in boards at once and greedily, elsewhere as before."""
    own: dict[str, Any] = {"context_steps": 1, "temperature": 0.0}
    if source is None:
        return {**own, "window_tokens": WINDOW_TOKENS}
    before = read_json(Path(source) / PARTS_FOLDER / FACTS_FILE)
    found = {name: before[name] for name in SETTINGS if before.get(name) is not None}
    for name, value in own.items():
        old = before.get(name)
        others = old if isinstance(old, dict) else {DEFAULT: old}
        cloned = [task for task in kept if task.startswith(FAMILY)]
        kept_values = {task: setting_of(old, task) for task in cloned}
        found[name] = {**others, family_of(FAMILY): value, **kept_values}
    return found


def _side(recipe: SelfplayRecipe, kept: dict[str, Layout]) -> int:
    before = common_side(kept)
    if before is not None and recipe.side not in (None, before):
        raise UsageError(
            f"side is {recipe.side}, but the checkpoint that model.init_from names plays on a "
            f"common board of {before}x{before}. Leave side out."
        )
    games = [find_game(name) for name in recipe.boards]
    largest = max(max(game.rows, game.columns) for game in games if game is not None)
    return before or recipe.side or largest


def _form(recipe: SelfplayRecipe) -> CompactForm:
    """The form to extend: the checkpoint's own, or one of the recipe's sizes."""
    source = recipe.model.init_from
    before = None if source is None else stored_form(source)
    embedders = recipe.model.embedders
    return before or CompactForm(
        positions=embedders.positions, width=embedders.width, convolutions=embedders.convolutions
    )


def _model(recipe: SelfplayRecipe, processor: GeneralistProcessor) -> PreTrainedModel:
    if recipe.model.init_from is None:
        return build_model(recipe.model, processor.vocabulary, WINDOW_TOKENS, recipe.seed)
    sizes = with_sizes_of_start(recipe.model)
    return start_model(sizes, processor, 2, recipe.seed)
