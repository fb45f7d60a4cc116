"""Boards on the common board as tokens, and back."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.envs import make
from generalist.envs.board_games import find_game
from generalist.errors import GeneralistError
from generalist.tokenization.boards import board_layout, common_side
from generalist.tokenization.compact import CompactForm, signatures_of
from generalist.tokenization.layout import Layout
from generalist.tokenization.masks import token_masks
from generalist.tokenization.processor import GeneralistProcessor

pytest.importorskip("pyspiel")

NAMES = ["ConnectFour-4x5", "Gomoku-7x7", "Othello", "Breakthrough-5x5"]


@pytest.fixture(scope="module")
def processor() -> GeneralistProcessor:
    return GeneralistProcessor.default()


@pytest.mark.parametrize("name", NAMES)
def test_boards_and_moves_survive_tokens(name: str, processor: GeneralistProcessor) -> None:
    layout = board_layout(find_game(name), 9, processor.vocabulary)
    assert Layout.from_dict(layout.to_dict()) == layout and common_side({name: layout}) == 9
    env = make(f"board/{name}", opponent="random")
    observation, info = env.reset(seed=3)
    legal = np.flatnonzero(info["action_mask"])
    ids = layout.encode("observation", observation[None], processor.toolbox)
    assert ids.shape == (1, 81)
    assert np.array_equal(layout.decode("observation", ids, processor.toolbox)[0], observation)
    codes = layout.encode("action", legal, processor.toolbox)
    assert np.array_equal(layout.decode("action", codes, processor.toolbox), legal)
    (allowed,) = token_masks(layout, info["action_mask"])
    first, _ = layout.legal[0]
    assert set(np.flatnonzero(allowed) + first) == set(codes[:, 0])


def test_sizes_of_a_game_share_cells_moves_signature_and_task(
    processor: GeneralistProcessor,
) -> None:
    small, large = (
        board_layout(find_game(f"Gomoku-{size}x{size}"), 9, processor.vocabulary) for size in (7, 9)
    )
    assert signatures_of(small) == signatures_of(large)
    corner = [
        layout.encode("action", np.array([(n - 1) * n]), processor.toolbox)
        for layout, n in ((small, 7), (large, 9))
    ]
    assert np.array_equal(*corner)  # the lower left cell
    form = CompactForm(positions=1, width=8, tasks=("board/Hex", "board/Gomoku"))
    assert form.number_of("board/Gomoku-8x8") == 2 and form.number_of("board/Othello") == 0


def test_a_move_that_is_never_legal_is_refused(processor: GeneralistProcessor) -> None:
    layout = board_layout(find_game("Breakthrough-5x5"), 9, processor.vocabulary)
    with pytest.raises(GeneralistError, match="never a legal move"):
        layout.encode("action", np.array([6]), processor.toolbox)  # the second player's
