"""The recipe of self-play: which boards, how they are searched, and how the network learns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, model_validator

from generalist.errors import UsageError
from generalist.modeling.recipe import EmbeddersRecipe, Folder, ModelRecipe, Name, Section
from generalist.specs import find_spec, read_yaml, validate_data
from generalist.training.recipe import (
    CheckpointRecipe,
    OptimizerRecipe,
    apply_override,
)
from generalist.vocabulary import fingerprint_of


def _board(name: str) -> str:
    """A board's name without its family; ValueError where there is none."""
    from generalist.envs.board_games import find_game

    short = name.removeprefix("board/")
    try:
        found = find_game(short)
    except UsageError as error:
        raise ValueError(str(error)) from None
    if found is None:
        raise ValueError("there is no such board; see `generalist tasks board`")
    return short


Board = Annotated[str, AfterValidator(_board)]


class SearchRecipe(Section):
    """How self-play searches. A full search teaches moves and values, a fast one values alone
    (Wu 2019, "Accelerating self-play learning in Go", section 3.1)."""

    full_simulations: int = Field(default=80, gt=0)
    """Simulations of a full search."""
    fast_simulations: int = Field(default=16, gt=0)
    """Simulations of a fast search."""
    full_share: float = Field(default=0.3, gt=0, le=1)
    """Share of the moves, drawn for all games together, that are searched fully."""
    exploration: float = Field(default=1.5, gt=0)
    """c of PUCT."""
    noise_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the noise in the priors of a full search's root."""
    noise_concentration: float = Field(default=10.0, gt=0)
    """Concentration of the Dirichlet noise, over all moves of a position together."""
    drawn_share: float = Field(default=1 / 3, ge=0, le=1)
    """Moves are drawn in proportion to their visits until this share of a board's cells has been
    played; then the most visited is played."""


class LearningRecipe(Section):
    """What the network learns from positions, and from which."""

    batch: int = Field(default=256, gt=0)
    """Positions in one optimizer step."""
    reuse: float = Field(default=5.0, gt=0)
    """How often a position is learned from, on average."""
    value_from_search: float = Field(default=0.5, ge=0, le=1)
    """Share of the root's value in the target of the value; the rest is the outcome."""
    first_positions: int = Field(default=2_000, gt=0)
    """Learning begins after so many positions."""
    window_share: float = Field(default=0.5, gt=0, le=1)
    """Positions are drawn from this newest share of all."""
    window_positions: int = Field(default=15_000, gt=0)
    """But from at least as many."""
    capacity: int = Field(default=250_000, gt=0)
    """Most positions that are kept."""


class AnchorsRecipe(Section):
    """Games against a fixed opponent on the way. They are logged, and say which boards are not won
    yet."""

    opponent: Annotated[str, Field(pattern=r"^(random|mcts@[1-9]\d*)$")] = "mcts@100"
    """Who plays against the network: `mcts@N` or `random`."""
    games: int = Field(default=16, ge=0)
    """Games on each board, half of them with either colour; 0: none."""
    simulations: int = Field(default=100, gt=0)
    """Simulations of the network's own search."""
    every_steps: int = Field(default=1_000, gt=0)
    """Optimizer steps between two such matches."""
    least_weight: float = Field(default=0.25, gt=0, le=1)
    """A board's weight is 1 less its last score, but at least this. New games begin on boards in
    proportion to their weights."""


class ImitationRecipe(Section):
    """Demonstrations that are imitated beside self-play, so that the checkpoint which the run
    starts from keeps what it can do in other tasks. All weights are trained then, not those alone
    that boards use."""

    weight: float = Field(default=1.0, gt=0)
    """Weight of the imitation loss, beside 1 of moves and 1 of values."""
    rows: int = Field(default=4, gt=0)
    """Windows of demonstrations in an optimizer step."""
    recipe: Name | None = None
    """Recipe of training that says which demonstrations, and how they are shown: its name or the
    path of a YAML file. null: the one that the checkpoint holds."""
    data: Folder | None = None
    """Folder of the demonstrations; null: that of the recipe. Those of boards that are played are
    left out."""


class LengthRecipe(Section):
    """Length of the run, and the learning rate: linear warm-up, then half a cosine."""

    games: int | None = Field(default=None, gt=0)
    """Finished games of self-play in all."""
    cpu_minutes: float | None = Field(default=None, gt=0)
    """CPU time of the process. With `games` too, the first to end counts."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps of linear warm-up."""
    final_lr_fraction: float = Field(default=0.06, ge=0, le=1)
    """Learning rate at the end, as a fraction of the peak."""

    @model_validator(mode="after")
    def _has_an_end(self) -> LengthRecipe:
        if self.games is None and self.cpu_minutes is None:
            raise ValueError("give games, cpu_minutes or both; self-play needs an end")
        return self


