"""What a pass of acting does on a GPU between its matrix products, as five Triton kernels.

A pass of a few tokens is bounded by how many kernels it is and by how many bytes of weights, keys
and values they read. So each of these does all there is to do between two products, and attention
reads the keys and values of every row once, where they lie, however many the row has.

Legend: P = tokens of the pass, R = rows fed, H / K = attention / key heads, G = H / K,
D = head dimension, N = capacity of a row, E = hidden size, I = intermediate size.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from generalist.decoding.packed import rotations

_COLUMNS = 1024  # a program's, where gates are opened
_HEADS = 8  # a program's, where heads are rotated
_KEYS = 64  # a program's at a time, where it attends
_PROGRAMS = 512  # that keep a large GPU busy
_AHEAD = 96 * 1024  # bytes of keys and values on their way to a program: small GPUs have 99 KB


@triton.jit
def _norm_kernel(states, weight, out, floor, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * WIDTH
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    x = tl.load(states + row + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x) + floor)
    y = x * scale * tl.load(weight + column, mask=inside, other=0.0)
    tl.store(out + row + column, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gate_kernel(gate_up, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    gate = tl.load(gate_up + row * 2 * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + column, mask=inside, other=0.0)
    y = gate * tl.sigmoid(gate) * up
    tl.store(out + row * WIDTH + column, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _turn_kernel(
    qkv,
    head_norm,
    rotations,
    positions,
    rows,
    queries,
    keys,
    values,
    floor,
    capacity,
    H: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    NORMED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[:, None]
    pair = tl.arange(0, D // 2)[None, :]
    position = tl.load(positions + token).to(tl.int64)
    row = tl.load(rows + token).to(tl.int64)
    at = token * (H + 2 * K) * D + head * D + 2 * pair
    inside = head < H + 2 * K
    first = tl.load(qkv + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(qkv + at + 1, mask=inside, other=0.0).to(tl.float32)
    turned = head < H + K
    a, b = first, second
    if NORMED:
        scale = tl.rsqrt(tl.sum(a * a + b * b, axis=1) + floor)[:, None]
        a *= scale * tl.load(head_norm + head * D + 2 * pair, mask=turned, other=0.0)
        b *= scale * tl.load(head_norm + head * D + 2 * pair + 1, mask=turned, other=0.0)
    cosine = tl.load(rotations + position * D + 2 * pair)
    sine = tl.load(rotations + position * D + 2 * pair + 1)
    real, imaginary = a * cosine - b * sine, a * sine + b * cosine
    kind = queries.dtype.element_ty
    query = queries + token * H * D + head * D + 2 * pair
    is_query = head < H
    tl.store(query, real.to(kind), mask=is_query)
    tl.store(query + 1, imaginary.to(kind), mask=is_query)
    is_key = turned & (head >= H)
    key = keys + ((row * K + head - H) * capacity + position) * D + 2 * pair
    tl.store(key, real.to(kind), mask=is_key)
    tl.store(key + 1, imaginary.to(kind), mask=is_key)
    is_value = inside & (head >= H + K)
    value = values + ((row * K + head - H - K) * capacity + position) * D + 2 * pair
    tl.store(value, first.to(kind), mask=is_value)
    tl.store(value + 1, second.to(kind), mask=is_value)


@triton.jit
def _attend_kernel(
    queries,
    keys,
    values,
    out,
    peaks,
    sums,
    query_starts,
    rows,
    counts,
    scale,
    capacity,
    tiles,
    K: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PARTS: tl.constexpr,
    EXACT: tl.constexpr,
):
    index = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    head = tl.program_id(1)
    part = tl.program_id(2)
    begin = tl.load(query_starts + index)
    new = tl.load(query_starts + index + 1) - begin
    if tile * QUERIES >= new * G:
        return
    count = tl.load(counts + index)
    place = tile * QUERIES + tl.arange(0, QUERIES)  # query by query, the G heads of each
    token, head_of = place // G, head * G + place % G
    real = token < new
    position = count - new + token
    width = tl.arange(0, D)
    at = ((begin + token).to(tl.int64) * K * G + head_of)[:, None] * D + width[None, :]
    query = tl.load(queries + at, mask=real[:, None], other=0.0)
    start = (tl.load(rows + index).to(tl.int64) * K + head) * capacity * D
    each = tl.cdiv(tl.cdiv(count, PARTS), KEYS) * KEYS  # keys of a part
    first = part * each
    seen = tl.minimum(count, count - new + ((tile + 1) * QUERIES - 1) // G + 1)
    stop = tl.minimum(first + each, seen)
    peak = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    sum_ = tl.zeros([QUERIES, D], tl.float32)
    precision: tl.constexpr = "ieee" if EXACT else "tf32"
    for low in range(first, stop, KEYS):
        number = low + tl.arange(0, KEYS)
        there = (number < stop)[:, None]
        near = start + number[:, None] * D + width[None, :]
        key = tl.load(keys + near, mask=there, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision=precision) * scale
        visible = (number[None, :] <= position[:, None]) & (number[None, :] < stop)
        scores = tl.where(visible, scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - safe[:, None])
        shrink = tl.exp(peak - safe)
        value = tl.load(values + near, mask=there, other=0.0)
        product = tl.dot(weights.to(value.dtype), value, input_precision=precision)
        sum_ = sum_ * shrink[:, None] + product
        total = total * shrink + tl.sum(weights, 1)
        peak = higher
    if PARTS == 1:
        total = tl.where(total == 0.0, 1.0, total)  # of rows that fill up
        tl.store(out + at, (sum_ / total[:, None]).to(out.dtype.element_ty), mask=real[:, None])
    else:
        of_part = ((begin + token).to(tl.int64) * K * G + head_of) * PARTS + part
        tl.store(out + of_part[:, None] * D + width[None, :], sum_, mask=real[:, None])
        tl.store(peaks + of_part, peak, mask=real)
        tl.store(sums + of_part, total, mask=real)


@triton.jit
def _join_kernel(parts, peaks, sums, out, D: tl.constexpr, PARTS: tl.constexpr):
    at = tl.program_id(0).to(tl.int64)
    part, width = tl.arange(0, PARTS), tl.arange(0, D)
    peak = tl.load(peaks + at * PARTS + part)
    weight = tl.exp(peak - tl.max(peak))
    total = tl.sum(weight * tl.load(sums + at * PARTS + part))
    values = tl.load(parts + (at * PARTS + part)[:, None] * D + width[None, :])
    joined = tl.sum(values * weight[:, None], 0) / total
    tl.store(out + at * D + width, joined.to(out.dtype.element_ty))


class Kernels:
    """The kernels for one model: a Llama or Qwen3 body with rows of up to `capacity` tokens.

    Weights, heads and the numbers within a head are laid out as `PackedBody` has them.

    Args:
        body: the model's body.
        capacity: N.
    """

    def __init__(self, body: Any, capacity: int) -> None:
        config, attention = body.config, body.layers[0].self_attn
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.width, self.capacity, self.scaling = attention.head_dim, capacity, attention.scaling
        self.epsilon = body.norm.variance_epsilon
        self.rotations = torch.view_as_real(rotations(body, capacity)).contiguous()

    def norm(self, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Root mean square norm, computed in float32.

        Args:
            states: (P, E).
            weight: (E,), the norm's times sqrt(E).

        Returns:
            (P, E) of the dtype of `states`.
        """
        rows, width = states.shape
        out = torch.empty_like(states)
        block = triton.next_power_of_2(width)
        _norm_kernel[(rows,)](states, weight, out, width * self.epsilon, width, block)
        return out

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """SwiGLU (Shazeer 2020): silu(gate) up.

        Args:
            gate_up: (P, 2I), gate and up.

        Returns:
            (P, I).
        """
        rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, width)
        _gate_kernel[rows, triton.cdiv(width, _COLUMNS)](gate_up, out, width, _COLUMNS)
        return out

    def turn(
        self,
        qkv: torch.Tensor,
        head_norm: torch.Tensor | None,
        positions: torch.Tensor,
        rows: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> torch.Tensor:
        """Normalise and rotate queries and keys, and write keys and values where they are kept.

        Args:
            qkv: (P, (H + 2K) D).
            head_norm: (H + K, D); None where heads are not normalised.
            positions: (P,) int32, of the tokens in their rows.
            rows: (P,) int32, the row of each token.
            keys: (rows, K, N, D), written to.
            values: (rows, K, N, D), written to.

        Returns:
            (P, H, D) queries.
        """
        queries = qkv.new_empty(len(qkv), self.heads, self.width)
        grid = len(qkv), triton.cdiv(self.heads + 2 * self.key_heads, _HEADS)
        _turn_kernel[grid](
            *(qkv, qkv if head_norm is None else head_norm, self.rotations, positions, rows),
            *(queries, keys, values, self.width * self.epsilon, self.capacity),
            *(self.heads, self.key_heads, self.width, head_norm is not None, _HEADS),
            num_warps=1,
        )
        return queries

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        query_starts: torch.Tensor,
        rows: torch.Tensor,
        counts: torch.Tensor,
        longest: int,
    ) -> torch.Tensor:
        """Causal attention of each row's new tokens to its own keys.

        Where there are few rows, several programs share the keys of each, and their parts are
        joined (Flash-Decoding, Dao et al. 2023).

        Args:
            queries: (P, H, D).
            keys: (rows, K, N, D).
            values: (rows, K, N, D).
            query_starts: (R + 1,) int32, where each row's new tokens begin in the pass.
            rows: (R,) int32, the number of each row.
            counts: (R,) int32, its keys, the new ones included.
            longest: at least the new tokens of any row.

        Returns:
            (P, H D); undefined for tokens of no row.
        """
        tokens, groups = len(queries), self.heads // self.key_heads
        block = min(64, max(16, triton.next_power_of_2(longest * groups)))
        tiles = triton.cdiv(longest * groups, block)
        parts = self._parts(len(rows) * tiles * self.key_heads)
        out = torch.empty_like(queries)
        into = peaks = sums = out
        if parts > 1:
            shape = tokens, self.heads, parts
            into = queries.new_empty(*shape, self.width, dtype=torch.float32)
            peaks, sums = into.new_empty(shape), into.new_empty(shape)
        _attend_kernel[len(rows) * tiles, self.key_heads, parts](
            *(queries, keys, values, into, peaks, sums, query_starts, rows, counts),
            *(self.scaling, self.capacity, tiles, self.key_heads, groups, self.width),
            *(block, _KEYS, parts, queries.dtype == torch.float32),
            num_warps=4 if block > 16 else 2,
            num_stages=max(1, min(3, _AHEAD // (2 * _KEYS * self.width * keys.element_size()))),
        )
        if parts > 1:
            grid = (tokens * self.heads,)
            _join_kernel[grid](into, peaks, sums, out, self.width, parts, num_warps=1)
        return out.flatten(1)

    def _parts(self, programs: int) -> int:
        """Into how many parts a row's keys are split: a power of two, of two blocks or more."""
        most = max(1, self.capacity // (2 * _KEYS))
        wanted = max(1, min(most, _PROGRAMS // programs))
        return 1 << (wanted.bit_length() - 1)
