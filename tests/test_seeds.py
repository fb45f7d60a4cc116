"""No two users of environment seeds share one, however large each may be by its own bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from pydantic import BaseModel

from generalist.errors import UsageError
from generalist.seeds import (
    BACKGROUND_SEED,
    CORRECTIONS_SEED,
    EVALUATION_SEED,
    IMPROVEMENT_SEED,
    PROMPT_SEED,
    REINFORCEMENT_SEED,
    RUN_SCORES_SEED,
    SEEDS_PER_SPEC,
    is_dataset_seed,
    reinforcement_seed,
)
from generalist.tokenization.fit_backgrounds import MOST_EPISODES
from generalist.training.recipe import EvaluationRecipe
from generalist.training.rounds.corrections import first_seed
from generalist.training.rounds.improvement import first_seed as first_attempt
from generalist.training.rounds.recipe import (
    CorrectionsRecipe,
    ImprovementRecipe,
    TaskCorrections,
    TaskImprovement,
)
from generalist.windows.spec import DatasetSpec, TaskSpec, dataset_spec

CARTPOLE = {"task": "gym/CartPole-v1", "episodes": SEEDS_PER_SPEC}


def largest(model: type[BaseModel], key: str) -> int:
    """The largest value that a field of a config takes."""
    bounds = model.model_fields[key].metadata
    highest = [each.le if hasattr(each, "le") else each.lt - 1 for each in bounds
               if hasattr(each, "le") or hasattr(each, "lt")]  # fmt: skip
    return min(highest)


def specs() -> list[range]:
    """Seeds of the largest datasets, in each block."""
    found = [
        dataset_spec({"tasks": [CARTPOLE], "seed": seed}).first_seed
        for seed in range(largest(DatasetSpec, "seed") + 1)
    ]
    return [range(first, first + largest(TaskSpec, "episodes")) for first in found]


def rounds() -> list[range]:
    """Seeds of the largest and the most rounds of corrections."""
    episodes = largest(TaskCorrections, "episodes")
    firsts = [first_seed(number) for number in range(largest(CorrectionsRecipe, "rounds"))]
    return [range(first, first + episodes) for first in firsts]


def test_no_two_users_share_a_seed() -> None:
    run_scores = range(RUN_SCORES_SEED, RUN_SCORES_SEED + largest(EvaluationRecipe, "episodes"))
    data = [*specs(), *rounds()]
    assert data[0].start == 0 and max(each.stop for each in data) <= EVALUATION_SEED
    reinforcement = range(REINFORCEMENT_SEED, reinforcement_seed(-1, -1) + 1)
    backgrounds = range(BACKGROUND_SEED, BACKGROUND_SEED + MOST_EPISODES)
    blocks = [*data, range(EVALUATION_SEED, RUN_SCORES_SEED), run_scores,
              range(PROMPT_SEED, PROMPT_SEED + 1), reinforcement, backgrounds]  # fmt: skip
    assert all(before.stop <= after.start for before, after in pairwise(blocks))
    assert all(blocks) and blocks[-1].stop <= 2**31


def test_attempts_have_seeds_of_their_own_in_31_bits() -> None:
    episodes = largest(TaskImprovement, "episodes")
    firsts = [first_attempt(number) for number in range(largest(ImprovementRecipe, "rounds"))]
    assert firsts[0] == IMPROVEMENT_SEED >= BACKGROUND_SEED + MOST_EPISODES
    assert all(before + episodes <= after for before, after in pairwise(firsts))
    assert firsts[-1] + episodes <= 2**31
    assert all(is_dataset_seed(seed) for seed in (firsts[0], firsts[-1] + episodes - 1))


def test_a_spec_cannot_have_the_seeds_of_corrections() -> None:
    beyond = CORRECTIONS_SEED // SEEDS_PER_SPEC
    assert dataset_spec({"tasks": [CARTPOLE], "seed": beyond - 1}).seed == beyond - 1
    with pytest.raises(UsageError, match="seed"):
        dataset_spec({"tasks": [CARTPOLE], "seed": beyond})
    with pytest.raises(UsageError, match="episodes"):
        dataset_spec({"tasks": [{**CARTPOLE, "episodes": SEEDS_PER_SPEC + 1}]})
