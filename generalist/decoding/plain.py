"""The model's own forward pass over rows of a cache: what acting runs with any architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from generalist.decoding.cache import ATTENTION_NAME, RowCache, RowPlan
from generalist.modeling.attention import attention_by


class PlainPass:
    """As `LeanPass`, through the code of a Hugging Face model that is not known more closely."""

    def __init__(self, model: Any, rows: int, capacity: int) -> None:
        self._model = model
        self._cache = RowCache(rows, capacity)
        self.copy_prefix = self._cache.copy_prefix

    def refresh(self, thoroughly: bool = False) -> None:
        """Nothing to do: the model's weights are read where they are."""

    def __call__(
        self, tokens: Sequence[int] | torch.Tensor, plan: RowPlan, count: int
    ) -> torch.Tensor:
        """Feed P ids as `plan` says; (count, E) final states of the first `count` rows."""
        self._cache.plan = plan
        with attention_by(self._model.config, ATTENTION_NAME):
            output = self._model.base_model(
                input_ids=torch.as_tensor(tokens, device=self._model.device)[None],
                position_ids=plan.position_ids,
                past_key_values=self._cache,
                use_cache=True,
                row_plan=plan,
            )
        return output.last_hidden_state[0, plan.last[:count]]
