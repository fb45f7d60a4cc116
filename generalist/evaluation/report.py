"""report.html (one file that needs nothing else) and report.json of an evaluation."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from generalist.evaluation.plots import reached_plot, scores_plot, text_plot, training_plot
from generalist.evaluation.reached import HALF, half_line, reached
from generalist.evaluation.scores import Interval, Reference, TaskScore, aggregate, with_error
from generalist.evaluation.suite import Evaluation
from generalist.shards.files import replacing, write_json

EMBEDDED_BYTES = 6_000_000  # a longer video stays a file beside the report
KEY = '<span class="key" style="background:var(--{0})"></span>{1}'


def write_report(evaluation: Evaluation, out: Path) -> dict[str, Any]:
    """Write report.html and report.json into `out`; returns what report.json holds."""
    facts, log = training_facts(Path(evaluation.checkpoint))
    summary = summarize(evaluation, facts)
    page = _page(evaluation, summary, log, out)
    with replacing(out / "report.html") as file:
        file.write(page.encode())
    write_json(out / "report.json", summary)
    return summary


def summarize(evaluation: Evaluation, facts: dict[str, Any]) -> dict[str, Any]:
    """Everything the report says, JSON-able."""
    plain, prompted = evaluation.scores(), evaluation.scores(prompted=True)
    return {
        "suite": evaluation.suite,
        "checkpoint": evaluation.checkpoint,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "training": facts,
        "aggregate": aggregate(plain),
        "aggregate_prompted": aggregate(prompted) if prompted else None,
        "reached": reached(plain),
        "zero_shot": sorted({r["task"] for r in evaluation.rollouts if r.get("zero_shot")}),
        "above_random": [score.task for score in plain if score.above_random],
        "scores": [score.to_dict() for score in plain],
        "scores_prompted": [score.to_dict() for score in prompted],
        "texts": evaluation.texts,
        "rollouts": evaluation.rollouts,
        "skipped": evaluation.skipped,
    }


def training_facts(checkpoint: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What training left beside a checkpoint: its facts, and the rows of its log."""
    facts_path = checkpoint / "generalist" / "training.json"
    facts = json.loads(facts_path.read_text()) if facts_path.exists() else {}
    log_path = checkpoint.parent / "log.jsonl"
    rows: dict[int, dict[str, Any]] = {}
    if log_path.exists():
        for line in log_path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the last line of a run that was killed
            # A run that was resumed has logged some steps twice: the later row is the one kept.
            # A row of scores goes with the row of losses of its step.
            last = row["step"] - ("loss" in row)
            rows = {step: kept for step, kept in rows.items() if step <= last}
            rows[row["step"]] = rows.get(row["step"], {}) | row
    return facts, list(rows.values())


def _page(
    evaluation: Evaluation, summary: dict[str, Any], log: list[dict[str, Any]], out: Path
) -> str:
    plain, prompted = evaluation.scores(), evaluation.scores(prompted=True)
    sections = [
        _headline(evaluation, summary),
        _raw(plain),
        _normalized(plain, prompted),
        _reached(summary["reached"]),
        *(_text(text) for text in evaluation.texts),
        _videos(evaluation, out),
        _training(log),
        _method(evaluation, summary),
    ]
    title = f"generalist: {evaluation.suite or 'evaluation'}"
    return page(title, "\n".join(section for section in sections if section))


