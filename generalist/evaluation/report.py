"""report.html (one file that needs nothing else) and report.json of an evaluation."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from generalist.evaluation.d4rl import d4rl_scores
from generalist.evaluation.html import interval_text, page, reference_text, table
from generalist.evaluation.human import human_normalized
from generalist.evaluation.instruction_rows import HEAD, cells, language_rows
from generalist.evaluation.measure import training_facts
from generalist.evaluation.plots import reached_plot, scores_plot, text_plot, training_plot
from generalist.evaluation.reached import HALF, half_line, reached
from generalist.evaluation.scores import (
    OWN,
    Reference,
    TaskScore,
    aggregate,
    label,
    with_error,
)  # fmt: skip
from generalist.evaluation.sections import (
    asked_section,
    d4rl_section,
    human_section,
    speaking_section,
)
from generalist.evaluation.suite import Evaluation, Result
from generalist.numbers import exactly
from generalist.shards.files import replacing, write_json

EMBEDDED_BYTES = 6_000_000  # a longer video stays a file beside the report
KEY = '<span class="key" style="background:var(--{0})"></span>{1}'


def write_report(evaluation: Evaluation, out: Path) -> dict[str, Any]:
    """Write report.html and report.json.

    Args:
        evaluation: the results.
        out: folder of both files.

    Returns:
        What report.json holds.
    """
    checkpoint = Path(evaluation.checkpoint)
    log = training_log(checkpoint)
    summary = summarize(evaluation, training_facts(checkpoint))
    page = _page(evaluation, summary, log, out)
    with replacing(out / "report.html") as file:
        file.write(page.encode())
    write_json(out / "report.json", summary)
    return summary


def summarize(evaluation: Evaluation, facts: dict[str, Any]) -> dict[str, Any]:
    """Everything the report says, JSON-able.

    Args:
        evaluation: the results.
        facts: what training left in the checkpoint; any of them may be missing.
    """
    plain, prompted = evaluation.scores(), evaluation.scores(prompted=True)
    return {
        "suite": evaluation.suite,
        "checkpoint": evaluation.checkpoint,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "training": facts,
        "aggregate": aggregate(plain),
        "aggregate_prompted": aggregate(prompted) if prompted else None,
        "reached": reached(plain),
        "human": human_normalized(plain),
        "d4rl": d4rl_scores(plain),
        "zero_shot": sorted({r["task"] for r in evaluation.rollouts if r.get("zero_shot")}),
        "above_random": [score.label for score in plain if score.above_random],
        "scores": [score.to_dict() for score in plain],
        "scores_prompted": [score.to_dict() for score in prompted],
        "texts": evaluation.texts,
        "rollouts": evaluation.rollouts,
        "skipped": evaluation.skipped,
        "failed": evaluation.failed,
    }


def training_log(checkpoint: Path) -> list[dict[str, Any]]:
    """The rows of the log that lies beside a checkpoint; none where there is no log."""
    path = checkpoint.parent / "log.jsonl"
    rows: dict[int, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the last line of a run that was killed
            # A run that was resumed has logged some steps twice: the later row is the one kept.
            # A row of scores goes with the row of losses of its step.
            last = row["step"] - ("loss" in row)
            rows = {step: kept for step, kept in rows.items() if step <= last}
            rows[row["step"]] = rows.get(row["step"], {}) | row
    return list(rows.values())


def _page(
    evaluation: Evaluation, summary: dict[str, Any], log: list[dict[str, Any]], out: Path
) -> str:
    plain, prompted = evaluation.scores(), evaluation.scores(prompted=True)
    sections = [
        _headline(evaluation, summary),
        _raw(plain),
        _normalized(plain, prompted),
        _reading(plain),
        speaking_section(evaluation.rollouts),
        _reached(summary["reached"]),
        human_section(summary["human"]),
        d4rl_section(summary["d4rl"]),
        asked_section(evaluation.asked),
        *(_text(text) for text in evaluation.texts),
        _videos(evaluation, out),
        _training(log),
        _method(evaluation, summary),
    ]
    title = f"generalist: {evaluation.suite or 'evaluation'}"
    return page(title, "\n".join(section for section in sections if section))


def _headline(evaluation: Evaluation, summary: dict[str, Any]) -> str:
    facts, total = summary["training"], summary["aggregate"]
    boxes = []
    if "mean" in total:
        for key, what in (("mean", "mean normalised score"), ("iqm", "interquartile mean")):
            interval = interval_text(total[f"{key}_interval"], ".2f")
            boxes.append((f"{total[key]:.2f}", f"{what} {interval}"))
        half = summary["reached"]["counts"][HALF]
        boxes.append((f"{half} of {len(total['tasks'])}", "tasks at half the expert's or above"))
    own = [score for score in evaluation.scores() if score.instruction == OWN]
    if own:
        count = f"{sum(score.above_random is True for score in own)} of {len(own)}"
        boxes.append((count, "tasks above random, disjoint intervals"))
    for text in evaluation.texts:
        boxes.append((f"{text['bits_per_byte']:.2f}", f"bits per byte, {escape(text['task'])}"))
    if parameters := (facts.get("parameters") or {}).get("total"):
        boxes.append((_short_count(parameters), "parameters, one set of weights"))
    if (minutes := facts.get("minutes")) is not None:
        seen = f", {_short_count(facts['tokens'])} tokens" if facts.get("tokens") else ""
        boxes.append((f"{minutes:.1f} min", f"of training{seen}"))
    if evaluation.failed:
        boxes.append((str(len(evaluation.failed)), "results are missing"))
    facts_html = "".join(f'<div class="fact"><b>{b}</b><span>{s}</span></div>' for b, s in boxes)
    names = {result["task"] for result in evaluation.results}
    missing = "".join(
        f"<p class='note bad'>Missing: {escape(_name(each))}, because of: "
        f"{escape(each['failed'])}.</p>"
        for each in evaluation.failed
    )
    return (
        f"<h1>One model, {len(names)} tasks</h1>"
        f'<p class="note">Checkpoint <code>{escape(evaluation.checkpoint)}</code>, suite '
        f"{escape(evaluation.suite)}, {escape(summary['date'][:16].replace('T', ' '))}</p>"
        f'<div class="facts">{facts_html}</div>{missing}'
    )


def _name(result: Result) -> str:
    """A result in words: the task, the instruction, and whether it is prompted."""
    name = label(result["task"], result["instruction"]) + ", prompted" * result["prompted"]
    return name + (f", asked for {exactly(result['asked'])}%" if "asked" in result else "")


def _raw(scores: list[TaskScore]) -> str:
    if not scores:
        return ""
    teachers = any(score.teacher for score in scores)
    rows = []
    for score in scores:
        unit = " <small>success</small>" if score.metric == "success" else ""
        rows.append((
            escape(score.label) + unit,
            str(score.episodes),
            _bold_mean(with_error(score.mean, score.stderr)),
            interval_text(score.interval),
            reference_text(score.random),
            _named(score.expert),
            *([_teacher(score)] if teachers else []),
            _yes_no(score.above_random),
        ))  # fmt: skip
    head = ["task", "episodes", "mean ± s.e.", "95% interval", "random", "expert"]
    head += [*(["data by"] if teachers else []), "above random"]
    return (
        "<section><h2>Raw scores</h2><p class='note'>Undiscounted returns of whole episodes, "
        "rewards as the environment gives them; success is the share of episodes in "
        "which the task was solved. The expert is the one that normalises"
        f"{'; beside it stands the one that made the data' if teachers else ''}.</p>"
        f"{table(head, rows)}</section>"
    )


def _named(reference: Reference | None) -> str:
    """An expert's score with its name, and with what speaks against it."""
    if reference is None:
        return "–"
    notes = [escape(reference.name)] if reference.name else []
    if reference.episodes == 1:
        notes.append("one episode")
    if reference.max_steps is not None:
        notes.append(f"cut after {reference.max_steps:,} steps")
    if reference.foresees:
        notes.append("knows coming chances")
    small = f" <small>{', '.join(notes)}</small>" if notes else ""
    return with_error(reference.mean, reference.stderr) + small


