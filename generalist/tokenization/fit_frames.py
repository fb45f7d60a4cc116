"""Fitting the patch codec of `frames.py` to game frames, within minutes on one CPU core.

Four things make it work where plain reconstruction collapses to a few codes:

- It learns from the patches that just changed, each different one once (weighted by the root of
  its count): the rare patch with ball and paddle counts, the ever-same score does not.
- Its metric is the squared error of the difference from the background, sharp and blurred twice.
  A ball that is reconstructed one pixel off then costs less than one that is lost.
- The metric and a projection on its principal directions are linear. So training runs on 128
  numbers in place of a patch's 588, and both are folded into the outer layers afterwards.
- A sliced Wasserstein distance holds the latents near a uniform distribution over the FSQ cube.
  So all codes are used, and within each game, for a batch is of one game.
- In the first half of the training, noise as wide as a level replaces rounding. Gradients then see
  the borders of a code, and neighbouring codes come to mean neighbouring pictures.

Shapes: M = different patches, P = 588 values of a patch, K = features, B = patches of a batch,
U = different background patches.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from generalist.errors import GeneralistError
from generalist.tokenization.frames import FrameConfig, PatchCodec, code_features, to_patches

FEATURES = 128
BLUR_PIXELS = (1.0, 2.5)
UNKNOWN_SHARE = 0.15
"""Weight, against a game's changed patches, of whole patches seen without a background."""
MOST_PATCHES = 150_000
MOST_SCENE_PATCHES = 55_000
THINGS_SHARE = 0.75
STRONG_COLOUR, NEARLY_BLACK = 110, 45  # of 255
MOST_CHANGED = 0.9
"""Frames with a larger share of their patches changed are left out."""


def recolour(patches: np.ndarray, patch_size: int, rng: np.random.Generator) -> None:
    """Change patches in place to hues, greys and lights that the games do not have.

    Args:
        patches: (M, P) uint8, row-major pixels of three colours.
        patch_size: Height and width of a patch in pixels.
        rng: Draws one change for each patch.
    """
    colours = patches.reshape(len(patches), patch_size**2, 3).astype(np.float32)
    grey = colours.mean(axis=-1, keepdims=True)
    saturation = rng.choice([0.0, 0.5, 1.0], (len(patches), 1, 1))
    colours = np.take_along_axis(
        grey + saturation * (colours - grey), rng.permuted(_hues(len(patches)), axis=-1), axis=-1
    )
    light = rng.uniform(0.3, 1.7, (len(patches), 1, 1)) * colours
    light += rng.choice([0.0, 1.0], (len(patches), 1, 1)) * rng.uniform(
        0, 120, (len(patches), 1, 1)
    )
    patches[:] = light.clip(0, 255).reshape(patches.shape).astype(np.uint8)


def _hues(count: int) -> np.ndarray:
    """(count, 1, 3) indices of the colour channels."""
    return np.tile(np.arange(3), (count, 1, 1))


@dataclass
class PatchData:
    """Patches to learn from, the backgrounds they stand before, and how often to draw them."""

    patches: np.ndarray
    """(M, P) uint8."""
    backgrounds: np.ndarray
    """(U, P) uint8."""
    background_index: np.ndarray
    """(M,) int64 into `backgrounds`."""
    weights: np.ndarray
    """(M,) float64 that sum to 1."""
    group_ends: np.ndarray
    """Patches of one game stand together: where each game's end, the last being M."""


