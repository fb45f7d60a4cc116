"""The loss of reinforcement: V-trace's advantages, a clipped surrogate, values and entropy.

Shapes: B = unrolls, T = steps of an unroll, C = number of `COLUMNS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from generalist.modeling.tensors import Tensors
from generalist.modeling.values import values_of
from generalist.training.objective import TokenObjective
from generalist.training.passes import ForwardPass
from generalist.training.reinforcement.policy import Tokens, hidden_of, log_probs_of
from generalist.training.reinforcement.recipe import ReinforcementRecipe
from generalist.training.reinforcement.timesteps import Timesteps
from generalist.training.reinforcement.vtrace import v_trace

COLUMNS = ("policy", "value", "entropy", "kl", "clipped", "ratio", "lag")
"""What the objective gives of each step, in this order.

The negative surrogate, the loss of the value, the entropy of the action in nats, an estimate of the
divergence from the start in nats, whether the surrogate's clip takes effect, the probability ratio,
and an estimate of the divergence from what acted, in nats.
"""


@dataclass(frozen=True, kw_only=True)
class UnrollPass(Tensors):
    """A forward pass over whole unrolls.

    Attributes:
        timesteps: the B (T + 1) states, unroll by unroll.
        tokens: the action tokens of the B T steps; `state` counts the steps, unroll by unroll.
        task: (B,) int64 numbers of tasks.
        rewards: (B, T) float32, as they are learned from.
        discounts: (B, T) float32, of what follows; 0 where the episode ended.
        behaviour: (B, T) float32, log-probability of each action when it was chosen.
        reference: (B, T) float32, under the policy that the run starts with.
        scale: (B,) float32, what advantages are divided by.
        weight: (C,) float32, of each column in the loss.
    """

    timesteps: Timesteps
    tokens: tuple[Tokens, ...]
    task: Tensor
    rewards: Tensor
    discounts: Tensor
    behaviour: Tensor
    reference: Tensor
    scale: Tensor
    weight: Tensor

    @property
    def count(self) -> float:
        """The pass's part of the divisor of the summed loss: its steps."""
        return float(self.rewards.numel())


class ReinforcementObjective(nn.Module):
    """A causal LM with its losses of reinforcement and of imitation, as one module.

    Args:
        imitation: the model with its loss on demonstrations.
        recipe: weighs the losses.
    """

    def __init__(self, imitation: TokenObjective, recipe: ReinforcementRecipe) -> None:
        super().__init__()
        self.imitation = imitation
        self.recipe = recipe

    @property
    def model(self) -> PreTrainedModel:
        """The model."""
        return self.imitation.model

    @property
    def segments(self) -> bool:
        """As in TokenObjective."""
        return self.imitation.segments

    @property
    def half(self) -> bool:
        """As in TokenObjective."""
        return self.imitation.half

    def forward(self, batch: UnrollPass | ForwardPass) -> Tensor:
        """(B, T, C) columns of unrolls, or the (M,) losses of demonstrations."""
        if not isinstance(batch, UnrollPass):
            return self.imitation(batch)
        recipe, steps = self.recipe, batch.rewards.shape
        hidden = hidden_of(self.model, batch.timesteps)
        # 1. What the policy says now of the actions that were taken.
        log_prob = torch.zeros(steps.numel(), device=hidden.device)
        entropy = torch.zeros_like(log_prob)
        for tokens, log_probs in log_probs_of(self.model, hidden, batch.tokens):
            taken = log_probs.gather(1, tokens.taken[:, None])[:, 0]
            log_prob = log_prob.index_add(0, tokens.state, taken)
            spread = -(log_probs.exp() * log_probs).sum(-1)
            entropy = entropy.index_add(0, tokens.state, spread)
        log_prob, entropy = log_prob.view(steps), entropy.view(steps)
        change = log_prob - batch.behaviour
        ratio = change.exp()
        # 2. What the values say, and what they and the policy should.
        value_loss, advantage = self._values(batch, hidden, ratio.detach())
        # 3. The surrogate.
        if recipe.surrogate == "v-trace":
            weight = ratio.detach().clamp(max=1.0) if recipe.importance else 1.0
            gain = weight * advantage * log_prob
            clipped = torch.zeros_like(gain)
        else:
            near = ratio.clamp(1 - recipe.clip, 1 + recipe.clip)
            gain = torch.minimum(ratio * advantage, near * advantage)
            clipped = (gain != ratio * advantage).float()
        # 4. How far it is from the start, and from what acted.
        divergence = _divergence(log_prob, batch.reference, ratio)
        lag = ratio.detach() - 1 - change.detach()
        columns = (-gain, value_loss, entropy, divergence, clipped, ratio.detach(), lag)
        return torch.stack(columns, dim=-1)

    def _values(self, batch: UnrollPass, hidden: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) losses of the values, and (B, T) advantages."""
        values = values_of(self.model)
        assert values is not None
        steps = batch.rewards.shape[1]
        task = batch.task.repeat_interleave(steps + 1)
        outputs = values(hidden[batch.timesteps.first], task)
        with torch.no_grad():
            traced = v_trace(
                batch.rewards,
                batch.discounts,
                values.value(outputs, task).view(-1, steps + 1),
                ratio if self.recipe.importance else torch.ones_like(ratio),
                trace_decay=self.recipe.trace_decay,
            )
            advantage = traced.advantages / batch.scale[:, None]
        before = outputs.unflatten(0, (-1, steps + 1))[:, :-1].flatten(0, 1)
        wanted = traced.values.flatten()
        losses = values.losses(before, wanted, batch.task.repeat_interleave(steps))
        return losses.view(-1, steps), advantage


def _divergence(log_prob: Tensor, reference: Tensor, ratio: Tensor) -> Tensor:
    """(B, T) estimates of KL(policy | start), which are never negative.

    Each is r - 1 - log r with r = start / policy (Schulman 2020, "Approximating KL divergence"),
    times the ratio policy / behaviour. So its mean over what acted is the divergence, whatever the
    weights, and its mean gradient the divergence's. Without the gradient of the ratio that would
    be the gradient of KL(start | policy) (Tang and Munos 2025, arXiv:2506.09477).

    Args:
        log_prob: (B, T) of the actions under the policy.
        reference: (B, T) under the start.
        ratio: (B, T) policy / behaviour, with its gradient.
    """
    apart = reference - log_prob
    return ratio * (apart.exp() - 1 - apart)
