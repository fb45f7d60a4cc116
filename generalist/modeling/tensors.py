"""Dataclasses of tensors that are moved and changed as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Own = TypeVar("Own", bound="Tensors")


class Tensors:
    """Base of dataclasses of tensors, plain values, and such dataclasses, alone or in tuples."""

    def map(self: Own, function: Callable[[Any], Any]) -> Own:
        """The same with `function` applied to each tensor or array."""
        changed: dict[str, Any] = {}
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if isinstance(value, Tensors):
                changed[each.name] = value.map(function)
            elif isinstance(value, (Tensor, np.ndarray)):
                changed[each.name] = function(value)
            elif isinstance(value, tuple) and value and isinstance(value[0], Tensors):
                changed[each.name] = tuple(part.map(function) for part in value)
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self: Own, device: torch.device) -> Own:
        """The same with all tensors on a device."""
        return self.map(lambda tensor: tensor.to(device))
