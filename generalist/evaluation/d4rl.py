"""Returns on the scale of D4RL, to be read beside published scores of offline learning.

A score is 100 (return - random) / (expert - random), as in Fu et al. 2020, "D4RL: Datasets for Deep
Data-Driven Reinforcement Learning" (arXiv:2004.07219). The published references are those of
`d4rl/infos.py` in D4RL's repository, which papers on these tasks use.

D4RL measured them in version 2 of the tasks. Version 4 has the same bodies and rewards in a newer
simulator, and so has HalfCheetah-v5. In Hopper-v5 the step of a fall no longer earns 1, which is
0.03 of the scale. Walker2d-v5 has another friction under one foot. So it is another task, and the
registry's scores are its references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from generalist.envs import get_task
from generalist.evaluation.scores import OWN, TaskScore, is_changed


@dataclass(frozen=True)
class Scale:
    """What 0 and 100 stand for in a task.

    Attributes:
        random: mean return of random play, 0 on the scale.
        expert: mean return of the expert, 100 on the scale.
        source: who measured both: `D4RL`, or `registry` with the name of its expert.
    """

    random: float
    expert: float
    source: str

    def of(self, mean: float) -> float:
        """The place of a mean return on the scale."""
        return 100 * (mean - self.random) / (self.expert - self.random)


_HALF_CHEETAH = Scale(-280.178953, 12135.0, "D4RL")
_HOPPER = Scale(-20.272305, 3234.3, "D4RL")
PUBLISHED = {
    "gym/HalfCheetah-v4": _HALF_CHEETAH,
    "gym/HalfCheetah-v5": _HALF_CHEETAH,
    "gym/Hopper-v4": _HOPPER,
    "gym/Hopper-v5": _HOPPER,
    "gym/Walker2d-v4": Scale(1.629008, 4592.3, "D4RL"),
}
"""By task: D4RL's references, where they apply."""


def scale_of(task: str) -> Scale | None:
    """The scale of a task: D4RL's own, else the registry's; None where neither has references."""
    if task in PUBLISHED:
        return PUBLISHED[task]
    references = get_task(task).references
    if references is None:
        return None
    random, expert = references
    return Scale(random.mean, expert.mean, f"registry, {expert.expert}")


def d4rl_scores(scores: Sequence[TaskScore]) -> dict[str, float]:
    """The scores of tasks with published references, by task.

    Rows with another instruction than the task's own are left out, and so are episodes that were
    cut or played in a changed environment.
    """
    return {
        score.task: PUBLISHED[score.task].of(score.mean)
        for score in scores
        if score.task in PUBLISHED and score.instruction == OWN and not is_changed(score)
    }


def d4rl_line(found: Mapping[str, float]) -> str:
    """One sentence on what `d4rl_scores` returns; nothing where there is no score."""
    if not found:
        return ""
    each = ", ".join(f"{task} {score:.1f}" for task, score in found.items())
    mean = sum(found.values()) / len(found)
    return f"On the scale of D4RL (0 random, 100 its expert): {each}; mean {mean:.1f}."
