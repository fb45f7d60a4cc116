"""A picture of a board, as the agent sees it: its own stones dark, the other's light."""

from __future__ import annotations

import numpy as np

_PIXELS = 360  # about the longer side
_WOOD, _LINE = (222, 184, 135), (150, 115, 70)
_STONES = {1: (35, 35, 40), 2: (245, 245, 240)}  # codes of cells: mine, theirs


def draw_board(cells: np.ndarray, slanted: bool = False) -> np.ndarray:
    """Draw a board.

    Args:
        cells: (rows, columns) integers, 0 empty, 1 mine, 2 theirs.
        slanted: Each row lies half a cell further to the right, so that Hex's neighbours touch.

    Returns:
        (H, W, 3) uint8 RGB, about 360 pixels on the longer side.
    """
    rows, columns = cells.shape
    half = max(4, _PIXELS // (2 * max(rows, columns)))
    size = 2 * half
    width = columns * size + (rows - 1) * half * slanted
    picture = np.full((rows * size, width, 3), 255, np.uint8)
    away = np.hypot(*np.mgrid[-half + 0.5 : half, -half + 0.5 : half])
    for row in range(rows):
        for column in range(columns):
            top, left = row * size, column * size + row * half * slanted
            cell = picture[top : top + size, left : left + size]
            cell[:] = _LINE
            cell[1:, 1:] = _WOOD
            if cells[row, column]:
                cell[away < 0.8 * half] = _STONES[int(cells[row, column])]
    return picture
