"""The part of a recipe that asks for reinforcement."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from generalist.modeling.recipe import Folder, Section


class TaskReinforcement(Section):
    """A task that is played, and in how many environments."""

    environments: int = Field(default=16, gt=0)
    """Environments that are played in step, over all ranks."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the environments, as `generalist rollout` has them. Default: those of the
    checkpoint that the run starts from."""
    success_only: bool = False
    """Learn from success alone: 1 at the end of an episode that succeeded, 0 elsewhere, in place of
    the task's rewards; returns in the log stay raw. It suits a start that succeeds now and then,
    and tasks that end with success, where rewards for coming near pay more than success does."""
    reward_scale: float = Field(default=1.0, gt=0)
    """Factor on the rewards that are learned from, for experiments; scores stay raw."""


class CurriculumRecipe(Section):
    """More environments for tasks whose return improves; see reinforcement/curriculum.py."""

    every: int = Field(default=20, gt=0)
    """Unrolls after which environments are dealt anew."""
    floor: float = Field(default=0.5, gt=0, le=1)
    """Share of its `environments` that a task keeps, whatever its progress."""


class ReinforcementRecipe(Section):
    """Learning from rewards: unrolls are played, learned from, and thrown away.

    Targets are V-trace's (Espeholt et al. 2018), recomputed with the present values for each
    minibatch. Values are normalised by task (PopArt, Hessel et al. 2018). A checkpoint of any
    earlier training may be the start (model.init_from).
    """

    tasks: dict[str, TaskReinforcement] = Field(min_length=1)
    """The tasks, `FAMILY/NAME: {environments: 16}`; `{}` for the defaults."""
    unroll: int = Field(default=32, gt=0)
    """Steps that each environment plays before they are learned from."""
    passes: int = Field(default=2, gt=0)
    """How often each unroll is learned from."""
    minibatches: int = Field(default=4, gt=0)
    """Optimizer steps of a pass; each task's environments are shared among them."""
    surrogate: Literal["clipped", "v-trace"] = "clipped"
    """clipped: PPO's (Schulman et al. 2017, section 3), on V-trace's advantages. v-trace: IMPALA's
    policy gradient, which suits one pass."""
    clip: float = Field(default=0.2, gt=0)
    """How far the clipped surrogate follows a probability ratio from 1."""
    importance: bool = True
    """Weigh by importance, which makes lag harmless; false only to show what it is for."""
    discount: float = Field(default=0.99, ge=0, lt=1)
    """Weight of the next step's reward; it says how far ahead is looked."""
    trace_decay: float = Field(default=0.95, ge=0, le=1)
    """Lambda of TD(lambda): 1 takes what was earned, 0 what the next value estimates."""
    entropy: float = Field(default=0.01, ge=0)
    """Weight of the policy's entropy, which keeps it trying. Advantages are in units of the spread
    of returns, so one weight suits tasks of any scale."""
    value: float = Field(default=0.5, gt=0)
    """Weight of the loss of the values."""
    value_head: Literal["scalar", "categorical"] = "scalar"
    """scalar: the value is one number, learned by half its squared error. categorical: it is the
    mean of a distribution over 101 bins, learned by cross-entropy (HL-Gauss, Farebrother et al.
    2024). The bins reach 10 spreads of the task's returns to both sides of their mean."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the policy that the run starts with."""
    value_warmup: int = Field(default=0, ge=0)
    """Unrolls in which only values are learned, because untrained ones would move the policy at
    random. Worth it when the run starts from a checkpoint."""
    popart: bool = True
    """Normalise values by each task's own returns; false only to show what it is for. Bins then
    reach from -10 to 10 rewards."""
    popart_rate: float = Field(default=0.05, gt=0, le=1)
    """How fast the statistics follow, in an unroll."""
    reward_clip: float | None = Field(default=None, gt=0)
    """Cut rewards to plus and minus this; null: not at all."""
    imitation: float = Field(default=0.0, ge=0)
    """Weight of the imitation loss on the demonstrations of `data`, which keeps what the
    checkpoint can do; 0: no demonstrations are needed."""
    curriculum: CurriculumRecipe | None = None
    """Deal environments by learning progress; `{}` for the defaults. null: each task keeps its own.
    """
    record: Folder | None = None
    """Folder into which whole episodes are written as shards, a folder of it a task; null: they are
    not kept."""
    actors: int = Field(default=0, ge=0)
    """Processes of each rank that step the environments. 0: the training process does, which is
    best where they do more than some thousand steps a second."""
    ray: str | None = None
    """Address of a Ray cluster on which the actors play whole unrolls with weights of their own:
    HOST:PORT, auto for the one running here, local for one on this machine alone. null: the actors
    are processes of this machine."""
    max_failures: int = Field(default=20, ge=0)
    """The run stops after more failures of environments than this. An unroll with a failure, such
    as a reward that is no number, is left out."""

    @model_validator(mode="after")
    def _knows_its_actors(self) -> ReinforcementRecipe:
        if self.ray is not None and not self.actors:
            raise ValueError("ray needs the number of actors; set actors to 1 or more")
        if self.ray is not None and self.curriculum is not None:
            raise ValueError("actors on a cluster keep their environments; leave curriculum out")
        return self

    @model_validator(mode="after")
    def _has_work_for_all(self) -> ReinforcementRecipe:
        for name, task in self.tasks.items():
            if task.environments < self.minibatches:
                raise ValueError(
                    f"{name} has {task.environments} environments for {self.minibatches} "
                    "minibatches; each needs one at least"
                )
        return self