def page(title: str, body: str) -> str:
    """A page of HTML that needs nothing else."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n<body><main>\n"
        f"{body}\n</main></body></html>\n"
    )


def _headline(evaluation: Evaluation, summary: dict[str, Any]) -> str:
    facts, total = summary["training"], summary["aggregate"]
    boxes = []
    if "mean" in total:
        low, high = total["mean_interval"]
        boxes.append((f"{total['mean']:.2f}",
                      f"mean normalised score [{low:.2f}, {high:.2f}]"))  # fmt: skip
        boxes.append((f"{total['iqm']:.2f}", "interquartile mean"))
        half = summary["reached"]["counts"][HALF]
        boxes.append((f"{half} of {len(total['tasks'])}", "tasks at half the expert's or above"))
    if evaluation.scores():
        count = f"{len(summary['above_random'])} of {len(evaluation.scores())}"
        boxes.append((count, "tasks above random, disjoint intervals"))
    for text in evaluation.texts:
        boxes.append((f"{text['bits_per_byte']:.2f}", f"bits per byte, {escape(text['task'])}"))
    if "parameters" in facts:
        boxes.append((_short_count(facts["parameters"]["total"]), "parameters, one set of weights"))
    if "minutes" in facts:  # not where an agent was saved that nobody has trained here
        boxes.append((f"{facts['minutes']:.1f} min",
                      f"of training, {_short_count(facts['tokens'])} tokens"))  # fmt: skip
    facts_html = "".join(f'<div class="fact"><b>{b}</b><span>{s}</span></div>' for b, s in boxes)
    names = {result["task"] for result in evaluation.results}
    return (
        f"<h1>One model, {len(names)} tasks</h1>"
        f'<p class="note">Checkpoint <code>{escape(evaluation.checkpoint)}</code>, suite '
        f"{escape(evaluation.suite)}, {escape(summary['date'][:16].replace('T', ' '))}</p>"
        f'<div class="facts">{facts_html}</div>'
    )


def _raw(scores: list[TaskScore]) -> str:
    if not scores:
        return ""
    rows = []
    for score in scores:
        unit = " <small>success</small>" if score.metric == "success" else ""
        rows.append((
            escape(score.task) + unit,
            str(score.episodes),
            _bold_mean(with_error(score.mean, score.stderr)),
            interval_text(score.interval if score.episodes > 1 else None),
            reference_text(score.random),
            reference_text(score.expert),
            _yes_no(score.above_random),
        ))  # fmt: skip
    head = ("task", "episodes", "mean ± s.e.", "95% interval", "random", "expert", "above random")
    return (
        "<section><h2>Raw scores</h2><p class='note'>Undiscounted returns of whole episodes, "
        "rewards as the environment gives them; success is the share of episodes in "
        "which the task was solved.</p>"
        f"{table(head, rows)}</section>"
    )


def _normalized(plain: list[TaskScore], prompted: list[TaskScore]) -> str:
    if not any(score.normalized is not None for score in plain):
        return ""
    by_task = {score.task: score for score in prompted}
    legend = KEY.format("agent", "unprompted")
    if prompted:
        legend += KEY.format("prompted", "prompted with the expert's demonstration")
    rows = []
    for score in plain:
        if score.normalized is None:
            continue
        other = by_task.get(score.task)
        both = other is not None and other.normalized is not None
        difference = f"{other.normalized - score.normalized:+.3f}" if both else ""  # type: ignore
        rows.append((
            escape(score.task), f"<b>{score.normalized:.3f}</b>",
            interval_text(score.normalized_interval, ".3f"),
            f"{other.normalized:.3f}" if both else "",  # type: ignore[union-attr]
            "" if other is None else interval_text(other.normalized_interval, ".3f"), difference,
        )[: 6 if prompted else 3])  # fmt: skip
    head = ["task", "unprompted", "95% interval"]
    head += ["prompted", "95% interval", "difference"] if prompted else []
    return (
        f"<section><h2>Normalised scores</h2><p class='note'>0 is a random policy, 1 the expert "
        f"that made the data.{legend}</p>{scores_plot(plain, prompted)}"
        f"{table(head, rows)}</section>"
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
        "with ordinal targets it cannot reach 0.</p>"
        f"{training_plot(log)}</section>"
    )


def _method(evaluation: Evaluation, summary: dict[str, Any]) -> str:
    seeds = [seed for result in evaluation.rollouts for seed in result["seeds"]]
    lines = [
        "Intervals are 95% percentile bootstraps over episodes; those of the means over tasks "
        "resample the episodes of each task on their own (stratified; Agarwal et al., 2021).",
        "A normalised score is (agent − random) / (expert − random), with the registry's measured "
        "means of random and expert.",
        "Above random: the agent's interval lies above that of the random policy and is disjoint "
        "from it.",
    ]
    if seeds:
        lines.append(
            f"Environment seeds {min(seeds):,} to {max(seeds):,}; data are collected with seeds "
            "below 1,000,000."
        )
    lines += [
        f"Left out of the means: {task}, because of {why}."
        for task, why in summary["aggregate"]["excluded"].items()
    ]
    cut = {each["task"]: each["max_steps"] for each in evaluation.rollouts if each.get("max_steps")}
    lines += [
        f"Episodes of {task} were cut after {steps:,} steps; random and expert were measured over "
        "whole ones."
        for task, steps in cut.items()
    ]
    if summary["zero_shot"]:
        lines.append(f"Never trained on: {', '.join(summary['zero_shot'])}.")
    lines += [
        f"{each['task']} was not acted in{' with a demonstration' * each['prompted']}: "
        f"{each['skipped']}."
        for each in evaluation.skipped
    ]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<section><h2>How it was measured</h2><ul class='note'>{items}</ul></section>"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<div class='scroll'><table><thead><tr>{top}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _bold_mean(text: str) -> str:
    mean, _, error = text.partition(" ")
    return f"<b>{mean}</b> {error}"


def reference_text(reference: Reference | None) -> str:
    """Mean and standard error of random or expert."""
    return "–" if reference is None else with_error(reference.mean, reference.stderr)


def interval_text(interval: Interval | None, form: str = ".4g") -> str:
    """`[low, high]`, or nothing."""
    return "" if interval is None else f"[{interval[0]:{form}}, {interval[1]:{form}}]"


def _yes_no(value: bool | None) -> str:
    return {True: "<span class='good'>yes</span>", False: "<span class='bad'>no</span>",
            None: "–"}[value]  # fmt: skip


def _short_count(count: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
