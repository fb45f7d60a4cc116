"""The card of a frame tokenizer: originals against reconstructions, and what its codes keep.

Legend: N = frames, S = 84 pixels a side.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from generalist.tokenization.frames import FrameTokenizer, resize_frames

COLUMNS = 5
ENLARGED = 3
GAP_PIXELS = 2
CARD_FILE = "README.md"


def measure(tokenizer: FrameTokenizer, frames: np.ndarray, task: str) -> dict[str, float]:
    """Measure what codes keep of frames.

    Args:
        tokenizer: To be measured.
        frames: (N, S, S, 3) uint8.
        task: The game they are of.

    Returns:
        codes: Different codes in use.
        changed: Codes a frame that differ from the background's.
        psnr, median_psnr: Peak signal-to-noise ratio in dB, on the pixels that differ from the
            background, of the decoded codes and of the background alone.
    """
    codes = tokenizer.encode(frames, task)
    background = tokenizer.backgrounds.get(task, np.zeros_like(frames[0]))
    moved = (frames != background).any(axis=-1)
    decoded = tokenizer.decode(codes, task)
    return {
        "codes": len(np.unique(codes)),
        "changed": float((codes != tokenizer.still_code).sum(axis=1).mean()),
        "psnr": _psnr(decoded[moved], frames[moved]),
        "median_psnr": _psnr(np.broadcast_to(background, frames.shape)[moved], frames[moved]),
    }


def _psnr(seen: np.ndarray, true: np.ndarray) -> float:
    """Peak signal to noise ratio in dB of uint8 values."""
    error = np.square(seen.astype(np.float32) - true).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def comparison(tokenizer: FrameTokenizer, frames: np.ndarray, task: str) -> np.ndarray:
    """(height, width, 3) uint8 picture: frames in the upper row, their decoded codes below."""
    chosen = frames[np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)]
    decoded = tokenizer.decode(tokenizer.encode(chosen, task), task)
    gap = ((GAP_PIXELS, GAP_PIXELS), (GAP_PIXELS, GAP_PIXELS), (0, 0))
    rows = [
        np.concatenate([np.pad(frame, gap, constant_values=255) for frame in row], axis=1)
        for row in (chosen, decoded)
    ]
    return np.concatenate(rows).repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)


def write_card(
    tokenizer: FrameTokenizer,
    frames: Mapping[str, np.ndarray],
    out_dir: str | Path,
    *,
    notes: str = "",
) -> Path:
    """Write the card `README.md`, and one picture a task, `Name.png`.

    Args:
        tokenizer: The tokenizer that the card describes.
        frames: (N, H, W, 3) uint8 of each task. Of a tokenizer that knows backgrounds, tasks
            without one are left out.
        out_dir: Folder of the files.
        notes: Markdown below the table.

    Returns:
        The path of the card.
    """
    from PIL import Image

    out_dir, rows, pictures = Path(out_dir), [], []
    for task, taken in frames.items():
        if tokenizer.backgrounds and task not in tokenizer.backgrounds:
            continue
        sized = resize_frames(taken, tokenizer.config.frame_size)
        got, name = measure(tokenizer, sized, task), task.rpartition("/")[2]
        rows.append(
            f"| {task} | {len(sized):,} | {got['codes']} | {got['changed']:.1f} of "
            f"{tokenizer.codes_per_frame} | {got['psnr']:.1f} dB | {got['median_psnr']:.1f} dB |"
        )
        Image.fromarray(comparison(tokenizer, sized, task)).save(
            out_dir / f"{name}.png", optimize=True
        )
        pictures.append(
            f"**{task}**: frames above, their codes decoded below\n\n![{task}]({name}.png)"
        )
    card = CARD.format(
        fingerprint=tokenizer.fingerprint,
        size=tokenizer.codebook_size,
        frame=tokenizer.config.frame_size,
        patch=tokenizer.config.patch_size,
        count=tokenizer.codes_per_frame,
        rows="\n".join(rows),
        pictures="\n\n".join(pictures),
        notes=f"\n{notes.strip()}\n" if notes else "",
    )
    (out_dir / CARD_FILE).write_text(card)
    return out_dir / CARD_FILE


CARD = """# Frame tokenizer

One frame, resized to {frame}x{frame} RGB, becomes {count} codes of {size:,}: one for each patch of
{patch}x{patch} pixels, in row-major order. Fingerprint `{fingerprint}`.

A code says how its patch differs from the task's background, the per-pixel median frame. That of a
game of the training is stored with the weights, that of another task in the layout of its data. A
patch that equals the background always has the same code and decodes exactly; a patch's code
depends on nothing outside the patch. Where there is no background, black takes its place and the
codes describe the whole picture, more coarsely.

On the pixels that differ from the background, decoded codes reach the first of the two figures in
dB; the background alone, the second.

| task | frames | different codes | changed codes a frame | decoded | background |
|---|---|---|---|---|---|
{rows}
{notes}
{pictures}

Made by `generalist tokenizer train frames`, from `spec.yaml`. Retraining changes every code: data
and checkpoints name the fingerprint they were made with.
"""
