"""The model's own forward pass over rows of a cache: what acting runs with any architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from generalist.decoding.cache import ATTENTION_NAME, RowCache, RowPlan
from generalist.modeling.attention import attention_by


class PlainPass:
    """As `LeanPass`, through the code of a Hugging Face model that is not known more closely.

    Args:
        model: the model.
        rows: how many.
        capacity: most tokens of a row.

    Attributes:
        copy_prefix: as `LeanPass.copy_prefix`.
        copy_rows: as `LeanPass.copy_rows`.
    """

    def __init__(self, model: Any, rows: int, capacity: int) -> None:
        self._model = model
        self._cache = RowCache(rows, capacity)
        self.copy_prefix = self._cache.copy_prefix
        self.copy_rows = self._cache.copy_rows

    def refresh(self, thoroughly: bool = False) -> None:
        """Nothing to do: the model's weights are read where they are."""

    def __call__(
        self,
        tokens: Sequence[int] | torch.Tensor,
        plan: RowPlan,
        asked: Sequence[int],
        added: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run a forward pass.

        Args:
            tokens: P ids.
            plan: which rows they are of.
            asked: of each of the first rows, how many of its last new tokens' states are wanted;
                M in all.
            added: (P, E) of the model's dtype, added to the embeddings of the ids; None for
                nothing.

        Returns:
            (M, E) final states, row by row.
        """
        self._cache.plan = plan
        ids = torch.as_tensor(tokens, device=self._model.device)
        embedded = self._model.get_input_embeddings()(ids)
        if added is not None:
            embedded = embedded + added
        with attention_by(self._model.config, ATTENTION_NAME):
            output = self._model.base_model(
                inputs_embeds=embedded[None],
                position_ids=plan.position_ids,
                past_key_values=self._cache,
                use_cache=True,
                row_plan=plan,
            )
        return output.last_hidden_state[0, plan.last(asked)]
