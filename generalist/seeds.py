"""Seeds of environments, in blocks that do not overlap: no scored episode was seen in training.

    [0, 900_000)            dataset specs, 100,000 seeds each
    [900_000, 1_000_000)    corrections of a run
    [1_000_000, 1_900_000)  evaluation
    [1_900_000, 2_000_000)  scores during a run
    [2_000_000, 10^9)       prompts
    [10^9, 2 * 10^9)        episodes that reinforcement learns from
    [2_000_000_000, 2_010_000_000)
                            random play that backgrounds of frames are fitted to
    [2_010_000_000, 2^31)   attempts at tasks that a run sets itself

A dataset holds seeds of specs, of corrections, of reinforcement and of attempts only.
"""

from __future__ import annotations

SEEDS_PER_SPEC = 100_000
"""Seeds of one dataset spec (generalist.windows.spec); its `seed` says which such block."""

CORRECTIONS_SEED = 900_000
"""First seed of the corrections of a run (generalist.training.rounds.corrections)."""

EVALUATION_SEED = 1_000_000
"""First seed of evaluation: rollouts, suites, and the scores of random policies and experts."""

RUN_SCORES_SEED = 1_900_000
"""First seed of the scores during a run (generalist.training.rounds.scores).

They come from other episodes than an evaluation: those stay unseen while a run is tuned.
"""

PROMPT_SEED = 2_000_000
"""First seed of demonstrations that an expert makes as prompts (generalist.acting.prompts)."""

REINFORCEMENT_SEED = 1_000_000_000
"""First seed of the episodes that reinforcement learns from."""

BACKGROUND_SEED = 2_000_000_000
"""First seed of the random play that backgrounds are fitted to (tokenization.fit_backgrounds)."""

IMPROVEMENT_SEED = 2_010_000_000
"""First seed of the attempts of a run (generalist.training.rounds.improvement)."""

_RUNS = 50
_EPISODES_PER_RUN = 1_000_000_000 // _RUNS


def is_dataset_seed(seed: int) -> bool:
    """Whether a dataset may hold the episode of this seed: evaluation and prompts keep theirs."""
    played = REINFORCEMENT_SEED <= seed < BACKGROUND_SEED or IMPROVEMENT_SEED <= seed < 2**31
    return 0 <= seed < EVALUATION_SEED or played


def reinforcement_seed(run: int, episode: int) -> int:
    """The seed of an episode that reinforcement learns from; it fits into 31 bits.

    Args:
        run: seed of the run; runs of 50 seeds in a row share no episode.
        episode: number of the episode within the run, from 0.
    """
    return REINFORCEMENT_SEED + run % _RUNS * _EPISODES_PER_RUN + episode % _EPISODES_PER_RUN