def different_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of (M, P) uint8: the index of one of each, and the count of each."""
    whole = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))  # words are of four bytes
    words = whole.view(np.uint32).astype(np.int64)
    factors = np.random.default_rng(0).integers(-(2**62), 2**62, words.shape[1])
    hashes = (words * factors).sum(axis=1)  # wraps around, as a hash may
    _, index, counts = np.unique(hashes, return_index=True, return_counts=True)
    return index, counts


def patch_data(
    games: list[tuple[np.ndarray, np.ndarray, float]], patch_size: int, *, seed: int = 0
) -> PatchData:
    """Choose the patches to learn from.

    Args:
        games: For each game its uint8 frames (N, S, S, 3), background (S, S, 3) and weight.
        patch_size: Height and width of a patch in pixels.
        seed: Of the choice, and of the changed colours.

    Raises:
        GeneralistError: There is no game.
    """
    rng = np.random.default_rng(seed)
    patches, backgrounds, weights = [], [], []

    def add(rows: np.ndarray, behind: np.ndarray, *, power: float, share: float) -> None:
        index, counts = different_rows(np.concatenate([rows, behind], axis=1))
        drawn = counts.astype(np.float64) ** power
        patches.append(rows[index])
        backgrounds.append(behind[index])
        weights.append(share * drawn / drawn.sum())

    for frames, background, weight in games:
        cells = to_patches(frames, patch_size)
        still = to_patches(background[None], patch_size)[0]
        # Frames in which all is different, as in another palette before a game, teach nothing.
        usual = (cells != still).any(axis=-1).mean(axis=-1) < MOST_CHANGED
        cells = cells[usual] if usual.any() else cells
        moved = np.zeros(cells.shape[:2], bool)
        moved[1:] = (cells[1:] != cells[:-1]).any(axis=-1)
        rows, cols = np.nonzero(moved & (cells != still).any(axis=-1))
        if len(rows):
            chosen = rng.permutation(len(rows))[:MOST_PATCHES]
            rows, cols = rows[chosen], cols[chosen]
            add(cells[rows, cols], still[cols], power=0.5, share=weight)
        count = min(20_000, 3 * len(cells))
        whole = cells[rng.integers(len(cells), size=count), rng.integers(len(still), size=count)]
        recolour(whole[::2], patch_size, rng)
        add(whole, np.zeros_like(whole), power=0.3, share=weight * UNKNOWN_SHARE)
    if not games:
        raise GeneralistError("The frame tokenizer was given no frames to learn from.")
    table, index = np.unique(np.concatenate(backgrounds), axis=0, return_inverse=True)
    total = np.concatenate(weights)
    return PatchData(
        np.concatenate(patches),
        table,
        index.ravel(),
        total / total.sum(),
        np.cumsum([len(rows) for rows in patches]),
    )


def scene_data(frames: np.ndarray, patch_size: int, *, seed: int = 0) -> PatchData:
    """Patches of scenes whose camera moves: no background stands still, and things are small.

    Three of four patches that are drawn hold something of a strong colour, or nearly black.

    Args:
        frames: (N, S, S, 3) uint8.
        patch_size: Height and width of a patch in pixels.
        seed: Of the choice.
    """
    rng = np.random.default_rng(seed)
    patches = to_patches(frames, patch_size).reshape(-1, patch_size**2, 3)
    high = patches.max(axis=-1)
    strong = ((high - patches.min(axis=-1) > STRONG_COLOUR) | (high < NEARLY_BLACK)).mean(axis=-1)
    chosen, weights = [], []
    for held, share in ((strong > 0.02, THINGS_SHARE), (strong <= 0.02, 1 - THINGS_SHARE)):
        rows = rng.permutation(np.flatnonzero(held))[: int(MOST_SCENE_PATCHES * share)]
        chosen.append(rows)
        weights.append(np.full(len(rows), share / max(1, len(rows))))
    rows = np.concatenate(chosen)
    if not len(rows):
        raise GeneralistError("The frame tokenizer was given no frames to learn from.")
    drawn = np.concatenate(weights)
    taken = patches[rows].reshape(len(rows), -1)
    still = np.zeros((1, taken.shape[1]), np.uint8)
    ends = np.array([len(rows)])
    return PatchData(taken, still, np.zeros(len(rows), np.int64), drawn / drawn.sum(), ends)


def blur_metric(patch_size: int) -> np.ndarray:
    """(pixels, pixels) symmetric matrix A, where |A e|^2 is the error e squared, at each sharpness.

    The error counts as it is, and blurred by each of `BLUR_PIXELS`.
    """
    row, column = np.mgrid[:patch_size, :patch_size].reshape(2, -1)
    squared = (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2
    metric = np.eye(patch_size**2)
    for width in BLUR_PIXELS:
        kernel = np.exp(-squared / (2 * width**2))
        kernel *= 2 * width / kernel.sum(axis=0).max()  # a single bright pixel counts at each scale
        metric += kernel.T @ kernel
    values, vectors = np.linalg.eigh(metric)
    return (vectors * np.sqrt(values)) @ vectors.T


@dataclass
class Features:
    """The linear map from a difference (P) to the numbers trained on (K), and back."""

    encode: np.ndarray
    """(K, P)."""
    decode: np.ndarray
    """(P, K)."""
    values: Tensor
    """(M, K) features of every patch."""
    loss_weights: Tensor
    """(M,): faint changes count for more than their energy."""


def make_features(data: PatchData, patch_size: int) -> Features:
    """Project all differences on the `FEATURES` principal directions of the blurred metric."""
    per_pixel = blur_metric(patch_size)
    metric = np.kron(per_pixel, np.eye(3))
    inverse = np.kron(np.linalg.inv(per_pixel), np.eye(3))
    behind = data.backgrounds[data.background_index]
    measured = ((data.patches.astype(np.float32) - behind) / 255) @ metric.astype(np.float32)
    energy = np.square(measured).sum(axis=1)
    relative = 1 / np.sqrt(energy + 0.05)
    weights = (data.weights * relative)[:, None]
    covariance = (measured * weights).T @ measured / weights.sum()
    directions = np.linalg.eigh(covariance)[1][:, ::-1][:, :FEATURES]
    values = measured @ directions
    scale = np.sqrt(2 / np.average(np.square(values).mean(axis=1), weights=data.weights))
    return Features(
        encode=directions.T @ metric * scale,
        decode=inverse @ directions / scale,
        values=torch.tensor(values * scale, dtype=torch.float32),
        loss_weights=torch.tensor(relative / scale**2, dtype=torch.float32),
    )


class _Trainer:
    """The codec on features in place of patches; `folded` gives the codec on patches."""

    def __init__(self, data: PatchData, config: FrameConfig, seed: int) -> None:
        self.features = make_features(data, config.patch_size)
        self.codec = PatchCodec(config)
        count = self.features.values.shape[1]
        self.codec.residual_in = nn.Linear(count, config.hidden_features)
        self.codec.residual_out = nn.Linear(config.hidden_features, count, bias=False)
        self.backgrounds = torch.from_numpy(data.backgrounds).float() / 255
        self.background_index = torch.from_numpy(data.background_index)
        self._cumulative = np.cumsum(data.weights)
        self._group_ends = np.concatenate([[0.0], self._cumulative[data.group_ends - 1]])
        self._rng = np.random.default_rng(seed)
        levels = torch.tensor(config.levels)
        self._half_levels = levels // 2
        self._bound = (levels - 1) * 1.001 / 2
        self._offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        self._width = levels / 2
        with torch.no_grad():  # begin with latents that spread over the levels
            latents = self.latents(self.draw(4096, mixed=True), self.summaries())
            self.codec.latents_out.weight *= (0.6 / latents.std(dim=0))[:, None]

    def draw(self, count: int, mixed: bool = False) -> Tensor:
        """(B,) indices of patches, drawn by weight; all of one game unless `mixed`."""
        low, high = 0.0, self._group_ends[-1]
        if not mixed:
            ends = self._group_ends
            group = int(np.searchsorted(ends[1:-1], self._rng.random() * high, side="right"))
            low, high = ends[group], ends[group + 1]
        at = np.searchsorted(self._cumulative, self._rng.uniform(low, high, count), side="right")
        return torch.from_numpy(np.minimum(at, len(self._cumulative) - 1))

    def summaries(self) -> Tensor:
        """(U, 32) summaries of all background patches."""
        return self.codec.background_in(self.backgrounds)

    def latents(self, index: Tensor, summaries: Tensor) -> Tensor:
        """(B, 4) latents, as `PatchCodec.latents` computes them."""
        codec, behind = self.codec, self.background_index[index]
        condition = codec.condition_in(summaries)
        still = codec.encoder(codec.residual_in.bias + condition)
        changed = codec.residual_in(self.features.values[index]) + condition[behind]
        return codec.latents_out(codec.encoder(changed) - still[behind])

    def reconstruct(self, quantized: Tensor, index: Tensor, summaries: Tensor) -> Tensor:
        """(B, K) features, as `PatchCodec.reconstruct` computes differences."""
        codec, behind = self.codec, self.background_index[index]
        condition = codec.condition_out(summaries)
        centre = codec.code_in(code_features(torch.zeros_like(quantized[:1])))
        changed = codec.decoder(codec.code_in(code_features(quantized)) + condition[behind])
        return codec.residual_out(changed - codec.decoder(centre + condition)[behind])

    def loss(self, batch: int, progress: float) -> tuple[Tensor, Tensor]:
        """The loss of one random batch, and the part of it that is reconstruction."""
        index, summaries = self.draw(batch), self.summaries()
        latents = self.latents(index, summaries)
        bounded = torch.tanh(latents + torch.atanh(self._offset / self._bound)) * self._bound
        bounded = bounded - self._offset
        if progress < 0.5:
            quantized = (bounded + torch.rand_like(bounded) - 0.5) / self._half_levels
        else:
            quantized = self.codec.quantize(latents)[0]
        error = self.reconstruct(quantized, index, summaries) - self.features.values[index]
        reconstruction = (error.square().sum(dim=1) * self.features.loss_weights[index]).mean()
        spread = uniformity((bounded + self._offset) / self._width)
        saturation = torch.relu(latents.abs() - 1.5).square().mean()
        return reconstruction + 5 * (1 - progress) * spread + 0.03 * saturation, reconstruction

    @torch.no_grad()
    def folded(self) -> PatchCodec:
        """The trained codec on patches, its weights rounded to the half precision they ship in."""
        codec, state = PatchCodec(self.codec.config), self.codec.state_dict()
        encode = torch.tensor(self.features.encode, dtype=torch.float32)
        decode = torch.tensor(self.features.decode, dtype=torch.float32)
        state["residual_in.weight"] = state["residual_in.weight"] @ encode
        state["residual_out.weight"] = decode @ state["residual_out.weight"]
        codec.load_state_dict({name: value.half().float() for name, value in state.items()})
        return codec


def uniformity(points: Tensor) -> Tensor:
    """Squared sliced Wasserstein distance of points to the uniform distribution on [-1, 1]^D.

    It is the mean over D axes and D random directions (Bonneel et al. 2015).

    Args:
        points: (B, D) float32, nearly in [-1, 1].

    Returns:
        () float32.
    """
    count, size = points.shape
    slices = nn.functional.normalize(torch.randn(size, size), dim=0)
    slices = torch.cat([torch.eye(size), slices], dim=1)
    uniform = torch.rand(count, size) * 2 - 1
    ordered = (points @ slices).sort(dim=0).values
    return (ordered - (uniform @ slices).sort(dim=0).values).square().mean()


def fit_codec(
    data: PatchData,
    config: FrameConfig,
    *,
    steps: int,
    minutes: float | None = None,
    seed: int = 0,
    progress: bool = True,
    batch: int = 512,
    learning_rate: float = 2e-3,
) -> PatchCodec:
    """Train a patch codec; the same seed gives the same weights.

    Args:
        data: Patches, of which each step draws `batch` from one game.
        config: Sizes of the codec.
        steps: Optimizer steps. The learning rate decays to zero over them by a cosine.
        minutes: Ends the training earlier; the weights then depend on the machine's speed.
        seed: Of the initial weights and of all that is drawn.
        progress: Show a bar on stderr.
        batch: Patches a step.
        learning_rate: The largest one, reached after 50 steps.

    Raises:
        GeneralistError: The loss is not finite.
    """
    from tqdm import tqdm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trainer = _Trainer(data, config, seed)
        optimizer = torch.optim.AdamW(
            trainer.codec.parameters(), lr=learning_rate, weight_decay=1e-4, betas=(0.9, 0.98)
        )
        started, average = time.monotonic(), None
        bar = tqdm(total=steps, desc="fit frame tokenizer", unit="step", disable=not progress)
        for step in range(steps):
            done = step / steps
            if minutes is not None:
                done = max(done, (time.monotonic() - started) / (60 * minutes))
                if done >= 1:
                    break
            warm = min(1.0, (step + 1) / 50)
            for group in optimizer.param_groups:
                group["lr"] = 1e-5 + warm * learning_rate * (0.5 + 0.5 * np.cos(np.pi * done))
            loss, reconstruction = trainer.loss(batch, done)
            if not torch.isfinite(loss):
                raise GeneralistError(
                    f"The loss of the frame tokenizer became {loss.item()} at step {step}: "
                    "try another seed or fewer tasks."
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trainer.codec.parameters(), 1.0)
            optimizer.step()
            value = reconstruction.item()
            average = value if average is None else 0.99 * average + 0.01 * value
            bar.update()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{average:.3f}")
        bar.close()
        return trainer.folded()