def _teacher(score: TaskScore) -> str:
    """The expert that made the data, with its score where it is another than the normalising."""
    if score.teacher is None:
        return "–"
    if score.expert is not None and score.expert.name == score.teacher:
        return f"<small>{escape(score.teacher)}</small>"
    if score.teacher_score is None:
        return f"<small>{escape(score.teacher)}, not measured</small>"
    return _named(score.teacher_score)


def _normalized(plain: list[TaskScore], prompted: list[TaskScore]) -> str:
    if not any(score.normalized is not None for score in plain):
        return ""
    by_task = {score.label: score for score in prompted}
    teachers = any(score.normalized_by_teacher is not None for score in plain)
    legend = KEY.format("agent", "unprompted")
    if prompted:
        legend += KEY.format("prompted", "prompted with the expert's demonstration")
    rows = []
    for score in plain:
        if score.normalized is None:
            continue
        row = [
            escape(score.label), f"<b>{score.normalized:.3f}</b>",
            interval_text(score.normalized_interval, ".3f"),
        ]  # fmt: skip
        if teachers:
            by_teacher = score.normalized_by_teacher
            row.append("" if by_teacher is None else f"{by_teacher:.3f}")
        if prompted:
            row += _beside(score, by_task.get(score.label))
        rows.append(row)
    head = ["task", "unprompted", "95% interval"]
    head += ["1 is the data's expert"] if teachers else []
    head += ["prompted", "95% interval", "difference"] if prompted else []
    return (
        "<section><h2>Normalised scores</h2><p class='note'>0 is a random policy, 1 the expert "
        f"named above.{legend}</p>{scores_plot(plain, prompted)}"
        f"{table(head, rows)}</section>"
    )


def _beside(score: TaskScore, prompted: TaskScore | None) -> list[str]:
    """Cells of the prompted score and its difference to the other."""
    if prompted is None or prompted.normalized is None or score.normalized is None:
        return ["", "", ""]
    return [
        f"{prompted.normalized:.3f}", interval_text(prompted.normalized_interval, ".3f"),
        f"{prompted.normalized - score.normalized:+.3f}",
    ]  # fmt: skip


