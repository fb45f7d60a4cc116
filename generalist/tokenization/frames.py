"""Frames as discrete codes: one 84x84 RGB frame becomes 6x6 = 36 codes of 1,000 values.

A patch of 14x14 pixels is encoded by itself, as its difference from the background of the game.
The background is the per-pixel median frame. Those of the games that the codec was trained on are
stored with the weights, any other one is given. FSQ (finite scalar quantisation, Mentzer et al.
2023, arXiv:2309.15505) makes the code. Encoder and decoder also see the background patch: the code
says what has changed, the background what such a change looks like.

By construction, a patch equal to its background has the code `still_code`, and decodes exactly to
the background. So only changed patches are computed, and no patch changes the code of another.

Shapes: N = frames, M = changed patches, P = 14*14*3 = 588 values of a patch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ

from generalist.errors import GeneralistError, needing
from generalist.tokenization.background import Background

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
BACKGROUND_PREFIX = "background."
FORMAT = "generalist-frames-2"


@dataclass(frozen=True)
class FrameConfig:
    """The sizes of a frame tokenizer; stored as `config.json` beside the weights."""

    frame_size: int = 84
    """Height and width in pixels to which every frame is resized."""
    patch_size: int = 14
    """Height and width in pixels of the patch that one code stands for."""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Quantisation levels of each latent dimension; their product is the codebook size."""
    hidden_features: int = 192
    """Width of the hidden layers of encoder and decoder."""
    background_features: int = 32
    """Width of the summary of the background patch that both see."""

    @property
    def grid(self) -> int:
        """Patches along each side of a frame."""
        return self.frame_size // self.patch_size

    @property
    def patch_values(self) -> int:
        """Values in one patch: height x width x 3 colours."""
        return self.patch_size * self.patch_size * 3


class PatchCodec(nn.Module):
    """Encoder, FSQ and decoder of single patches; float32 in [0, 1] throughout."""

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        self.config = config
        hidden, summary = config.hidden_features, config.background_features
        latents = len(config.levels)
        self.background_in = nn.Sequential(nn.Linear(config.patch_values, summary), nn.Tanh())
        self.residual_in = nn.Linear(config.patch_values, hidden)
        self.condition_in = nn.Linear(summary, hidden, bias=False)
        self.encoder = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        # Without a bias: of two equal hidden states nothing must remain.
        self.latents_out = nn.Linear(hidden, latents, bias=False)
        self.quantizer = FSQ(list(config.levels))
        self.code_in = nn.Linear(latents * CODE_FEATURES, hidden)
        self.condition_out = nn.Linear(summary, hidden, bias=False)
        self.decoder = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.residual_out = nn.Linear(hidden, config.patch_values, bias=False)

    def latents(self, residual: Tensor, background: Tensor) -> Tensor:
        """(M, P) differences and backgrounds -> (M, 4) unbounded latents, 0 for no difference."""
        condition = self.condition_in(self.background_in(background))
        changed = self.residual_in(residual) + condition
        still = self.residual_in.bias + condition
        return self.latents_out(self.encoder(changed) - self.encoder(still))

    def reconstruct(self, quantized: Tensor, background: Tensor) -> Tensor:
        """(M, 4) quantised latents and (M, P) backgrounds -> (M, P) differences."""
        condition = self.condition_out(self.background_in(background))
        changed = self.code_in(code_features(quantized)) + condition
        still = self.code_in(code_features(torch.zeros_like(quantized[:1]))) + condition
        return self.residual_out(self.decoder(changed) - self.decoder(still))

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(M, 4) latents -> (M, 4) quantised latents in [-1, 1] and (M,) codes."""
        quantized, codes = self.quantizer(latents[None])
        return quantized[0], codes[0]


CODE_FEATURES = 7


def code_features(quantized: Tensor) -> Tensor:
    """(M, D) -> (M, 7 D): latents with sines and cosines, so that neighbours can differ much."""
    angles = torch.cat([quantized * (np.pi * k / 2) for k in (1, 2, 4)], dim=-1)
    return torch.cat([quantized, angles.sin(), angles.cos()], dim=-1)


def resize_frames(frames: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W, 3) uint8 of any size -> (N, size, size, 3) uint8 by area averaging."""
    if frames.shape[1:3] == (size, size):
        return np.ascontiguousarray(frames)
    with needing("Frames of another size"):
        import cv2

    resized = np.empty((len(frames), size, size, 3), np.uint8)
    for index, frame in enumerate(frames):
        cv2.resize(frame, (size, size), dst=resized[index], interpolation=cv2.INTER_AREA)
    return resized


