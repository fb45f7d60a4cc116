"""The report's pictures, as inline SVG: scores with their intervals, text, training."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from generalist.evaluation.reliability import Group
from generalist.evaluation.scores import TaskScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
AGENT, PROMPTED, EXPERT = "#2563eb", "#f59e0b", "#0f766e"
FAMILIES = ("#2563eb", "#0f766e", "#f59e0b", "#b42318", "#7c3aed", "#0891b2", "#65a30d", "#7b8794")
STYLE = {
    "font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none", "text.color": INK,
    "axes.edgecolor": GRID, "axes.labelcolor": FAINT, "xtick.color": FAINT, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "ytick.left": False, "axes.axisbelow": True, "figure.facecolor": "none",
    "axes.facecolor": "none", "axes.titlesize": 10, "axes.titlelocation": "left",
    "svg.hashsalt": "generalist",
}  # fmt: skip
MOST_PANELS = 24
MOST_POINTS = 300  # of a line
SHOWN_LOW, SHOWN_HIGH = -0.25, 1.25  # bars that reach further are cut, their figures are written

_EQUAL: dict[str, Any] = {"color": FAINT, "linewidth": 1, "linestyle": (0, (4, 3))}
_POINTS: dict[str, Any] = {"color": AGENT, "marker": "o", "markersize": 3.5, "linewidth": 1.4}
"""The line on which both axes are equal, and points with their errors."""


def _figure(width: float, height: float, *, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """A figure of so many inches, and its (rows, columns) axes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element whose text takes the page's font and that scales with it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Ids are unique within one figure only; several stand in one page.
    prefix = f"f{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{prefix}", text)
    return re.sub(r'(<svg[^>]*?) height="[^"]*"([^>]*?) width="[^"]*"', r"\1\2", text, count=1)


