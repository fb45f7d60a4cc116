"""What a recipe with reinforcement asks for, built: tasks, objective and source."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from generalist.envs import get_task, is_document_task, make
from generalist.errors import GeneralistError, UsageError
from generalist.integrity import read_json
from generalist.modeling import PARTS_FOLDER
from generalist.modeling.segments import can_run_segments
from generalist.modeling.values import start_values
from generalist.seeds import reinforcement_seed
from generalist.settings import setting_of
from generalist.shards.manifest import DatasetHeader
from generalist.shards.spaces import space_to_json
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor, load_processor
from generalist.training.data import NoWindows, TrainingData, open_data
from generalist.training.forms import form_of
from generalist.training.known_layouts import check_same_layouts
from generalist.training.objective import TokenObjective
from generalist.training.ranks import Ranks
from generalist.training.recipe import Recipe
from generalist.training.reinforcement.cluster import Cluster
from generalist.training.reinforcement.crew import SOURCE
from generalist.training.reinforcement.curriculum import Curriculum
from generalist.training.reinforcement.fleet import Fleet
from generalist.training.reinforcement.objective import ReinforcementObjective
from generalist.training.reinforcement.recipe import ReinforcementRecipe
from generalist.training.reinforcement.recorder import Recorder
from generalist.training.reinforcement.source import Unrolls
from generalist.training.reinforcement.timesteps import Shower
from generalist.training.sources import Demonstrations
from generalist.training.strategies.launch import launched_with_fsdp


def open_tasks(recipe: Recipe) -> TrainingData:
    """The tasks of a run with reinforcement, and its demonstrations where it imitates beside.

    A task's layout and options are those of the checkpoint that the run starts from, else those of
    the demonstrations; else its environment's own spaces decide.

    Raises:
        UsageError: a task cannot be learned by reinforcement, or does not go with the recipe.
        GeneralistError: demonstrations and checkpoint have one task in two layouts.
    """
    assert recipe.reinforcement is not None
    start = _start_of(recipe)
    processor = load_processor(recipe.data.processor)
    if start is not None and recipe.data.processor is None:
        processor = GeneralistProcessor.from_pretrained(start)
    data = open_data(recipe) if recipe.reinforcement.imitation else _nothing(processor)
    known = {} if start is None else read_json(start / "layouts.json")
    made = {} if start is None else read_json(start / "training.json").get("environments", {})
    if start is not None:
        check_same_layouts(start, known, data.layouts)
    layouts = {**data.layouts, **known}
    headers = dict(data.headers)
    for task, layout in known.items():  # so that the new checkpoint can act in all of them
        there = made.get(task, {})
        headers.setdefault(
            task, _header(task, layout, processor, there.get("spaces"), there.get("options"))
        )
    for task, wanted in recipe.reinforcement.tasks.items():
        _check(task, recipe)
        before = headers[task].collection.get("options") if task in headers else None
        options = {**(before or {}), **wanted.options}
        env = make(task, **options)
        if task not in layouts:
            layout = processor.layout(
                env.observation_space,
                env.action_space,
                task=task,
                play=partial(make, task, **options),
            )
            layouts[task] = layout.to_dict()
        if Layout.from_dict(layouts[task]).is_written:
            raise UsageError(
                f"{task} is answered in text, which reinforcement does not learn. Train it on "
                "demonstrations."
            )
        spaces = {
            "observation": space_to_json(env.observation_space),
            "action": space_to_json(env.action_space),
        }
        headers[task] = _header(task, layouts[task], processor, spaces, options)
        env.close()
    data.layouts, data.headers = layouts, headers
    data.shards = [*data.shards, *([task, "played"] for task in recipe.reinforcement.tasks)]
    data.form = form_of(
        recipe.model, {task: Layout.from_dict(each) for task, each in layouts.items()}
    )
    if data.form is None:
        raise UsageError(
            "Reinforcement needs the compact form. Set model.form=compact, or start from a "
            "checkpoint in that form."
        )
    if data.form.returns is not None:
        raise UsageError(
            "Reinforcement plays in a form without returns. Leave `returns` out of the recipe, and "
            "start from a checkpoint that was trained without."
        )
    if data.form.world is not None:
        raise UsageError(
            "Reinforcement plays in a form without a world model. Leave `world` out of the recipe, "
            "and start from a checkpoint that was trained without."
        )
    return data


def _start_of(recipe: Recipe) -> Path | None:
    """The folder with all but the weights of the checkpoint that a run starts from."""
    if recipe.model.init_from is None:
        return None
    parts = Path(recipe.model.init_from) / PARTS_FOLDER
    if not parts.is_dir():
        raise UsageError(
            f"model.init_from is {recipe.model.init_from}, which is no checkpoint of generalist. "
            "Reinforcement starts from one of those, or from nothing."
        )
    return parts


def _nothing(processor: GeneralistProcessor) -> TrainingData:
    """The data of a run without demonstrations."""
    return TrainingData(
        windows=NoWindows(),
        task_names=[],
        target_density=np.ones(0),
        processor=processor,
        layouts={},
    )


def _check(task: str, recipe: Recipe) -> None:
    """Check that a task can be learned so.

    Raises:
        UsageError: it cannot; or there is no such task.
    """
    if is_document_task(task):
        raise UsageError(f"{task} is text, which has no rewards; reinforcement plays environments.")
    assert recipe.reinforcement is not None
    found = get_task(task)
    if recipe.reinforcement.tasks[task].success_only and found.metric != "success":
        raise UsageError(
            f"reinforcement.tasks: {task} has success_only, but its score is its "
            "return. Leave success_only out."
        )
    if setting_of(recipe.data.context_steps, task) is None:
        raise UsageError(
            f"data.context_steps has no number for {task}. Reinforcement has to know how many "
            "timesteps are seen together; set it, or default."
        )


def _header(
    task: str,
    layout: Mapping[str, Any],
    processor: GeneralistProcessor,
    spaces: Mapping[str, Any] | None,
    options: Mapping[str, Any] | None,
) -> DatasetHeader:
    return DatasetHeader.create(
        task,
        Layout.from_dict(dict(layout)),
        processor.vocabulary,
        processor.fingerprint,
        spaces=dict(spaces or {}),
        collection={"options": dict(options or {}), "from": SOURCE},
    )


def build_learner(
    recipe: Recipe, data: TrainingData, imitation: TokenObjective, accelerator: Accelerator
) -> tuple[ReinforcementObjective, Unrolls]:
    """The objective and the source of a run with reinforcement.

    Args:
        recipe: the recipe of the run.
        data: what `open_tasks` found.
        imitation: the model with its loss on demonstrations.
        accelerator: the accelerator of the run.

    Raises:
        UsageError: the model or the launch does not go with reinforcement.
        GeneralistError: environments do not divide evenly over the processes.
    """
    wanted, model = recipe.reinforcement, imitation.model
    assert wanted is not None and data.form is not None
    if not can_run_segments(model.get_decoder()) or recipe.model.lora is not None:
        raise UsageError(
            "Reinforcement trains a plain qwen3 or llama whole; it knows no adapters (model.lora) "
            "and no other architecture."
        )
    if accelerator.distributed_type.value in ("DEEPSPEED", "FSDP") or launched_with_fsdp():
        raise UsageError(
            "Reinforcement moves rows of the values between steps, and needs whole weights on "
            "every process. Launch it alone or with DDP (generalist recipe ddp)."
        )
    reference = deepcopy(model).eval().requires_grad_(False) if wanted.kl else None
    ranks = Ranks(accelerator)
    shower = Shower(
        data.processor,
        data.form,
        {task: Layout.from_dict(data.layouts[task]) for task in wanted.tasks},
        contexts=_contexts(recipe),
        window_tokens=recipe.data.window_tokens,
    )
    model.values = start_values(
        wanted.value_head, tuple(wanted.tasks), model.config.hidden_size, recipe.model.init_from
    ).to(accelerator.device)
    objective = ReinforcementObjective(imitation, wanted)
    demonstrations = None
    if wanted.imitation:
        demonstrations = Demonstrations(
            recipe, data, segments=imitation.segments, ranks=ranks.count
        )
    fleet = _fleet(recipe, data, shower, ranks)
    source = Unrolls(
        recipe,
        data,
        objective=objective,
        fleet=fleet,
        ranks=ranks,
        reference=reference,
        demonstrations=demonstrations,
        recorder=_recorder(recipe, data, ranks),
        curriculum=_curriculum(wanted, fleet, ranks),
    )
    return objective, source


def _contexts(recipe: Recipe) -> list[int]:
    """For each task, how many timesteps are seen together, at most."""
    assert recipe.reinforcement is not None
    found = [setting_of(recipe.data.context_steps, task) for task in recipe.reinforcement.tasks]
    return [steps for steps in found if steps is not None]  # `_check` refuses None


def _fleet(recipe: Recipe, data: TrainingData, shower: Shower, ranks: Ranks) -> Fleet | Cluster:
    assert recipe.reinforcement is not None
    if recipe.reinforcement.ray is not None and ranks.count > 1:
        raise UsageError("Actors on a Ray cluster have one learner. Launch it alone.")
    counts = []
    for name, task in recipe.reinforcement.tasks.items():
        count, rest = divmod(task.environments, ranks.count)
        if rest:
            raise GeneralistError(
                f"reinforcement.tasks: {name} has {task.environments} environments, which do not "
                f"divide evenly over {ranks.count} processes; make it a multiple."
            )
        if count < recipe.reinforcement.minibatches:
            raise GeneralistError(
                f"reinforcement.tasks: {name} has {count} environments in each of {ranks.count} "
                f"processes for {recipe.reinforcement.minibatches} minibatches; each needs one."
            )
        counts.append(count)
    most = None if recipe.reinforcement.curriculum is None else sum(counts)
    mine = sum(counts) if most is None else most * len(counts)
    everywhere, first = mine * ranks.count, mine * ranks.number
    made: dict[str, Any] = {
        "makers": [
            partial(make, task, **(data.headers[task].collection.get("options") or {}))
            for task in shower.tasks
        ],
        "counts": counts,
        "seed_of": partial(_seed_of, recipe.seed, first=first, everywhere=everywhere),
        "contexts": _contexts(recipe),
        "record": recipe.reinforcement.record is not None,
        "actors": recipe.reinforcement.actors,
    }
    if recipe.reinforcement.ray is not None:
        return Cluster(shower, data.processor, address=recipe.reinforcement.ray, **made)
    return Fleet(shower, data.processor, most=most, **made)


def _curriculum(
    wanted: ReinforcementRecipe, fleet: Fleet | Cluster, ranks: Ranks
) -> Curriculum | None:
    if wanted.curriculum is None:
        return None
    return Curriculum(wanted.curriculum, fleet.counts, least=wanted.minibatches, ranks=ranks)


def _recorder(recipe: Recipe, data: TrainingData, ranks: Ranks) -> Recorder | None:
    """What keeps the episodes of a run; None where nobody asks for them."""
    assert recipe.reinforcement is not None
    root = recipe.reinforcement.record
    if root is None:
        return None
    headers = {task: data.headers[task] for task in recipe.reinforcement.tasks}
    run = f"{recipe.output_dir.resolve().name}, seed {recipe.seed}"
    return Recorder(root, headers, run=run, ranks=ranks)


def _seed_of(run: int, number: int, episode: int, *, first: int, everywhere: int) -> int:
    """The seed of an episode of this rank's environment `number`."""
    return reinforcement_seed(run, episode * everywhere + first + number)
