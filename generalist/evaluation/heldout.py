"""Tasks a checkpoint was never trained on: zero-shot, by demonstrations, fine-tuned, from scratch.

    OUT/demonstrations/                        a few of each task, by its expert
    OUT/zero-shot/                             the checkpoint as it is, with and without a prompt
    OUT/retrieved/                             the prompt retrieved anew at each step
    OUT/interpolated/                          so, and the nearest action added by its weight
    OUT/retrieve-and-play/                     the nearest action alone
    OUT/fine-tuned/gym-Acrobot-v1/             trained further on the task's demonstrations
    OUT/from-scratch/gym-Acrobot-v1/           trained on these alone, in as many steps

Each part continues where it was interrupted; what was finished is not done again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generalist.acting.retrieval import Retrieval
from generalist.collecting.collect import collect
from generalist.errors import GeneralistError, UsageError
from generalist.evaluation.measure import checkpoint_tasks, evaluate, weights_fingerprint
from generalist.evaluation.scores import OWN, TaskScore
from generalist.evaluation.suite import HeldOut, Suite
from generalist.modeling import PARTS_FOLDER
from generalist.modeling.pretrained import with_sizes_of_start
from generalist.shards.manifest import Manifest
from generalist.training.checkpoint import DATA, newest_checkpoint
from generalist.training.loop import FINAL, train
from generalist.training.recipe import Recipe, differences, load_recipe
from generalist.training.resume import CHECKPOINTS
from generalist.windows.spec import DatasetSpec, load_dataset_spec

ZERO_SHOT, PROMPTED, RETRIEVED, INTERPOLATED, PLAYED, FINE_TUNED, FROM_SCRATCH = WAYS = (
    "zero-shot", "prompted", "retrieved", "interpolated", "retrieve-and-play", "fine-tuned",
    "from-scratch",
)  # fmt: skip


@dataclass
class HeldOutScores:
    """Scores of tasks in several ways.

    Attributes:
        suite: its name.
        checkpoint: its folder.
        demonstrations: by task, how many were collected.
        steps: of fine-tuning, and of training from scratch.
        scores: by task and way.
        skipped: by task and way, why a score is missing.
        wanted_return: what the trained agents were asked for; None for nothing.
    """

    suite: str
    checkpoint: str
    demonstrations: dict[str, int]
    steps: int
    scores: dict[str, dict[str, TaskScore]] = field(default_factory=dict)
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)
    wanted_return: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        scores = {
            task: {way: score.to_dict() for way, score in ways.items()}
            for task, ways in self.scores.items()
        }
        return {**vars(self), "scores": scores}


def evaluate_heldout(
    checkpoint: Path,
    suite: Suite,
    out: Path,
    *,
    name: str = "",
    say: Callable[[str], None] = lambda line: None,
    progress: bool = True,
    workers: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    wanted_return: str | None = None,
) -> HeldOutScores:
    """Measure a checkpoint in the tasks of a suite with a section `heldout`, in several ways.

    Args:
        checkpoint: its folder.
        suite: with a section `heldout`.
        out: folder of demonstrations, runs and results.
        name: of the suite.
        say: called with a line whenever something begins.
        progress: whether bars are shown.
        workers: processes that collect and act.
        device: on which the model acts.
        dtype: of the weights while it acts.
        wanted_return: what the two trained agents are asked for, as `rollout` takes it; None for
            nothing. The checkpoint itself knows no returns of these tasks and is asked for none.

    Raises:
        GeneralistError: the checkpoint was trained on one of the tasks.
        UsageError: a return is asked for, and the checkpoint's recipe has no returns.
    """
    assert suite.heldout is not None
    wanted = None if wanted_return is None else _askable(wanted_return, checkpoint)
    tasks = [entry.task for entry in suite.tasks]
    if known := set(tasks) & set(checkpoint_tasks(checkpoint)):
        raise GeneralistError(
            f"{checkpoint} was trained on {', '.join(sorted(known))}, which is then not held out."
        )
    spec = _demonstrations(suite.heldout, tasks)
    counts = {task.task: task.episodes or 0 for task in spec.tasks}
    found = HeldOutScores(name, str(checkpoint), counts, suite.heldout.steps, wanted_return=wanted)
    say(f"Demonstrations: {', '.join(f'{count} of {task}' for task, count in counts.items())}.")
    processor = str(checkpoint / PARTS_FOLDER)
    root = out / "demonstrations"
    collected = collect(spec, root, workers, progress=progress, processor=processor)
    found.demonstrations = {name: own.episodes for name, own in collected.tasks.items()}

    say("Zero-shot and prompted.")
    acting: dict[str, Any] = {
        "progress": progress,
        "workers": workers,
        "device": device,
        "dtype": dtype,
    }
    _take(found, evaluate(checkpoint, suite, out / ZERO_SHOT, name=name, **acting))
    unprompted = suite.model_copy(
        update={"tasks": [each.model_copy(update={"prompted_episodes": 0}) for each in suite.tasks]}
    )
    for way, retrieval in _retrievals(suite.heldout, root).items():
        say(f"{way.capitalize()}.")
        given = {"name": name, "retrieval": retrieval, **acting}
        _take(found, evaluate(checkpoint, unprompted, out / way, **given), way)
    for way in (FINE_TUNED, FROM_SCRATCH):
        start = checkpoint if way == FINE_TUNED else None
        for entry in suite.tasks:
            say(f"{entry.task}, {way}: {suite.heldout.steps} steps.")
            run = out / way / entry.task.replace("/", "-")
            if start is not None:  # of these very weights
                run = run / weights_fingerprint(start)
            recipe = _recipe(
                checkpoint, start, heldout=suite.heldout, data=root / entry.task, run=run
            )
            only = {"tasks": [entry.model_copy(update={"prompted_episodes": 0})]}
            final = _trained(recipe)
            alone = suite.model_copy(update=only)
            scores = evaluate(final, alone, run, name=name, wanted_return=wanted, **acting)
            _take(found, scores, way)
    return found


def _askable(wanted_return: str, checkpoint: Path) -> str:
    """The wanted return as it is written in full, where training can learn to be asked for it."""
    from generalist.acting.wanted import WantedReturn

    wanted = str(WantedReturn.parse(wanted_return))
    if load_recipe(checkpoint / PARTS_FOLDER / "recipe.yaml").returns is None:
        raise UsageError(
            f"{checkpoint} cannot be asked for a return, and agents trained by its recipe cannot "
            "either: the recipe has no section `returns`. Leave out --wanted-return, or give a "
            "checkpoint of such a recipe (mgdt)."
        )
    return wanted


def _demonstrations(heldout: HeldOut, tasks: list[str]) -> DatasetSpec:
    """The dataset spec, of the suite's tasks alone."""
    spec = load_dataset_spec(heldout.data)
    mine = [task for task in spec.tasks if task.task in tasks]
    if missing := set(tasks) - {task.task for task in mine}:
        raise UsageError(
            f"The suite holds out {', '.join(sorted(missing))}, of which {heldout.data!r} says no "
            "demonstrations; add an entry there."
        )
    return spec.model_copy(update={"tasks": mine, "weights": {}})


