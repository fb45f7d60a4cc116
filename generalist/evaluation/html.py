"""HTML of the reports: a page that needs nothing else, tables, and figures in their cells."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from generalist.evaluation.intervals import Interval
from generalist.evaluation.scores import Reference, with_error


def page(title: str, body: str) -> str:
    """A page of HTML that needs nothing else."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n<body><main>\n"
        f"{body}\n</main></body></html>\n"
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<div class='scroll'><table><thead><tr>{top}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def reference_text(reference: Reference | None) -> str:
    """Mean and standard error of random or expert."""
    return "–" if reference is None else with_error(reference.mean, reference.stderr)


def interval_text(interval: Interval | None, form: str = ".4g") -> str:
    """`[low, high]`, or nothing."""
    return "" if interval is None else f"[{interval[0]:{form}}, {interval[1]:{form}}]"
