"""What a recipe says of the rounds in which a run acts: corrections and improvement."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from generalist.modeling.recipe import Folder, Name, Section

SEEDS_PER_ROUND = 1_000
ROUNDS = 100
"""Each round has seeds of its own; those of corrections lie below EVALUATION_SEED."""


class TaskCorrections(Section):
    """The episodes of a task in each round of corrections."""

    episodes: int = Field(gt=0, le=SEEDS_PER_ROUND)
    """Episodes per round, at most 1,000; each has a seed of its own within the run."""
    max_steps: int | None = Field(default=None, gt=0)
    """Truncate episodes after this many steps, below the task's own limit."""
    expert: Name | None = None
    """Expert that labels. Default: the one that demonstrated the task."""


class CorrectionsRecipe(Section):
    """DAgger within the run (Ross, Gordon and Bagnell 2011, section 3).

    Training pauses while the model acts, and experts label every state. Then training goes on with
    these labels too, in one learning rate schedule. A clone's own mistakes lead to states that no
    demonstration contains.
    """

    tasks: dict[str, TaskCorrections] = Field(default_factory=dict)
    """Tasks of the data to correct: names, or patterns such as `metaworld/*`; none: no corrections.
    A task's name comes before a pattern that stands for it too."""
    rounds: int = Field(default=4, gt=0, le=ROUNDS)
    """Number of rounds, at most 100. Their time does not count as training."""
    begin: float = Field(default=0.25, ge=0, lt=1)
    """Progress of the schedule at the first round; the others follow at equal distances."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of a task's tokens that come from its corrections, from the first round on."""
    earlier: list[Folder] = Field(default_factory=list)
    """Folders of corrections that earlier runs made, such as `runs/catalogue/corrections`. They
    are learned from the first step on, at `share`, and every episode of them, whatever its score.
    A run that starts from a checkpoint (model.init_from) so keeps what the checkpoint was taught
    beside the demonstrations. The run's own rounds, if any, share with them."""


class TaskImprovement(Section):
    """The attempts at a task in each round of improvement."""

    episodes: int = Field(gt=0, le=SEEDS_PER_ROUND)
    """Proposals per round, at most 1,000. Each has a seed of its own, which draws a room and an
    instruction about what is in it."""
    attempts: PositiveInt = 1
    """Attempts at each proposal; they differ in what is sampled."""
    max_steps: int | None = Field(default=None, gt=0)
    """Truncate attempts after this many steps, below the task's own limit."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the environment, as `generalist rollout` has them, in place of those of the
    data. So `{pairs: heldout}` proposes what no demonstration shows."""
    least_return: float | None = None
    """Return from which an attempt is a success. Needed where the score of a task is its return;
    else the environment says what success is."""


class ImprovementRecipe(Section):
    """Self-improvement within the run, as SIMA 2 (2025) has it, in small.

    Training pauses while the model attempts tasks that it is set. Successful attempts become data,
    and training goes on with these too. No expert takes part.
    """

    tasks: dict[str, TaskImprovement] = Field(default_factory=dict)
    """Tasks to improve in: patterns for tasks of the data, or names. A task that is named needs no
    demonstrations. None: no improvement."""
    rounds: int = Field(default=4, gt=0, le=ROUNDS)
    """Number of rounds, at most 100. Their time does not count as training."""
    begin: float = Field(default=0.25, ge=0, lt=1)
    """Progress of the schedule at the first round; the others follow at equal distances."""
    share: float = Field(default=0.25, gt=0, lt=1)
    """Largest share of a task's tokens that come from its attempts. Tasks without demonstrations
    have at most this share of all tokens."""
    boost: float = Field(default=4.0, gt=0)
    """How many times as often as a demonstration an attempt is drawn, at most. So a handful of
    attempts does not fill `share`."""
    judge: Literal["checker", "value"] = "checker"
    """Who says what a success is. checker: the environment. value: the model, by the return that
    it expects at the last step, in a run with `returns`."""
    least_value: float = Field(default=0.5, ge=0, le=1)
    """With the judge `value`: share of the way from the worst to the best return of the task's
    data that the model has to expect. It suits tasks that pay at their end."""
    keep: Literal["shortest", "all"] = "shortest"
    """Which of several successes at a proposal become data."""
    last_steps: int | None = Field(default=None, gt=0)
    """Keep this many steps before the end of what is kept; null: all. A search that came before
    teaches little. It suits instructions that mean the same wherever an episode begins."""
    named_first: bool = True
    """Where the environment says what was reached first, and is the judge, keep only successes
    that reached the named thing first. Others may have come by wandering."""
    hindsight: bool = False
    """Keep attempts that did something else than was asked, too, with the instruction for what they
    did (Andrychowicz et al. 2017), where the environment gives it. This helps where successes are
    rare."""
    temperature: NonNegativeFloat | None = None
    """Sampling temperature of attempts; a higher one explores. null: that of `acting`."""
