"""Experts that were trained: a small network as safetensors and JSON, run in numpy.

A folder holds `expert.json` (the card: task, network, how it was trained, what it scores) and
`policy.safetensors`. Nothing in it is a pickle, and neither torch nor the training package is
needed to demonstrate.

Legend: D = elements of the flattened observation, H = hidden units, A = outputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from generalist.errors import GeneralistError, UsageError

CARD_FILE, WEIGHTS_FILE = "expert.json", "policy.safetensors"
_FORMAT = 1
_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}
_OUTPUTS = ("argmax", "clip", "tanh")


class TrainedExpert:
    """The deterministic action of a policy: it labels any state it is shown.

    card: as in `expert.json`. weights: `weight.I` (H or A, D or H) and `bias.I` of each layer I,
    and where observations are normalised `mean` and `std`, (D,). All float32.

    The output is an index (`argmax`), an action to be clipped to its space (`clip`), or one
    squashed to [-1, 1] that is scaled to it (`tanh`).
    """

    def __init__(self, card: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        self.card = card
        self.name = str(card["algorithm"])
        self._activation = _ACTIVATIONS[card["activation"]]
        self._output = card["output"]
        self._clip = float(card.get("clip_observation", np.inf))
        self._weights = weights
        self._layers = [
            (weights[f"weight.{i}"].T, weights[f"bias.{i}"]) for i in range(card["layers"])
        ]

    @classmethod
    def load(cls, folder: str | Path, task: str | None = None) -> TrainedExpert:
        """The expert of a folder; UsageError where it is of another task than `task`."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        try:
            card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
            if card["format"] != _FORMAT or card["output"] not in _OUTPUTS:
                raise ValueError("it is of another format")
            expert = cls(card, load_file(folder / WEIGHTS_FILE))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise GeneralistError(f"{folder} does not hold a trained expert: {error}.") from error
        if task is not None and card["task"] != task:
            raise UsageError(f"The expert in {folder} is of {card['task']}, not of {task}.")
        return expert

    def save(self, folder: str | Path) -> None:
        """Write the folder; the card comes last, so one with a card is complete."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self._weights, folder / WEIGHTS_FILE)
        partial = folder / f"{CARD_FILE}.partial"
        partial.write_text(json.dumps(self.card, indent=1) + "\n", encoding="utf-8")
        partial.replace(folder / CARD_FILE)

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Nothing is kept between steps."""

    def label(self, observation: Any, env: gymnasium.Env) -> Any:
        """The policy's action for this observation."""
        seen = flatten(env.observation_space, observation)
        return self.act(np.asarray(seen, np.float32), env.action_space)

    def act(self, observation: np.ndarray, action_space: spaces.Space) -> Any:
        """The action for a flattened observation (D,)."""
        x = observation
        if "mean" in self._weights:
            x = (x - self._weights["mean"]) / self._weights["std"]
            x = np.clip(x, -self._clip, self._clip)
        for weight, bias in self._layers[:-1]:
            x = self._activation(x @ weight + bias)
        weight, bias = self._layers[-1]
        x = x @ weight + bias
        if isinstance(action_space, spaces.Discrete):
            return action_space.start + np.argmax(x)
        assert isinstance(action_space, spaces.Box)
        low, high = action_space.low, action_space.high
        x = x.reshape(action_space.shape)
        if self._output == "tanh":
            x = low + (np.tanh(x) + 1) / 2 * (high - low)
        return np.clip(x, low, high).astype(action_space.dtype)


def is_trained(name: str) -> bool:
    """Whether `name` is the folder of a trained expert."""
    return (Path(name) / CARD_FILE).is_file()
