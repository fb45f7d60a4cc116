"""Gato's embedding of frames, beside which the frame tokenizer's codes are measured.

Reed et al. 2022 (arXiv:2205.06175), sections 2.2 and C.2: patches of 16x16 pixels in raster order,
scaled to [-1, 1] and divided by the root of the patch's size, each through one ResNet block (v2,
GroupNorm, GELU), plus learned row and column positions. A position is the patch's interval on
[0, 1] in 128 steps: in training one is drawn from the interval, in evaluation its mean is taken.

The block is thinner than Gato's and works at half the resolution. Even so it costs, by the
counts of `frame_codes.py`, 1.4 times what the quickstart's transformer does for the same patches.

Shapes: N = frames, G = patches along a side, D = hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PATCH = 16
GRID = 6
POSITIONS = 128
CHANNELS = 32
_GROUPS = 8
_HALF = PATCH // 2


class PatchEmbedding(nn.Module):
    """Frames of 96x96 pixels to the 36 vectors that stand for them in a sequence."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1)
        self.block = nn.Sequential(
            nn.GroupNorm(_GROUPS, CHANNELS),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.GroupNorm(_GROUPS, CHANNELS),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        )
        self.out = nn.Linear(CHANNELS * _HALF * _HALF, hidden_size)
        self.row = nn.Embedding(POSITIONS, hidden_size)
        self.column = nn.Embedding(POSITIONS, hidden_size)
        for table in (self.row, self.column):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 96, 96, 3) uint8 -> (N, G*G, D) float32."""
        count = len(frames)
        pixels = (frames.float() / 127.5 - 1) / PATCH**0.5
        patches = pixels.view(count, GRID, PATCH, GRID, PATCH, 3).permute(0, 1, 3, 5, 2, 4)
        features = self.stem(patches.reshape(-1, 3, PATCH, PATCH))
        features = features + self.block(features)
        vectors = self.out(features.flatten(1)).view(count, GRID, GRID, -1)
        rows, columns = self._positions(count), self._positions(count)
        where = self.row(rows)[:, :, None] + self.column(columns)[:, None, :]
        return (vectors + where).flatten(1, 2)

    def _positions(self, count: int) -> Tensor:
        """(N, G) where each row, or column, of patches lies, in steps of 1/128."""
        edges = torch.arange(GRID + 1) * POSITIONS // GRID
        first, width = edges[:-1], edges.diff()
        if not self.training:
            return (first + width // 2).expand(count, -1)
        return first + (torch.rand(count, GRID) * width).long()