def _model() -> ModelRecipe:
    return ModelRecipe(form="compact", intermediate_size=384, embedders=EmbeddersRecipe(width=8))


class SelfplayRecipe(Section):
    """All settings of a run of self-play; its checkpoint stores them resolved."""

    boards: list[Board] = Field(min_length=1)
    """The boards, such as ConnectFour-6x7. All are played by one network."""
    side: int | None = Field(default=None, gt=2)
    """Rows and columns of the common board on which all lie, at most 12. Boards up to this size can
    be played later, also sizes that were not trained. Default: the largest board's, or that of the
    checkpoint that the run starts from."""
    parallel_games: int = Field(default=256, gt=0)
    """Games that are played in step. The network judges one position of each at a time."""
    moves_per_round: int = Field(default=4, gt=0)
    """Moves in every game between two times of learning. The weights stay so long, and so do the
    judgements: the search of a move finds many of the positions that the one before it reached."""
    workers: int = Field(default=0, ge=0)
    """Processes that play beside the one that learns, each with its share of the games, one round
    behind the learner. 0: games and learning take turns in one process. CPU time counts of all."""
    model: ModelRecipe = Field(default_factory=_model)
    search: SearchRecipe = Field(default_factory=SearchRecipe)
    learning: LearningRecipe = Field(default_factory=LearningRecipe)
    imitation: ImitationRecipe | None = None
    """Imitate demonstrations beside; `{}` for the defaults. null: other tasks than boards are
    forgotten bit by bit."""
    anchors: AnchorsRecipe = Field(default_factory=AnchorsRecipe)
    optimizer: OptimizerRecipe = Field(
        default_factory=lambda: OptimizerRecipe(lr=1.5e-3, betas=(0.9, 0.97), weight_decay=0.02)
    )
    length: LengthRecipe
    checkpoint: CheckpointRecipe = Field(default_factory=CheckpointRecipe)
    keep_games: bool = True
    """Keep all games as shards in `data/` of the folder of the run, about 170 bytes a position on a
    common board of 9x9."""
    log_every_seconds: float = Field(default=10.0, gt=0)
    """Seconds between two rows of the log."""
    output_dir: Folder = Path("runs/boards")
    """Folder of the run: checkpoints, log, and the final `checkpoint/`."""
    seed: int = 0
    """Seed of the initial weights and of all games."""

    @model_validator(mode="after")
    def _is_compact(self) -> SelfplayRecipe:
        if "form" not in self.model.model_fields_set:
            self.model = self.model.model_copy(update={"form": "compact"})
        if self.model.form != "compact":
            raise ValueError("model.form is flat; boards are played in the compact form")
        if self.model.embedders.positions != 1:
            raise ValueError("model.embedders.positions: a board is one position")
        if self.workers > self.parallel_games:
            raise ValueError("workers: there are more of them than parallel_games")
        if self.imitation is not None and self.model.init_from is None:
            raise ValueError(
                "imitation keeps what a checkpoint can do; say which by model.init_from, or leave "
                "imitation out"
            )
        if self.model.lora is not None or self.optimizer.name != "adamw":
            raise ValueError("self-play trains whole weights by adamw")
        return self


def load_selfplay_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> SelfplayRecipe:
    """Load a recipe, with overrides `dotted.key=value`, as `load_recipe` does.

    Raises UsageError that names the key at fault.
    """
    path = find_spec("recipes", name_or_path)
    data: dict[str, Any] = read_yaml(path, SelfplayRecipe)
    overrides = list(overrides)
    for override in overrides:
        apply_override(data, override, SelfplayRecipe)
    return validate_data(data, SelfplayRecipe, " ".join([str(path), *overrides]))


def dump_selfplay_recipe(recipe: SelfplayRecipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


_FREE = {"anchors", "checkpoint", "keep_games", "log_every_seconds", "output_dir"}
"""Keys that may change between two starts of one run."""


def run_of(recipe: SelfplayRecipe) -> str:
    """What tells a run from those of other recipes: 16 hex digits over what is computed."""
    computed = recipe.model_dump(mode="json", exclude=_FREE)
    return fingerprint_of(computed)


def changes(old: str, new: SelfplayRecipe) -> list[str]:
    """Keys of a stored recipe (YAML) that differ in what is computed."""
    before, now = yaml.safe_load(old), new.model_dump(mode="json")
    return sorted(
        key
        for key in before.keys() | now.keys()
        if key not in _FREE and before.get(key) != now.get(key)
    )