def _reading(scores: list[TaskScore]) -> str:
    rows = [map(escape, cells(each)) for each in language_rows(scores)]
    if not rows:
        return ""
    return (
        "<section><h2>Is the instruction read?</h2><p class='note'>The same episodes with no "
        "instruction and with another episode's (shuffled); the means over tasks leave these rows "
        "out. First thing right: the share of episodes in which the first thing that the agent "
        "stood before was one that the mission names, with its 95% interval. Wandering cannot "
        "raise it.</p>"
        f"{table(HEAD, rows)}</section>"
    )


def _reached(found: dict[str, Any]) -> str:
    if not found["tasks"]:
        return ""
    return (
        "<section><h2>How many tasks</h2><p class='note'>Tasks whose mean score is at or above a "
        "percentage of the expert's, unprompted; 0% is a random policy. At half the expert's: "
        f"{escape(half_line(found))}.</p>{reached_plot(found)}</section>"
    )


def _text(text: dict[str, Any]) -> str:
    return (
        f"<section><h2>Text: {escape(text['task'])}</h2><p class='note'>Bits per byte on "
        f"{text['documents']:,} held-out documents ({text['heldout_bytes']:,} bytes), each coded "
        f"on its own. The trigram (interpolated Witten-Bell) is fitted on, and xz has read, the "
        f"same {text['train_bytes']:,} bytes of training text.</p>{text_plot(text)}"
        f"<blockquote><code><b>{escape(text['sample_prompt'])}</b>{escape(text['sample'])}</code>"
        "</blockquote></section>"
    )


def _videos(evaluation: Evaluation, out: Path) -> str:
    figures, missing = [], []
    for result in evaluation.rollouts:
        path = result.get("video")
        if path and Path(path).exists():
            caption = f"{escape(result['task'])}, seed {result['seeds'][0]}, " \
                      f"return {result['returns'][0]:.4g}"  # fmt: skip
            figures.append(
                f'<figure><video controls loop muted playsinline preload="metadata" '
                f'src="{_video_source(Path(path), out)}"></video>'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        elif result.get("no_video"):
            missing.append(f"{escape(result['task'])}: {escape(result['no_video'])}")
    if not figures and not missing:
        return ""
    notes = "".join(f"<p class='note'>No video of {each}</p>" for each in missing)
    return (
        "<section><h2>Videos</h2><p class='note'>The first episode of each task, unprompted.</p>"
        f"<div class='videos'>{''.join(figures)}</div>{notes}</section>"
    )


def _video_source(path: Path, out: Path) -> str:
    if path.stat().st_size > EMBEDDED_BYTES:
        try:
            return escape(str(path.resolve().relative_to(out.resolve())))
        except ValueError:
            return escape(path.resolve().as_uri())
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def _training(log: list[dict[str, Any]]) -> str:
    if len(log) < 2:
        return ""
    return (
        "<section><h2>Training</h2><p class='note'>Cross entropy at the target positions, in nats; "
        "with ordinal targets and soft labels it cannot reach 0.</p>"
        f"{training_plot(log)}</section>"
    )


def _method(evaluation: Evaluation, summary: dict[str, Any]) -> str:
    seeds = [seed for result in evaluation.rollouts for seed in result["seeds"]]
    lines = [
        "Intervals are 95%: of success that of Clopper and Pearson, of returns Student's t.",
        "A normalised score is (agent − random) / (expert − random), with the registry's measured "
        "means of random and expert, whose errors its interval takes into account.",
        "The means over tasks weigh every task the same; their intervals draw each task's score "
        "from its own distribution (a parametric bootstrap stratified by task; Agarwal et al., "
        "2021).",
        "Above random: the agent's interval lies above that of the random policy and is disjoint "
        "from it.",
    ]
    if seeds:
        lines.append(
            f"Environment seeds {min(seeds):,} to {max(seeds):,}; data are collected with seeds "
            "below 1,000,000."
        )
    lines += [
        f"Without a normalised score, and so left out of the means: {task}, because {why}."
        for task, why in summary["aggregate"]["excluded"].items()
    ]
    lines += sorted({each["note"] for each in evaluation.rollouts if each.get("note")})
    if summary["zero_shot"]:
        lines.append(f"Never trained on: {', '.join(summary['zero_shot'])}.")
    lines += [
        f"{label(each['task'], each['instruction'])} was not acted in"
        f"{' with a demonstration' * each['prompted']}: {each['skipped']}."
        for each in evaluation.skipped
    ]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<section><h2>How it was measured</h2><ul class='note'>{items}</ul></section>"


def _bold_mean(text: str) -> str:
    mean, _, error = text.partition(" ")
    return f"<b>{mean}</b> {error}"


def _yes_no(value: bool | None) -> str:
    return {True: "<span class='good'>yes</span>", False: "<span class='bad'>no</span>",
            None: "–"}[value]  # fmt: skip


def _short_count(count: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
