"""World heads: from the state at an action to its outcome and the observation that follows.

The end, the reward and the return-to-go after the action are read in parallel. The tokens of the
next observation are predicted one after the other, each given those before it (Janner et al. 2021,
"Offline Reinforcement Learning as One Big Sequence Modeling Problem", section 3.1), but within this
head, not by the body: a whole timestep costs the body one position for its action.

Most of what is observed changes little from one step to the next. So the logits of a token are
those of the model's own table of ids, and beside them those of how far it lies from what it was.

Legend: n = actions, K = tokens of an observation, D = hidden size, W = width of an embedder's rows,
R = the farthest of these distances, V = ids of a token's run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generalist.tokenization.compact import Run, Signature
from generalist.tokenization.outcomes import OUTCOME

REACH = 128
"""R, in bins; a token without an order is the same as before, or any other."""

HIGHEST = 30.0
"""Frequency of the features that the rows of distances start from, radians per R bins."""

_SCALE = 0.1  # of these rows; as those of the model's table of bins


class WorldHead(nn.Module):
    """Predicts the outcomes of actions under observations of one signature.

    Args:
        signature: of the observations.
        width: W.
        hidden_size: D.
        near: (2 R + 1, D) what the rows of distances start from.
    """

    def __init__(self, signature: Signature, *, width: int, hidden_size: int, near: Tensor) -> None:
        super().__init__()
        self.signature = signature
        std = hidden_size**-0.5
        # One row for each of the three codes of an outcome, then one for each token.
        self.places = nn.Parameter(torch.randn(OUTCOME + signature.tokens, hidden_size) * std)
        # What the tokens before a token add to its state. Three axes: no matrix of the body.
        self.earlier = nn.Parameter(torch.zeros(signature.tokens, width, hidden_size))
        self.widen = nn.Linear(hidden_size, 2 * hidden_size)
        self.narrow = nn.Linear(2 * hidden_size, hidden_size)
        self.gain = nn.Parameter(torch.ones(hidden_size))
        self.near = nn.Parameter(near * _SCALE)

    @property
    def tables(self) -> list[nn.Parameter]:
        """What is looked up, not multiplied by, or has the shape of it."""
        return [self.places, self.near]

    def outcome_states(self, hidden: Tensor) -> Tensor:
        """(n, D) states at actions to (n, 3, D), from which end, reward and return are read."""
        return self._mixed(hidden[:, None] + self.places[:OUTCOME])

    def token_states(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """(n, K, D) states, from which all tokens of the next observation are read at once.

        Args:
            hidden: (n, D) states at actions.
            rows: (n, K, W) rows of the tokens to be predicted; each state has those before it.
        """
        added = torch.einsum("nkw,kwd->nkd", rows, self.earlier)
        before = added.cumsum(1) - added
        return self._mixed(hidden[:, None] + before + self.places[OUTCOME:])

    def token_state(self, hidden: Tensor, number: int) -> Tensor:
        """(n, D) the state of token `number`; `hidden` has what the tokens before it added."""
        return self._mixed(hidden + self.places[OUTCOME + number])

    def added(self, hidden: Tensor, rows: Tensor, number: int) -> Tensor:
        """(n, D) hidden with what token `number` adds, whose rows are (n, W)."""
        return hidden + rows @ self.earlier[number]

    def logits(self, states: Tensor, before: Tensor, table: Tensor, run: Run) -> Tensor:
        """(n, V) logits of tokens of a run.

        Args:
            states: (n, D).
            before: (n,) int64, offsets within the run that the tokens had before the action.
            table: (V, D) rows of the run's ids in the model's output.
            run: the run.
        """
        logits = F.linear(states, table).float()
        reach = REACH if run.kind == "bins" else 0
        near = F.linear(states, self.near[REACH - reach : REACH + reach + 1]).float()
        places = before[:, None] + torch.arange(2 * reach + 1, device=before.device)
        wide = F.pad(logits, (reach, reach)).scatter_add(1, places, near)
        return wide[:, reach : reach + run.rows]

    def _mixed(self, states: Tensor) -> Tensor:
        """(..., D) by a feed-forward block of its own, normalised."""
        width = states.shape[-1:]
        changed = self.narrow(F.silu(self.widen(F.rms_norm(states, width))))
        return F.rms_norm(states + changed, width) * self.gain


def local_means(logits: Tensor, reach: int = 8) -> Tensor:
    """(n,) float64 offsets: the mean of (n, V) logits within `reach` bins of the likeliest.

    A prediction lies between bins, and where there are several it is the likeliest that counts.
    """
    peak = logits.argmax(1, keepdim=True)
    bins = torch.arange(logits.shape[1], device=logits.device)
    far = (bins - peak).abs() > reach
    shares = logits.masked_fill(far, -torch.inf).double().softmax(1)
    return shares @ bins.double()
