"""Open the shards of a recipe as the data of a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from generalist.errors import GeneralistError
from generalist.settings import family_of, named_tasks
from generalist.specs import nearest
from generalist.tokenization.compact import CompactForm
from generalist.tokenization.outcomes import TaskWorld
from generalist.tokenization.returns import TaskReturns
from generalist.training.forms import form_of, outcome_ids
from generalist.training.known_layouts import warn_of_other_layouts

if TYPE_CHECKING:
    from generalist.shards.manifest import DatasetHeader
    from generalist.shards.reader import TaskData
    from generalist.training.recipe import Recipe
    from generalist.vocabulary import Vocabulary
    from generalist.windows.batch import Batch
    from generalist.windows.outcomes import Worlds
    from generalist.windows.returns import Returns
    from generalist.windows.windows import Usage


class Windows(Protocol):
    """A source of training rows that is a pure function of (seed, row number)."""

    def batch(self, start: int, rows: int) -> Batch:
        """Rows number `start` to `start + rows`."""


class NoWindows:
    """The windows of a run without demonstrations."""

    def batch(self, start: int, rows: int) -> Batch:
        """Raise GeneralistError: there are none."""
        raise GeneralistError("This run has no demonstrations to draw rows from.")


@dataclass
class TrainingData:
    """The data of a run.

    Attributes:
        windows: the source of rows.
        task_names: the task of each dataset folder; several folders may hold one task.
        target_density: (folders,) weight of the losses of a task, per token of it; above 0. Where
            each target weighs 1 it is the share of the tokens that are targets.
        processor: the processor of the shards.
        layouts: task -> `Layout.to_dict()`.
        headers: task -> the header that says how its environment is made.
        undemonstrated: the tasks of `headers` that the run acts in without a demonstration.
        shards: [task, fingerprint of its episodes] of each folder of demonstrations, and of
            corrections of earlier runs.
        weights: mixture weight of each folder of demonstrations.
        available: task -> number of episodes in the data, selected or not.
        labels: task -> number of labels in its selected episodes, of corrections too.
        form: how timesteps are shown; None in the flat form.
        returns: task -> what its data say of returns; empty where the run does not learn them.
        worlds: task -> what its data say of outcomes; empty where the run does not learn them.
    """

    windows: Windows
    task_names: Sequence[str]
    target_density: np.ndarray
    processor: Any
    layouts: dict[str, dict[str, Any]]
    headers: dict[str, DatasetHeader] = field(default_factory=dict)
    undemonstrated: frozenset[str] = frozenset()
    shards: list[list[str]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    available: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    form: CompactForm | None = None
    returns: dict[str, TaskReturns] = field(default_factory=dict)
    worlds: dict[str, TaskWorld] = field(default_factory=dict)

    def teachers(self) -> dict[str, str]:
        """Task -> the source of its demonstrations: an expert, or an imported dataset."""
        from generalist.envs import get_task

        found = {}
        for task, header in self.headers.items():
            collection = header.collection
            if collection.get("expert"):
                found[task] = collection["expert"]
            elif "expert" in collection:
                with suppress(GeneralistError):  # a family whose package is not installed here
                    found[task] = get_task(task).default_expert
            elif "dataset" in collection:
                found[task] = f"{collection.get('from', 'import')} {collection['dataset']}"
        return found

    def environments(self) -> dict[str, dict[str, Any]]:
        """Task -> options and spaces of the environment of its demonstrations."""
        return {
            task: {"options": header.collection.get("options") or {}, "spaces": header.spaces}
            for task, header in self.headers.items()
            if header.spaces  # documents have none
        }

    def facts(self) -> dict[str, Any]:
        """What a resumed run must find unchanged, as JSON."""
        return {
            "vocabulary": self.processor.vocabulary.fingerprint,
            "tasks": self.shards,
            "weights": self.weights,
        }


def corrections_root(recipe: Recipe, number: int) -> Path:
    """The folder of the corrections of round `number` of a run, counted from 0."""
    return recipe.output_dir / "corrections" / f"round-{number + 1}"


def improvement_root(recipe: Recipe, number: int) -> Path:
    """The folder of the attempts of round `number` of a run, counted from 0."""
    return recipe.output_dir / "improvement" / f"round-{number + 1}"


def open_data(recipe: Recipe, rounds: int = 0, improvements: int = 0) -> TrainingData:
    """Open the shards below `data.root` as windows.

    Args:
        recipe: the recipe of the run.
        rounds: number of rounds of the run's own corrections to add, beside those of earlier runs.
        improvements: number of rounds of the run's own attempts to add.

    Raises:
        UsageError: corrections of earlier runs are not there, or of other tasks.
        GeneralistError: shards are damaged, or were encoded with another processor.
    """
    from generalist.shards.remote import local_root
    from generalist.tokenization.layout import Layout
    from generalist.tokenization.processor import load_processor
    from generalist.training.undemonstrated import undemonstrated_headers
    from generalist.windows.mixture import corrections_below, earlier_corrections, open_mixture
    from generalist.windows.selection import Selection
    from generalist.windows.windows import WindowSampler

    data = recipe.data
    processor = load_processor(data.processor)
    roots = data.root if isinstance(data.root, list) else [data.root]
    room = int(data.cache_gigabytes * 1e9)
    folders = [local_root(root, cache=data.cache, cache_bytes=room) for root in roots]
    mixture = open_mixture(
        folders,
        data.weights,
        processor,
        skip_damaged=data.skip_damaged,
        selection=Selection(data.min_expert_share, data.episodes, data.best_share),
        task_temperature=data.task_temperature,
    )
    headers = _headers(mixture.tasks)
    new = undemonstrated_headers(recipe, headers, processor)
    earlier = earlier_corrections(recipe.corrections.earlier, mixture.tasks, processor)
    shards = [[task.task, task.fingerprint] for task in [*mixture.tasks, *earlier]]
    weights = [round(weight, 9) for weight in mixture.weights]
    returns = _returns(recipe, mixture.tasks, processor.vocabulary)
    worlds = _worlds(recipe, mixture.tasks, processor.vocabulary)
    own = corrections_below([corrections_root(recipe, n) for n in range(rounds)], processor)
    mixture.add_corrections([*earlier, *own], recipe.corrections.share)
    mixture.add_attempts(
        [improvement_root(recipe, number) for number in range(improvements)],
        recipe.improvement.share,
        recipe.improvement.boost,
        processor,
    )
    headers |= new
    for damage in mixture.damaged:
        warnings.warn(f"Left out: {damage}", stacklevel=2)
    for key in ("context_steps", "min_expert_share", "episodes", "best_share"):
        warn_of_unknown(f"data.{key}", named_tasks(getattr(data, key)), headers)
    warn_of_unknown("acting.temperature", named_tasks(recipe.acting.temperature), headers)
    layouts = {task: Layout.from_dict(header.layout) for task, header in headers.items()}
    asked = None if returns is None else processor.vocabulary["return"]
    foreseen = None if worlds is None else outcome_ids(processor.vocabulary)
    form = form_of(recipe.model, layouts, asked, foreseen)
    warn_of_other_layouts(recipe.model.init_from, layouts)
    windows = WindowSampler(
        mixture.tasks,
        mixture.weights,
        header_of=lambda task, instruction: processor.header(
            task.task, instruction, spelled=form is None
        ),
        window_tokens=data.window_tokens,
        seed=recipe.seed,
        prompt_fraction=data.prompt_fraction,
        action_dropout=data.action_dropout,
        instruction_dropout=data.instruction_dropout,
        context_steps=data.context_steps,
        form=form,
        labels=data.labels,
        returns=returns,
        worlds=worlds,
    )
    names = [task.task for task in mixture.tasks]
    usage = windows.usage(rows=512)
    _warn_of_unmatched(usage)
    return TrainingData(
        windows=windows,
        task_names=names,
        target_density=_target_density(usage, names, data.window_tokens),
        processor=processor,
        layouts={task: layout.to_dict() for task, layout in layouts.items()},
        headers=headers,
        undemonstrated=frozenset(new),
        shards=shards,
        weights=weights,
        available=mixture.available,
        labels=_labels(mixture.tasks, {} if returns is None else returns.tasks),
        form=form,
        returns={} if returns is None else dict(returns.tasks),
        worlds={} if worlds is None else dict(worlds.tasks),
    )


def _returns(recipe: Recipe, folders: Sequence[TaskData], vocabulary: Vocabulary) -> Returns | None:
    """The returns of a run's data; None where its recipe does not ask for them.

    Warns of tasks whose returns are all the same, of which nothing can be asked.
    """
    from generalist.windows.returns import Returns, fit_returns

    wanted = recipe.returns
    if wanted is None:
        return None
    tasks = fit_returns(folders, wanted.discount, vocabulary["return"].size)
    _warn_of_same(folders, tasks, "no return can be asked for there, and no value is learned")
    return Returns(tasks, wanted.show, wanted.weight)


def _worlds(recipe: Recipe, folders: Sequence[TaskData], vocabulary: Vocabulary) -> Worlds | None:
    """The outcomes in a run's data; None where its recipe does not ask for them.

    Warns of tasks whose returns are all the same, in which nothing can be planned.
    """
    from generalist.windows.outcomes import Worlds, fit_worlds

    wanted = recipe.world
    if wanted is None:
        return None
    tasks = fit_worlds(folders, wanted.discount, vocabulary["return"].size)
    _warn_of_same(folders, tasks, "nothing can be planned there, and no outcomes are learned")
    return Worlds(tasks, wanted.observation, wanted.outcome)


def _warn_of_same(folders: Sequence[TaskData], known: Iterable[str], so: str) -> None:
    """Warn of tasks that are not known because their returns are all the same."""
    every = {data.task for data in folders if not data.layout.is_document}
    if same := sorted(every - set(known)):
        warnings.warn(
            f"All returns in the data of {', '.join(same)} are the same, so {so}.", stacklevel=4
        )


def _labels(folders: Sequence[TaskData], with_values: Mapping[str, TaskReturns]) -> dict[str, int]:
    """Task -> number of labels in its folders.

    One for each action token, of texts each token, and one for each value.
    """
    found: dict[str, int] = {}
    for data in folders:
        of_a_step = int(data.layout.positions.chosen.sum()) + (data.task in with_values)
        found[data.task] = found.get(data.task, 0) + data.steps * of_a_step
    return found


def _headers(folders: Sequence[TaskData]) -> dict[str, DatasetHeader]:
    """Task -> the header that says how its environment is made.

    It is that of the task's first collected folder, else of its first imported one. Each has
    `collection["options"]`, the options of the environment; {} where they are unknown.
    Warns where the folders of a task have different options.
    """
    chosen: dict[str, TaskData] = {}
    for data in folders:
        before = chosen.setdefault(data.task, data)
        if before.header.is_imported and not data.header.is_imported:
            chosen[data.task] = data
    for data in folders:
        first = chosen[data.task]
        ours, theirs = (each.header.collection.get("options") for each in (first, data))
        if ours != theirs and theirs is not None and not (ours is None and theirs == {}):
            warnings.warn(
                f"{data.task} was made with the options {ours or {}} in {first.folder} and with "
                f"{theirs} in {data.folder}; a model trained on both acts with the former.",
                stacklevel=3,
            )
    return {
        task: replace(
            data.header,
            collection={"options": {}, **data.header.collection, **_imported(task, folders)},
        )
        for task, data in chosen.items()
    }


def _imported(task: str, folders: Sequence[TaskData]) -> dict[str, str]:
    """The datasets of a task that were imported, such as several strengths; {} where none was."""
    mine = [data.header.collection for data in folders if data.task == task]
    names = dict.fromkeys(str(each["dataset"]) for each in mine if "dataset" in each)
    return {"dataset": ", ".join(names)} if names else {}


def warn_of_unknown(key: str, names: Iterable[str], tasks: Iterable[str]) -> None:
    """Warn of tasks or families that a recipe names but the data do not hold.

    This is no error, because a recipe serves other data too.

    Args:
        key: key of the recipe.
        names: the names under that key.
        tasks: the tasks of the data.
    """
    tasks = list(tasks)
    known = {*tasks, *map(family_of, tasks)}
    for name in names:
        if name not in known:
            near = nearest(name, tasks)
            hint = f"; did you mean {near!r}?" if near else "."
            warnings.warn(f"{key} names {name!r}, which the data do not hold{hint}", stacklevel=3)


def _warn_of_unmatched(usage: Usage) -> None:
    """Warn of prompts that are left out because no other episode has the same instruction."""
    shares = {
        name: count / (count + usage.prompted[name])
        for name, count in usage.unmatched.items()
        if count
    }
    if shares:
        worst = ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items()))
        warnings.warn(
            "Prompts are left out where no other episode has the same instruction, which is the "
            f"case for these shares of them: {worst}. data.prompt_fraction 0 leaves out all.",
            stacklevel=3,
        )


def _target_density(usage: Usage, names: Sequence[str], window_tokens: int) -> np.ndarray:
    """(folders,) weight of losses per token of each task, measured on some hundred rows."""
    weights = np.array([usage.weights[name] for name in names]) * usage.weight_per_row
    tokens = np.array([usage.tokens[name] for name in names]) * window_tokens
    # A task that no measured row holds counts as if all its tokens were targets.
    return np.divide(weights, tokens, out=np.ones(len(names)), where=tokens > 0).clip(min=1e-3)


def task_weights(data: TrainingData, balance_tasks: bool) -> np.ndarray:
    """(folders,) float32 weight of one target of each task.

    Args:
        data: the data of the run.
        balance_tasks: False: all weights are 1. True: a weight is 1 / density of targets. A task's
            expected share of the loss then is its share of the tokens, which is its mixture weight.
    """
    density = np.asarray(data.target_density, dtype=np.float64)
    return (1.0 / density if balance_tasks else np.ones_like(density)).astype(np.float32)