def scores_plot(plain: Sequence[TaskScore], prompted: Sequence[TaskScore]) -> str:
    """Normalised scores with 95% intervals, random at 0 and expert at 1, as an <svg> element.

    Args:
        plain: scores without a prompt; those that are not normalised are left out.
        prompted: with one, of some of the same rows.
    """
    from matplotlib import rc_context

    shown = [score for score in plain if score.normalized is not None]
    by_label = {score.label: score for score in prompted if score.normalized is not None}
    with rc_context(STYLE):
        figure, axes = _figure(8.2, 0.7 + 0.46 * max(1, len(shown)))
        ax = axes[0, 0]
        for position, score in enumerate(shown):
            other = by_label.get(score.label)
            shift = 0.17 if other else 0.0
            _bar(ax, position - shift, score, color=AGENT, height=0.3 if other else 0.46)
            if other:
                _bar(ax, position + shift, other, color=PROMPTED, height=0.3)
        for value, name in ((0, "random"), (1, "expert")):
            ax.axvline(value, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
            ax.annotate(
                name, (value, 1.0), (0, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", color=FAINT, fontsize=9,
            )  # fmt: skip
        ax.set_yticks(range(len(shown)), [score.label for score in shown])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_xlim(SHOWN_LOW, SHOWN_HIGH + 0.15)
        ax.set_xticks(np.arange(0, 1.3, 0.25))
        ax.grid(axis="x", color=GRID, linewidth=0.8)
        return _svg(figure)


def _bar(ax: Axes, y: float, score: TaskScore, *, color: str, height: float) -> None:
    """A score with its interval, where the error is known."""
    assert score.normalized is not None
    value = float(np.clip(score.normalized, SHOWN_LOW, SHOWN_HIGH))
    interval = score.normalized_interval or (score.normalized, score.normalized)
    low, high = np.clip(interval, SHOWN_LOW, SHOWN_HIGH)
    ax.barh(y, value, height, color=color, alpha=0.85, linewidth=0)
    ax.plot([low, high], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt")
    ax.annotate(f"{score.normalized:.2f}", (max(value, high, 0), y), (5, 0), va="center",
                textcoords="offset points", fontsize=8.5, color=INK)  # fmt: skip


def reached_plot(found: dict[str, Any]) -> str:
    """How many tasks reach each percentage of the expert's score, by family, as an <svg> element.

    Args:
        found: what `generalist.evaluation.reached.reached` returns.
    """
    from matplotlib import rc_context

    families = found["families"]
    with rc_context(STYLE):
        figure, axes = _figure(8.2, 2.9)
        ax = axes[0, 0]
        counts = [each["counts"] for each in families.values()]
        names = [f"{name} ({each['tasks']})" for name, each in families.items()]
        colors = [FAMILIES[i % len(FAMILIES)] for i in range(len(names))]
        ax.stackplot(found["percent"], counts, labels=names, colors=colors, alpha=0.85)
        ax.plot(found["percent"], found["counts"], color=INK, linewidth=1.2)
        ax.axvline(50, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        ax.set_xlim(0, 100)
        ax.set_ylim(0, found["tasks"] * 1.02)
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("percentage of the expert's score")
        ax.set_ylabel(f"tasks, of {found['tasks']}")
        ax.grid(color=GRID, linewidth=0.8)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
        return _svg(figure)


def asked_plot(found: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Return got against return asked for, task by task, as an <svg> element.

    Args:
        found: by task, results with `asked_return`, `data_returns` and `returns`.
    """

    def draw(ax: Any, results: Sequence[dict[str, Any]]) -> None:
        ordered = sorted(results, key=lambda each: each["asked_return"])
        asked = [each["asked_return"] for each in ordered]
        got = [np.asarray(each["returns"], float) for each in ordered]
        errors = [own.std() / max(1, len(own) - 1) ** 0.5 for own in got]
        ax.axvspan(*ordered[0]["data_returns"], color=GRID, alpha=0.6, linewidth=0)
        ax.plot(asked, asked, **_EQUAL)
        ax.errorbar(asked, [own.mean() for own in got], errors, **_POINTS)

    return _panels(found, draw, across="return asked for", up="return got")


def reliability_plot(found: Mapping[str, Sequence[Group]]) -> str:
    """Return that followed against predicted value, task by task, as an <svg> element.

    Args:
        found: by task, what `generalist.evaluation.reliability.reliability` returns.
    """

    def draw(ax: Any, groups: Sequence[Group]) -> None:
        values = [each.value for each in groups]
        followed = np.array([each.followed for each in groups])
        low, high = np.array([each.interval or (each.followed,) * 2 for each in groups]).T
        ends = [min(*values, *low), max(*values, *high)]
        ax.plot(ends, ends, **_EQUAL)
        ax.errorbar(values, followed, [followed - low, high - followed], **_POINTS)

    return _panels(found, draw, across="predicted value", up="return that followed")


def _panels(
    found: Mapping[str, Any], draw: Callable[[Any, Any], None], *, across: str, up: str
) -> str:
    """A small plot for each task, as an <svg> element.

    Args:
        found: by task, what is drawn.
        draw: draws it into axes.
        across, up: what the axes of all plots are.
    """
    from matplotlib import rc_context

    columns = max(1, min(4, len(found)))
    rows = max(1, -(-len(found) // columns))
    with rc_context({**STYLE, "font.size": 8.5, "axes.titlesize": 8.5}):
        figure, axes = _figure(8.2, 2.0 * rows, rows=rows, columns=columns)
        for ax, (task, own) in zip(axes.flat, found.items(), strict=False):
            draw(ax, own)
            ax.set_title(task.partition("/")[2], color=INK)
            ax.grid(color=GRID, linewidth=0.6)
            ax.locator_params(nbins=4)
            ax.tick_params(labelsize=7.5, colors=FAINT)
        for ax in axes.flat[len(found) :]:
            ax.set_visible(False)
        figure.supxlabel(across, fontsize=8.5, color=FAINT)
        figure.supylabel(up, fontsize=8.5, color=FAINT)
        return _svg(figure)


def text_plot(text: dict[str, Any]) -> str:
    """Bits per byte of the model beside a byte trigram and xz, as an <svg> element."""
    from matplotlib import rc_context

    bars = [
        ("this model", text["bits_per_byte"], AGENT),
        ("xz -9", text["xz_bits_per_byte"], FAINT),
        ("byte trigram", text["trigram_bits_per_byte"], FAINT),
    ]
    with rc_context(STYLE):
        figure, axes = _figure(8.2, 1.5)
        ax = axes[0, 0]
        for y, (_, value, color) in enumerate(bars):
            ax.barh(y, value, 0.55, color=color, alpha=0.85, linewidth=0)
            ax.annotate(f"{value:.3f}", (value, y), (5, 0), textcoords="offset points",
                        va="center", fontsize=9)  # fmt: skip
        ax.set_yticks(range(len(bars)), [name for name, _, _ in bars])
        ax.invert_yaxis()
        ax.set_xlim(0, 1.12 * max(value for _, value, _ in bars))
        ax.set_xlabel("bits per byte, less is better")
        ax.grid(axis="x", color=GRID, linewidth=0.8)
        return _svg(figure)


def training_plot(log: Sequence[dict[str, Any]]) -> str:
    """Loss over the steps, overall and task by task, as an <svg> element.

    More than 24 tasks are shown by family.

    Args:
        log: rows of a run's log, with `step`, `loss` and `loss/TASK` in nats.
    """
    from matplotlib import rc_context

    parts = _names(log, "loss/")
    if len(parts) > MOST_PANELS:
        parts = _names(log, "family_loss/")
    panels = ["", *parts]
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    with rc_context({**STYLE, "font.size": 8.5, "axes.titlesize": 8.5}):
        figure, axes = _figure(8.2, 1.55 * rows, rows=rows, columns=columns)
        for ax, task in zip(axes.flat, panels, strict=False):
            steps, values = _series(log, task or "loss")
            ax.plot(steps, values, color=AGENT, alpha=0.25, linewidth=0.8)
            ax.plot(steps, _smooth(values), color=AGENT, linewidth=1.5)
            ax.set_title(task.partition("/")[2] or "all targets", color=INK)
            ax.grid(color=GRID, linewidth=0.6)
            ax.locator_params(nbins=4)
            ax.tick_params(labelsize=7.5, colors=FAINT)
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        figure.supxlabel("optimizer step", fontsize=8.5, color=FAINT)
        return _svg(figure)


def _names(log: Sequence[dict[str, Any]], prefix: str) -> list[str]:
    return sorted({key for row in log for key in row if key.startswith(prefix)})


def _series(log: Sequence[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a key, means of neighbours where a picture could not show them all."""
    pairs = [(row["step"], row[key]) for row in log if row.get(key) is not None]
    series = np.array(pairs, dtype=float).reshape(-1, 2)
    if len(series) > MOST_POINTS:
        series = np.array([part.mean(axis=0) for part in np.array_split(series, MOST_POINTS)])
    return series[:, 0], series[:, 1]


def _smooth(values: np.ndarray, share: float = 0.04) -> np.ndarray:
    """Running mean over a share of all points, shorter at the ends."""
    width = max(1, int(len(values) * share))
    kernel = np.ones(2 * width + 1)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same") \
        if len(values) > len(kernel) else values  # fmt: skip
