"""V-trace: values and advantages from unrolls that somewhat older weights played.

Espeholt et al. 2018 (IMPALA), section 4.1.

Shapes: B = unrolls, T = steps of an unroll.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Traced(NamedTuple):
    """What unrolls say of values and actions.

    Attributes:
        values: (B, T) float32, what the value of each state should be.
        advantages: (B, T) float32, how much better each action was than the value expected. Not
            multiplied by the importance weight.
    """

    values: Tensor
    advantages: Tensor


def v_trace(
    rewards: Tensor,
    discounts: Tensor,
    values: Tensor,
    ratios: Tensor,
    *,
    trace_decay: float = 1.0,
    most: float = 1.0,
) -> Traced:
    """V-trace's targets, with lambda as in TD(lambda).

    With importance weights of 1 and lambda 1 they are n-step bootstrapped returns (the paper's
    remark 1), with another lambda those of TD(lambda).

    Args:
        rewards: (B, T) float32, of each step.
        discounts: (B, T) float32, of what follows a step; 0 where the episode ended.
        values: (B, T + 1) float32, of the states, the one after the last step too.
        ratios: (B, T) float32, probability of each action now over that when it was chosen.
        trace_decay: lambda, in [0, 1].
        most: importance weights are cut there (the paper's bars over rho and c).
    """
    weights = ratios.clamp(max=most)
    errors = weights * (rewards + discounts * values[:, 1:] - values[:, :-1])
    carried = torch.zeros_like(values[:, 0])
    corrections = [carried] * rewards.shape[1]
    for step in reversed(range(rewards.shape[1])):
        carried = errors[:, step] + discounts[:, step] * trace_decay * weights[:, step] * carried
        corrections[step] = carried
    targets = torch.stack(corrections, dim=1) + values[:, :-1]
    following = torch.cat([targets[:, 1:], values[:, -1:]], dim=1)
    ahead = trace_decay * following + (1 - trace_decay) * values[:, 1:]
    return Traced(targets, rewards + discounts * ahead - values[:, :-1])
