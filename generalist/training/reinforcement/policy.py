"""The policy of a model over timesteps: its own logits of the legal action tokens.

It is what an agent does with the same weights at temperature 1.

Shapes: N = timesteps in which an action is chosen, k = action tokens of a timestep, D = hidden
size, P = positions of timesteps, r = action tokens that are chosen from one interval of ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generalist.decoding.sampling import Sampling
from generalist.modeling.branches import hidden_of_branches
from generalist.modeling.embedders import Embedders
from generalist.modeling.tensors import Tensors
from generalist.modeling.values import values_of
from generalist.tokenization.layout import Layout
from generalist.training.reinforcement.legal import Legal, bounds_of, orders_of
from generalist.training.reinforcement.timesteps import Shower, States, Timesteps

FORBIDDEN = -1e9
"""Logit of an illegal id. Infinity would make p log p, in the entropy, and its gradient NaN."""


@dataclass(frozen=True, kw_only=True)
class Tokens(Tensors):
    """Action tokens with one interval of legal ids, of many timesteps.

    Attributes:
        start: first legal id.
        stop: first id after the legal ones.
        temperature: what the logits are divided by.
        row: (r,) int64, position of the timesteps that chooses the token.
        state: (r,) int64, number of the timestep.
        place: (r,) int64, which of the timestep's action tokens it is.
        taken: (r,) int64, the id that was taken, from `start` on.
        legal: (r, stop - start) bool, False where a mask forbids the id; None where none does.
    """

    start: int
    stop: int
    temperature: float
    row: Tensor
    state: Tensor
    place: Tensor
    taken: Tensor
    legal: Tensor | None = None


Flags = Mapping[int, np.ndarray]
"""For each task that masks its actions, the flags (see `Legal`) of its timesteps in order."""


def tokens_of(
    layouts: Sequence[Layout],
    task: np.ndarray,
    first: np.ndarray,
    ids: np.ndarray,
    *,
    legal: Flags | None = None,
    order: int | None = None,
) -> tuple[Tokens, ...]:
    """The action tokens of N timesteps, by interval and by whether they are masked.

    Args:
        layouts: of the tasks, by number.
        task: (N,) int64 numbers of tasks.
        first: (N,) int64, where each timestep chooses its first token.
        ids: (N, most k) int64 ids that were taken; whatever behind a timestep's own k.
        legal: which ids are legal.
        order: only the tokens with so many digits of the same integer before them; None for all.
    """
    found: dict[tuple[_Kind, bool], list[tuple[np.ndarray, int, np.ndarray | None]]] = {}
    for number in np.unique(task):
        states = np.flatnonzero(task == number)
        flags = (legal or {}).get(int(number))
        bounds, orders = bounds_of(layouts[number]), orders_of(layouts[number])
        for place, kind in enumerate(_kinds(layouts[number])):
            if order is None or orders[place] == order:
                mine = None if flags is None else flags[:, bounds[place] : bounds[place + 1]]
                found.setdefault((kind, flags is not None), []).append((states, place, mine))
    return tuple(
        _tokens(kind, parts, first=first, ids=ids) for (kind, _), parts in sorted(found.items())
    )


_Kind = tuple[int, int, float]  # first legal id, the one after the last, and temperature


def _kinds(layout: Layout) -> list[_Kind]:
    """The kind of each action token."""
    positions = layout.positions
    ordinal = positions.bins[positions.chosen] >= 0
    factors = np.where(ordinal, Sampling().ordinal_factor, 1.0).tolist()
    return [(*interval, factor) for interval, factor in zip(layout.legal, factors, strict=True)]


def _tokens(
    kind: _Kind,
    parts: Sequence[tuple[np.ndarray, int, np.ndarray | None]],
    *,
    first: np.ndarray,
    ids: np.ndarray,
) -> Tokens:
    state = np.concatenate([states for states, *_ in parts])
    place = np.concatenate([np.full(len(states), place) for states, place, _ in parts])
    flags = [each for *_, each in parts if each is not None]
    legal = torch.from_numpy(np.concatenate(flags)) if flags else None
    start, stop, temperature = kind
    columns = (first[state] + place, state, place, ids[state, place] - start)
    row, state, place, taken = (torch.from_numpy(np.asarray(x, np.int64)) for x in columns)
    of_tokens = {"row": row, "state": state, "place": place, "taken": taken}
    return Tokens(start=start, stop=stop, temperature=temperature, legal=legal, **of_tokens)


def hidden_of(model: Any, timesteps: Timesteps) -> Tensor:
    """(P, D) final hidden states at the positions of timesteps."""
    embedders: Embedders = model.embedders
    embedded = embedders(model.get_input_embeddings()(timesteps.input_ids), timesteps.embedded)
    decoder = model.get_decoder()
    return hidden_of_branches(decoder, embedded, timesteps.position_ids, timesteps.groups)


def log_probs_of(
    model: Any, hidden: Tensor, tokens: Sequence[Tokens]
) -> Iterator[tuple[Tokens, Tensor]]:
    """Each interval's tokens with the (r, stop - start) float32 log-probabilities of its ids.

    Illegal ids have the probability 0 and the log-probability `FORBIDDEN`.
    """
    if not tokens:
        return
    low, high = min(each.start for each in tokens), max(each.stop for each in tokens)
    # One slice for all: the gradient of a slice is a tensor of the whole size.
    head = model.get_output_embeddings().weight[low:high]
    for each in tokens:
        logits = F.linear(hidden[each.row], head[each.start - low : each.stop - low])
        logits = logits.float() / each.temperature
        if each.legal is not None:
            logits = logits.masked_fill(~each.legal, FORBIDDEN)
        yield each, logits.log_softmax(-1)


class Acted(NamedTuple):
    """What a policy chose for N timesteps.

    Attributes:
        ids: (N, most k) int64, zeros behind a timestep's own k.
        log_probs: (N,) float32, of whole actions.
        values: (N,) float32 in units of rewards.
        legal: which ids were legal.
    """

    ids: np.ndarray
    log_probs: np.ndarray
    values: np.ndarray
    legal: Flags


@torch.inference_mode()
def act(model: Any, shower: Shower, states: Sequence[States], random: torch.Generator) -> Acted:
    """Draw an action for each timestep, at temperature 1."""
    timesteps = shower.lay_out(states).to(device := _device(model))
    task = _tasks(states)
    most = max(len(layout.legal) for layout in shower.layouts)
    ids = np.zeros((len(task), most), np.int64)
    hidden = hidden_of(model, timesteps)
    total = torch.zeros(len(task), device=device)
    first = timesteps.first.cpu().numpy()
    legal = {
        each.task: Legal.of(shower.layouts[each.task], each.masks) for each in states if each.masked
    }
    flags = {number: each.flags for number, each in legal.items()}
    # What is legal in a digit depends on the digits before, so these are chosen first.
    later = any(some.later for some in legal.values())
    digits = max(1 + max(orders_of(shower.layouts[each.task]), default=0) for each in states)
    for order in range(digits) if later else [None]:
        for number, some in legal.items():
            some.settle(order or 0, ids[task == number])
        wanted = tokens_of(shower.layouts, task, first, ids, legal=flags, order=order)
        for each, log_probs in log_probs_of(model, hidden, [part.to(device) for part in wanted]):
            chosen = torch.multinomial(log_probs.exp().cpu(), 1, generator=random)
            said = log_probs.gather(1, chosen.to(device))[:, 0]
            total.index_add_(0, each.state, said)
            # As arrays: NumPy takes a tensor of one element for a number.
            where = each.state.cpu().numpy(), each.place.cpu().numpy()
            ids[where] = chosen[:, 0].numpy() + each.start
    values = _values(model, hidden, timesteps, task)
    return Acted(ids, total.cpu().numpy(), values, flags)


@torch.inference_mode()
def log_probs_taken(
    model: Any,
    shower: Shower,
    states: Sequence[States],
    ids: np.ndarray,
    legal: Flags | None = None,
) -> np.ndarray:
    """(N,) float32 log-probabilities of the actions `ids`, (N, most k), of which `legal` says."""
    timesteps = shower.lay_out(states).to(device := _device(model))
    task = _tasks(states)
    total = torch.zeros(len(task), device=device)
    tokens = tokens_of(shower.layouts, task, timesteps.first.cpu().numpy(), ids, legal=legal)
    hidden = hidden_of(model, timesteps)
    for each, log_probs in log_probs_of(model, hidden, [part.to(device) for part in tokens]):
        total.index_add_(0, each.state, log_probs.gather(1, each.taken[:, None])[:, 0])
    return total.cpu().numpy()


@torch.inference_mode()
def values_at(model: Any, shower: Shower, states: Sequence[States]) -> np.ndarray:
    """(N,) float32 values of timesteps, in units of rewards."""
    timesteps = shower.lay_out(states).to(_device(model))
    return _values(model, hidden_of(model, timesteps), timesteps, _tasks(states))


def _values(model: Any, hidden: Tensor, timesteps: Timesteps, task: np.ndarray) -> np.ndarray:
    values = values_of(model)
    assert values is not None
    number = torch.from_numpy(task).to(hidden.device)
    outputs = values(hidden[timesteps.first], number)
    return values.value(outputs, number).cpu().numpy()


def _tasks(states: Sequence[States]) -> np.ndarray:
    """(N,) int64 numbers of the tasks of all timesteps in which an action is chosen."""
    return np.concatenate([np.full(len(each.chosen), each.task) for each in states])


def _device(model: Any) -> torch.device:
    return model.get_input_embeddings().weight.device