def to_patches(frames: np.ndarray, patch: int) -> np.ndarray:
    """(N, S, S, 3) -> (N, G*G, patch*patch*3), patches in row-major order, G = S / patch."""
    count, size = frames.shape[:2]
    grid = size // patch
    cells = frames.reshape(count, grid, patch, grid, patch, 3).swapaxes(2, 3)
    return cells.reshape(count, grid * grid, patch * patch * 3)


def from_patches(patches: np.ndarray, patch: int) -> np.ndarray:
    """Inverse of `to_patches`."""
    count, cells = patches.shape[:2]
    grid = round(cells**0.5)
    frames = patches.reshape(count, grid, grid, patch, patch, 3).swapaxes(2, 3)
    return frames.reshape(count, grid * patch, grid * patch, 3)


class FrameTokenizer:
    """Frames to codes and back, in numpy; see the head of this file for what a code means."""

    def __init__(
        self,
        codec: PatchCodec,
        backgrounds: dict[str, np.ndarray] | None = None,
        chunk_patches: int = 8192,
    ) -> None:
        self.codec = codec.eval().requires_grad_(False)
        self.config = codec.config
        self.backgrounds = dict(backgrounds or {})
        self._chunk_patches = chunk_patches
        self._prepared: dict[Background | str, np.ndarray] = {}

    @property
    def codes_per_frame(self) -> int:
        """Codes for one frame (36)."""
        return self.config.grid**2

    @property
    def codebook_size(self) -> int:
        """Number of different codes (1,000)."""
        return int(np.prod(self.config.levels))

    @property
    def code_coordinates(self) -> np.ndarray:
        """(codebook_size, latents) float32: the quantised latents of each code, in [-1, 1]."""
        levels = self.config.levels
        digits = np.unravel_index(np.arange(self.codebook_size), levels[::-1])[::-1]
        steps = np.maximum(np.array(levels) - 1, 1)
        return (np.stack(digits, axis=1) / steps * 2 - 1).astype(np.float32)

    @property
    def still_code(self) -> int:
        """The code of every patch that equals its background."""
        zero = torch.zeros(1, len(self.config.levels))
        return int(self.codec.quantize(zero)[1])

    def _background_patches(self, background: Background | str | None) -> np.ndarray:
        """(G*G, P) uint8; black where no background is known."""
        fitted = isinstance(background, Background)
        key = background if fitted or background in self.backgrounds else ""
        assert key is not None
        if key not in self._prepared:
            frame = key.picture if isinstance(key, Background) else self._named_picture(key)
            size = self.config.frame_size
            if frame.shape != (size, size, 3):
                raise GeneralistError(
                    f"The background in a layout is a picture of shape {frame.shape}, but the "
                    f"frame tokenizer codes frames of {size}x{size}: use the tokenizer that the "
                    "layout was made with."
                )
            self._prepared[key] = to_patches(frame[None], self.config.patch_size)[0]
        return self._prepared[key]

    def _named_picture(self, name: str) -> np.ndarray:
        size = self.config.frame_size
        return self.backgrounds.get(name, np.zeros((size, size, 3), np.uint8))

    def encode(self, frames: np.ndarray, background: Background | str | None = None) -> np.ndarray:
        """Codes of frames.

        Args:
            frames: (N, H, W, 3) uint8 RGB of any size.
            background: what is to be taken off: a picture, or the name of a task whose median frame
                the tokenizer has. Without one, or with a name that is not known, codes describe
                the whole picture.

        Returns:
            (N, codes_per_frame) int64 in [0, codebook_size).
        """
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise GeneralistError(
                f"Frames of shape {frames.shape} and dtype {frames.dtype} were given, but the "
                "frame tokenizer takes (N, height, width, 3) uint8: repeat a grey channel three "
                "times, and scale values to 0..255."
            )
        still = self._background_patches(background)
        patches = to_patches(resize_frames(frames, self.config.frame_size), self.config.patch_size)
        codes = np.full(patches.shape[:2], self.still_code, np.int64)
        rows, cells = np.nonzero((patches != still).any(axis=-1))
        for start in range(0, len(rows), self._chunk_patches):
            row, cell = (index[start : start + self._chunk_patches] for index in (rows, cells))
            codes[row, cell] = self._encode_patches(patches[row, cell], still[cell])
        return codes

    @torch.inference_mode()
    def _encode_patches(self, patches: np.ndarray, still: np.ndarray) -> np.ndarray:
        """(M, P) uint8 patches and their backgrounds -> (M,) codes."""
        background = torch.from_numpy(still).float() / 255
        residual = torch.from_numpy(patches).float() / 255 - background
        return self.codec.quantize(self.codec.latents(residual, background))[1].numpy()

    @torch.inference_mode()
    def decode(self, codes: np.ndarray, background: Background | str | None = None) -> np.ndarray:
        """(N, codes_per_frame) codes -> (N, 84, 84, 3) uint8 frames.

        `background` must be the one that the frames were encoded with.
        """
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] != self.codes_per_frame:
            raise GeneralistError(
                f"Codes of shape {codes.shape} were given, but a frame is {self.codes_per_frame} "
                f"codes: expected (N, {self.codes_per_frame})."
            )
        if codes.size and not (0 <= codes.min() and codes.max() < self.codebook_size):
            raise GeneralistError(
                f"Codes between {codes.min()} and {codes.max()} were given, but a code lies in "
                f"[0, {self.codebook_size})."
            )
        still = self._background_patches(background)
        patches = np.broadcast_to(still, (len(codes), *still.shape)).copy()
        rows, cells = np.nonzero(codes != self.still_code)
        for start in range(0, len(rows), self._chunk_patches):
            row, cell = (index[start : start + self._chunk_patches] for index in (rows, cells))
            known = torch.from_numpy(still[cell]).float() / 255
            latents = self.codec.quantizer.indices_to_codes(torch.from_numpy(codes[row, cell]))
            picture = known + self.codec.reconstruct(latents, known)
            patches[row, cell] = (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        return from_patches(patches, self.config.patch_size)

    @property
    def fingerprint(self) -> str:
        """Hash of configuration, weights and backgrounds: equal fingerprints, equal codes."""
        digest = hashlib.sha256(json.dumps(_config_dict(self.config), sort_keys=True).encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()[:16]

    def _tensors(self) -> dict[str, np.ndarray]:
        """What is stored: weights in half precision (training rounds them to it), backgrounds."""
        tensors = {
            name: value.to(torch.float16).numpy() for name, value in self.codec.state_dict().items()
        }
        for name, frame in self.backgrounds.items():
            tensors[BACKGROUND_PREFIX + name] = frame
        return tensors

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `model.safetensors` and `config.json` to `directory`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f"{WEIGHTS_FILE}.partial"
        save_file(self._tensors(), partial)
        partial.replace(directory / WEIGHTS_FILE)
        config = {**_config_dict(self.config), "fingerprint": self.fingerprint}
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> FrameTokenizer:
        """Read what `save_pretrained` wrote.

        Raises:
            GeneralistError: a file is missing or damaged, or does not match the other.
        """
        directory = Path(directory)
        try:
            config = json.loads((directory / CONFIG_FILE).read_text())
            tensors = load_file(directory / WEIGHTS_FILE)
            tokenizer = cls._build(config, tensors)
        except FileNotFoundError as error:
            raise GeneralistError(
                f"No frame tokenizer in {directory}: {Path(error.filename or WEIGHTS_FILE).name} "
                "is missing. Train one with `generalist tokenizer train frames`."
            ) from error
        except GeneralistError:
            raise
        except Exception as error:  # whatever a damaged file makes the readers raise
            reason = f"The frame tokenizer in {directory} is damaged: {error}"
            raise GeneralistError(reason) from error
        if tokenizer.fingerprint != config.get("fingerprint"):
            raise GeneralistError(
                f"The frame tokenizer in {directory} has the fingerprint {tokenizer.fingerprint}, "
                f"but its {CONFIG_FILE} says {config.get('fingerprint')}: weights and "
                "configuration are not of one training; restore both files."
            )
        return tokenizer

    @classmethod
    def _build(cls, config: dict, tensors: dict[str, np.ndarray]) -> FrameTokenizer:
        if config.get("format") != FORMAT:
            raise GeneralistError(
                f"The frame tokenizer's format is {config.get('format')!r}, but this version reads "
                f"{FORMAT!r}."
            )
        sizes = {field.name: config[field.name] for field in fields(FrameConfig)}
        sizes["levels"] = tuple(sizes["levels"])
        # Never on the meta device: FSQ's own tables are not in the file and must be computed here.
        with torch.device("cpu"):
            codec = PatchCodec(FrameConfig(**sizes))
        backgrounds = {
            name.removeprefix(BACKGROUND_PREFIX): value
            for name, value in tensors.items()
            if name.startswith(BACKGROUND_PREFIX)
        }
        weights = {
            name: torch.from_numpy(value).float()
            for name, value in tensors.items()
            if not name.startswith(BACKGROUND_PREFIX)
        }
        codec.load_state_dict(weights)
        return cls(codec, backgrounds)


def _config_dict(config: FrameConfig) -> dict:
    return {"format": FORMAT, **asdict(config), "levels": list(config.levels)}