def _retrievals(heldout: HeldOut, data: Path) -> dict[str, Retrieval]:
    """What is retrieved from the demonstrations, by way."""
    steps = heldout.retrieve_steps
    return {
        RETRIEVED: Retrieval(data=data, steps=steps),
        INTERPOLATED: Retrieval(data=data, steps=steps, weight=heldout.retrieve_lambda),
        PLAYED: Retrieval(data=data, weight=0.0),
    }


def _recipe(
    checkpoint: Path, start: Path | None, *, heldout: HeldOut, data: Path, run: Path
) -> Recipe:
    """The checkpoint's own recipe, for these demonstrations and so many steps."""
    source = checkpoint / PARTS_FOLDER
    recipe = load_recipe(source / "recipe.yaml").model_dump(mode="json")
    recipe["model"]["init_from"] = None if start is None else str(start)
    keep = ("window_tokens", "context_steps", "rows_per_step", "rows_per_forward",
            "prompt_fraction", "action_dropout", "instruction_dropout", "labels")  # fmt: skip
    kept = {key: recipe["data"][key] for key in keep}
    recipe["data"] = {**kept, "root": str(data), "processor": str(source)}
    warmup = min(recipe["schedule"]["warmup_steps"], heldout.steps // 10)
    recipe["schedule"] |= {"steps": heldout.steps, "minutes": None, "warmup_steps": warmup}
    recipe["reinforcement"] = None  # the demonstrations are imitated
    if start is None:
        recipe["model"]["lora"] = None  # of random weights there is nothing to adapt
    if heldout.lr is not None and start is not None:
        recipe["optimizer"]["lr"] = heldout.lr
    recipe |= {"corrections": {}, "improvement": {}, "evaluation": {}}
    recipe |= {"trackers": [], "output_dir": str(run)}
    return Recipe.model_validate(recipe)


def _trained(recipe: Recipe) -> Path:
    """The final checkpoint of a run, which may be there already.

    Demonstrations that were added since make another run, from the beginning.
    """
    final = recipe.output_dir / FINAL
    stored = final / PARTS_FOLDER / "recipe.yaml"
    whole = recipe.model_copy(update={"model": with_sizes_of_start(recipe.model)})
    if stored.exists() and not differences(load_recipe(stored), whole):
        if _knows_its_demonstrations(recipe):
            return final
        shutil.rmtree(recipe.output_dir)
    return train(recipe)


def _knows_its_demonstrations(recipe: Recipe) -> bool:
    """Whether a run was trained on the demonstrations as they are now."""
    assert isinstance(recipe.data.root, Path)
    saved = newest_checkpoint(recipe.output_dir / CHECKPOINTS)
    marks = [] if saved is None else json.loads((saved / DATA).read_text())["tasks"]
    return [mark for _, mark in marks] == [Manifest.read(recipe.data.root).fingerprint]


def _take(found: HeldOutScores, evaluation: Any, way: str | None = None) -> None:
    """Add what was measured; without `way` it is the checkpoint's own, prompted or not."""
    for prompted in (False, True):
        mine = way or (PROMPTED if prompted else ZERO_SHOT)
        for score in evaluation.scores(prompted):
            if score.instruction == OWN:
                found.scores.setdefault(score.task, {})[mine] = score
        for result in (*evaluation.skipped, *evaluation.failed):
            if result["prompted"] == prompted and result["instruction"] == OWN:
                reason = result.get("skipped") or result["failed"]
                found.skipped.setdefault(result["task"], {})[mine] = reason
