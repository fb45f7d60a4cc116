"""`generalist inspect`: what a dataset holds, or the meaning of each token of an episode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from generalist.cli.common import JsonFile, console, write_json
from generalist.errors import GeneralistError, UsageError

if TYPE_CHECKING:
    from generalist.shards.reader import TaskData
    from generalist.tokenization.layout import Layout
    from generalist.tokenization.processor import GeneralistProcessor, TokenInfo

Form = Literal["flat", "compact"]
COLORS = {
    "text": "green", "special": "magenta", "continuous": "cyan", "discrete": "yellow",
    "image": "blue", "return": "red",
}  # fmt: skip


def inspect(
    path: Annotated[Path, typer.Argument(help="A dataset folder, or a folder of them.")],
    task: Annotated[
        str | None, typer.Option(help="Task to show token by token: family/Name.")
    ] = None,
    episode: Annotated[int, typer.Option(min=0, help="Number of the episode, from 0.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="First timestep to show, from 0.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Timesteps to show.")] = 3,
    processor: Annotated[
        Path | None, typer.Option(help="Folder of the tokenizers. Default: the shipped ones.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Show the composition of this recipe's training batches.")
    ] = None,
    rows: Annotated[
        int, typer.Option(min=1, help="With --recipe: rows (windows) to sample.")
    ] = 512,
    form: Annotated[
        Form, typer.Option(help="With --task: how positions of a window are counted.")
    ] = "flat",
    positions: Annotated[
        int, typer.Option(min=1, help="With --form compact: positions of an observation.")
    ] = 1,
    json: JsonFile = None,
) -> None:
    """Show what a dataset holds, or, with --task, what each token of an episode means.

    With --task, the column `position` says where in a window a token stands. In the flat form each
    has a position of its own. In the compact form the tokens of an observation share one or a few,
    and actions are not shown: the position is the one at which an action token is predicted.

    With --recipe, show the share that each task and family has of a batch: of its tokens, its
    targets and its loss.
    """
    from generalist.shards.reader import TaskData, dataset_folders

    if recipe is not None:
        if task is not None:
            raise UsageError("--task shows an episode and --recipe a batch; give one of them.")
        _compose(recipe, path, processor=processor, rows=rows, json=json)
        return
    folders = dataset_folders(path)
    if task is None and len(folders) > 1:
        _describe(path, json)
        return
    from generalist.tokenization.processor import load_processor

    data = _find(path, folders, task)
    loaded = load_processor(processor)
    data = TaskData(data.folder, loaded)  # its fingerprints must be the processor's
    if episode >= len(data):
        raise UsageError(
            f"{data.task} has {len(data)} episodes, numbered from 0; there is no {episode}."
        )
    tokens = _explain(data, loaded, episode=episode, start=start, steps=steps)
    _place(tokens, data.layout, positions if form == "compact" else None)
    _print(data, episode, tokens)
    write_json(json, {"task": data.task, "episode": episode, "record": data.record(episode),
                      "tokens": tokens})  # fmt: skip


def _describe(path: Path, json: Path | None) -> None:
    from rich.table import Table

    from generalist.windows.inspect import describe

    rows = [row.to_dict() for row in describe(path)]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("task", no_wrap=True)
    for name in ("episodes", "steps", "tokens", "a step", "return", "relabelled", "soft", "MB"):
        table.add_column(name, justify="right")
    for row in rows:
        mean = row["mean_return"]
        table.add_row(
            row["task"],
            *(f"{row[key]:,}" for key in ("episodes", "steps", "tokens", "tokens_per_timestep")),
            "" if mean is None else f"{mean:.4g}",
            f"{row['relabelled']:.0%}",
            f"{row['soft_labels']:.0%}",
            f"{row['megabytes']:.1f}",
        )
    console().print(table)
    console().print("[dim]Token by token: add --task family/Name --episode 0 --steps 3[/]")
    write_json(json, rows)


def _compose(
    recipe: str, path: Path, *, processor: Path | None, rows: int, json: Path | None
) -> None:
    from generalist.training.composition import compose
    from generalist.training.recipe import load_recipe

    changes = [f"data.root={path}"] + ([f"data.processor={processor}"] if processor else [])
    found = compose(load_recipe(recipe, changes), rows)
    screen = console()
    for title, parts in (("task", found.tasks), ("family", found.families)):
        screen.print(_composition_table(title, parts))
        screen.print()
    screen.print(
        f"Over {found.rows} rows of {found.window_tokens} tokens: {found.padding:.1%} padding, "
        f"{found.targets_per_row:.1f} targets a row."
    )
    unmatched = sum(part.unmatched for part in found.tasks)
    if unmatched:
        wanted = unmatched + sum(part.prompted for part in found.tasks)
        screen.print(
            f"Of {wanted:,} segments to begin with a demonstration {unmatched / wanted:.0%} begin "
            "without, for no other episode has the same instruction."
        )
    write_json(json, found.to_dict())


def _composition_table(title: str, parts: list[Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(title, no_wrap=True)
    names = ("episodes", "left out", "data tokens", "weight", "tokens", "targets", "loss",
             "prompted")  # fmt: skip
    for name in names:
        table.add_column(name, justify="right")
    for part in parts:
        counts = part.episodes, part.available - part.episodes, part.data_tokens
        prompted = part.prompted / max(1, part.segments)
        shares = part.weight, part.tokens, part.targets, part.loss, prompted
        table.add_row(part.name, *map("{:,}".format, counts), *map("{:.1%}".format, shares))
    return table


def _find(path: Path, folders: list[Path], task: str | None) -> TaskData:
    from generalist.shards.manifest import DatasetHeader
    from generalist.shards.reader import TaskData
    from generalist.specs import nearest

    names = {DatasetHeader.read(folder).task: folder for folder in folders}
    if task is None:
        task = next(iter(names))
    if task not in names:
        near = nearest(task, names)
        hint = f"did you mean {near!r}?" if near else f"it holds {', '.join(sorted(names))}."
        raise UsageError(f"{path} holds no task {task!r}; {hint}")
    return TaskData(names[task])


def _explain(
    data: TaskData, processor: GeneralistProcessor, *, episode: int, start: int, steps: int
) -> list[dict[str, Any]]:
    """One dict a token: the header, then `steps` timesteps from `start`."""
    from generalist.windows.views import View

    layout, record = data.layout, data.record(episode)
    rewards = data.rewards(episode)
    if start >= len(rewards):
        raise GeneralistError(
            f"Episode {episode} of {data.task} has {len(rewards)} timesteps; none is at {start}."
        )
    size = layout.tokens_per_timestep
    ids = data.tokens(episode)[start * size : (start + steps) * size]
    header = processor.header(data.task, record.get("instruction"))
    shown = [_row(info, 0) for info in processor.explain_header(header)]
    timesteps = [_row(info, start) for info in processor.explain(ids, layout)]
    labels, has_loss = data.labels(episode), View(layout).loss > 0
    soft = _soft_labels(data, episode)
    actions = layout.positions.of_role("action").tolist()
    for position, row in enumerate(timesteps):
        place = position % size
        row["target"] = bool(has_loss[place]) and row["value"] != "pad"
        if labels is not None and place in actions:
            label = int(labels[row["timestep"] * len(actions) + actions.index(place)])
            row["label"] = label if label != row["id"] else None
        if row["timestep"] in soft and place in actions:
            row["soft_label"] = soft[row["timestep"]]
        if not layout.is_document and place == size - 1:
            row["reward"] = float(rewards[row["timestep"]])
    shown += timesteps
    if layout.is_document and start + steps >= len(rewards):
        shown.append(_end_of_document(processor, len(rewards)))
    return shown


def _soft_labels(data: TaskData, episode: int) -> dict[int, dict[int, float]]:
    """Step -> id -> probability, the likeliest first, of the steps that have a soft label."""
    row = data.row(episode)
    stored = data.sample(row.sample).soft_labels
    found: dict[int, dict[int, float]] = {}
    if stored is not None:
        step, ids, mass = (each.tolist() for each in stored.of(row.first_step, row.steps))
        for at, number, chance in sorted(zip(step, ids, mass, strict=True), key=lambda x: -x[2]):
            found.setdefault(at, {})[number] = chance
    return found


def _place(tokens: list[dict[str, Any]], layout: Layout, positions: int | None) -> None:
    """Say of each token its position in the window, `first-last` where it is in several.

    positions: of an observation in the compact form; None for the flat form.
    """
    if positions is None or layout.is_document:
        for number, token in enumerate(tokens):
            token["position"] = str(number)
        return
    header = [token for token in tokens if token["timestep"] < 0]
    spelled = [token for token in header if token["range"] == "text"]
    named = next((i for i, t in enumerate(header) if i and t["range"] == "special"), len(header))
    place = 0
    for number, token in enumerate(header):
        # A vector at the first position stands for the name of the task.
        token["position"] = "0" if 0 < number < named and token in spelled else str(place)
        place += not 0 < number < named
    size = layout.tokens_per_timestep
    actions = layout.positions.of_role("action").tolist()
    for number, token in enumerate(tokens[len(header) :]):
        timestep, at = divmod(number, size)
        first = place + timestep * (positions + len(actions) - 1 + layout.is_written)
        if at in actions:
            token["position"] = str(first + positions - 1 + actions.index(at))
        else:
            last = first + positions - 1
            token["position"] = str(first) if positions == 1 else f"{first}-{last}"


def _end_of_document(processor: GeneralistProcessor, timestep: int) -> dict[str, Any]:
    """The `end` token, which training appends to a document as its last target."""
    id_ = processor.vocabulary.special("end")
    return {"timestep": timestep, "id": id_, "range": "special", "field": "end of the document",
            "value": "end", "target": True}  # fmt: skip


def _row(info: TokenInfo, start: int) -> dict[str, Any]:
    timestep = info.timestep + start if info.timestep >= 0 else -1
    return {"timestep": timestep, "id": info.id, "range": info.range, "field": info.field,
            "value": info.value, "target": False}  # fmt: skip


def _print(data: TaskData, episode: int, tokens: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    record = data.record(episode)
    facts = ", ".join(
        f"{key} {record[key]:.6g}" if isinstance(record[key], float) else f"{key} {record[key]}"
        for key in ("steps", "return", "seed", "expert", "noise", "source", "instruction")
        if record.get(key) is not None
    )
    screen = console()
    screen.print(f"[bold]{data.task}[/], episode {episode} of {len(data)}: {escape(facts)}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("step", "position", "id"):
        table.add_column(name, justify="right")
    for name in ("range", "field", "value"):
        table.add_column(name)
    table.add_column("", style="dim")
    before = None
    for token in tokens:
        if before is not None and token["timestep"] != before:
            table.add_section()
        step = "" if token["timestep"] in (before, -1) else str(token["timestep"])
        before = token["timestep"]
        color = COLORS.get(token["range"], "white")
        table.add_row(
            step, token["position"], str(token["id"]), f"[{color}]{token['range']}[/]",
            escape(token["field"]), escape(token["value"]), _note(token),
        )  # fmt: skip
    screen.print(table)


def _note(token: dict[str, Any]) -> str:
    notes = []
    if token["target"]:
        label = token.get("label")
        soft = token.get("soft_label")
        if soft is not None:
            notes.append("target: " + ", ".join(f"{i} {p:.2f}" for i, p in soft.items()))
        else:
            notes.append("target" if label is None else f"target: the expert's own {label}")
    if "reward" in token:
        notes.append(f"then reward {token['reward']:g}")
    return ", ".join(notes)
