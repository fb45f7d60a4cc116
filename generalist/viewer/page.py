"""watch.html: recorded episodes of a checkpoint on one page that needs nothing else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from generalist.viewer.recording import Recording
from generalist.viewer.scores import Shown

PAGES = Path(__file__).with_name("pages")
_FILM = '<script type="text/plain" id="{}-{}">{}</script>'


def watch_page(
    recordings: Sequence[Recording],
    *,
    name: str,
    facts: Mapping[str, Any],
    scores: Mapping[str, Shown],
    missing: Mapping[str, str],
) -> str:
    """The page as HTML.

    Args:
        recordings: one a task.
        name: of the checkpoint.
        facts: content of its training.json; any of it may be missing.
        scores: by task what a policy scores over whole episodes.
        missing: why a task could not be played, by its name.
    """
    tasks = [packed(each) | {"scores": scores[each.task].to_dict()} for each in recordings]
    title = f"One checkpoint, {len(tasks)} task{'s' * (len(tasks) != 1)}"
    data = {
        "title": title,
        "facts": _facts(name, facts),
        "notes": _notes(recordings, scores, missing),
        "tasks": tasks,
    }
    films = [
        _FILM.format(kind, number, base64.b64encode(film).decode())
        for number, each in enumerate(recordings)
        for kind, film in (("film", each.film), ("seen", each.seen))
        if film is not None
    ]
    return page_of(
        "watch.html",
        styles=("base.css", "watch.css"),
        scripts=("inside.js", "watch.js"),
        FILMS="\n".join(films),
        DATA=json_in_html(data),
        TITLE=escape(f"generalist: {title.lower()}"),
    )


def packed(recording: Recording) -> dict[str, Any]:
    """A recording as JSON, with every word once in a `lexicon` and its number where it stands."""
    lexicon: dict[str, int] = {}
    moments = [
        {**each, "words": [lexicon.setdefault(word, len(lexicon)) for word in each["words"]]}
        for each in recording.moments
    ]
    return {**recording.to_dict(), "moments": moments, "lexicon": list(lexicon)}


def page_of(template: str, *, styles: Sequence[str], scripts: Sequence[str], **parts: str) -> str:
    """A page of `pages/` with its styles and scripts inline.

    Args:
        template: an HTML file with %STYLE%, %SCRIPT%, and the names of `parts`.
        styles: CSS files.
        scripts: JavaScript files.
        parts: what else is filled in.
    """
    return filled(template, STYLE=_files(*styles), SCRIPT=_files(*scripts), **parts)


def filled(template: str, **parts: str) -> str:
    """A page of `pages/` with each %NAME% replaced by the part of that name."""
    page = (PAGES / template).read_text(encoding="utf-8")
    return re.sub("%([A-Z]+)%", lambda found: parts[found[1]], page)


def _files(*names: str) -> str:
    return "\n".join((PAGES / name).read_text(encoding="utf-8").rstrip() for name in names)


def json_in_html(value: Any) -> str:
    """JSON that stands in a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")


def _facts(name: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs of a value and what it is."""
    found = [(name, "is the checkpoint")]
    if parameters := (facts.get("parameters") or {}).get("total"):
        found.append((f"{parameters / 1e6:.1f}M", "parameters, one set of weights"))
    if (minutes := facts.get("minutes")) is not None:
        found.append((f"{minutes:.0f} min", "of training"))
    if tokens := facts.get("tokens"):
        found.append((f"{tokens / 1e6:.1f}M", "tokens"))
    return found


def _notes(
    recordings: Sequence[Recording], scores: Mapping[str, Shown], missing: Mapping[str, str]
) -> list[str]:
    notes = [
        "Each tile is one episode, played when this page was made, with a seed that no training "
        "data have. Click it, and go through it step by step: what the model saw, in tokens and in "
        "words, and how probable it held each action. Keys: arrows step, space plays, Escape "
        "closes."
    ]
    if any(scores[each.task].mean is not None for each in recordings):
        notes.append(
            "The bar goes from random play to the expert. The agent's score is the mean over whole "
            "episodes, from the checkpoint's card; the thin line is its 95% interval. One episode "
            "may do better or worse. The bars alone compare tasks: a return counts the task's own "
            "rewards. A task has no bar where its card has no normalised score."
        )
    notes += [f"Not played: {task}, because {why}" for task, why in missing.items()]
    return notes
