"""A run of self-play: games and optimizer steps, by turns or side by side.

Until its length is reached or it is stopped, a run repeats:
1. A round: some moves in every game, found by search. The positions of games that end are
   remembered.
2. Optimizer steps, as many as the new positions are worth. Then all judgements are forgotten, so
   what follows depends on weights and games alone: a run that is resumed equals one that was not.
3. What is due: games against the anchor, a row of the log, a checkpoint.

With `workers` the games are played in processes beside this one, a round ahead of what is learned
(see `beside.py`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from generalist.acting.boards import SearchPolicy
from generalist.acting.matches import Pairing, play_matches, score
from generalist.envs.board_opponents import rules_policy
from generalist.errors import GeneralistError
from generalist.integrity import write_folder
from generalist.planning.tree import TreeSearch
from generalist.policy import Policy
from generalist.training.checkpoint import newest_checkpoint, remove_older
from generalist.training.loop import FINAL, TrainingInterrupted
from generalist.training.resume import CHECKPOINTS, only_run_in
from generalist.training.selfplay.beside import GamesBeside
from generalist.training.selfplay.games import Ended, Games
from generalist.training.selfplay.imitation import Imitation
from generalist.training.selfplay.learner import Learner
from generalist.training.selfplay.log import SelfplayLog
from generalist.training.selfplay.recipe import (
    SelfplayRecipe,
    changes,
    dump_selfplay_recipe,
    load_selfplay_recipe,
)
from generalist.training.selfplay.replay import Replay
from generalist.training.selfplay.shards import DATA, GameShards
from generalist.training.selfplay.start import Start, start
from generalist.training.selfplay.state import SelfplayState
from generalist.training.strategies.launch import StopSignal, torch_settings_kept

MODEL, OPTIMIZER, REPLAY, GAMES, STATE, RECIPE = (
    "model.safetensors", "optimizer.safetensors", "replay.safetensors", "games.safetensors",
    "state.json", "recipe.yaml",
)  # fmt: skip
RECORD = "games.jsonl"
"""All finished games of a run: board, OpenSpiel's actions, winner."""
_ANCHOR_SEED = 10_000  # of games against the anchor, beyond those of an arena
_FIXED = ("model", "boards", "side", "parallel_games", "workers", "imitation")
"""Keys of the recipe that a run can not change: what is saved has their shape."""


def selfplay(recipe: SelfplayRecipe | str | Path, *, allow_changes: bool = False) -> Path:
    """Play and learn by a recipe; return the folder of the final checkpoint.

    Args:
        recipe: the recipe, its name or its path.
        allow_changes: continue although the recipe has changed.

    Raises:
        TrainingInterrupted: SIGTERM or SIGINT came; everything is saved.
        UsageError: the boards do not fit, or the run cannot start from the checkpoint given.
        GeneralistError: `output_dir` holds another run.
    """
    if not isinstance(recipe, SelfplayRecipe):
        recipe = load_selfplay_recipe(recipe)
    with torch_settings_kept(), only_run_in(recipe.output_dir):
        torch.set_flush_denormal(True)  # denormal moments make CPUs many times slower
        with SelfplayRun(recipe, start(recipe)) as run:
            run.resume(allow_changes=allow_changes)
            with StopSignal() as stop:
                run.run(stop)
            return run.export()


class SelfplayRun:
    """A run: games, a network that learns from them, and the progress; use as a context manager.

    Args:
        recipe: the recipe.
        parts: what it begins with.
    """

    def __init__(self, recipe: SelfplayRecipe, parts: Start) -> None:
        self.recipe, self.parts, self.state = recipe, parts, SelfplayState()
        playing, learning = np.random.SeedSequence(recipe.seed).spawn(2)
        self._random = np.random.default_rng(learning)
        self._search = TreeSearch(parts.boards, parts.judge, exploration=recipe.search.exploration)
        self._stack = ExitStack()
        self.games: Games | GamesBeside
        if recipe.workers:
            self.games = GamesBeside(recipe, playing.spawn(recipe.workers), self._stack)
        else:
            self.games = Games(
                parts.boards, self._search, recipe.search,
                count=recipe.parallel_games, random=np.random.default_rng(playing),
            )  # fmt: skip
        self.imitation = None if recipe.imitation is None else Imitation(recipe, parts)
        self.replay = Replay(parts.boards, recipe.learning.capacity)
        self.learner = Learner(
            parts.network, tasks=parts.tasks, columns=parts.judge.columns,
            learning=recipe.learning, optimizer=recipe.optimizer, length=recipe.length,
            imitation=self.imitation,
        )  # fmt: skip
        counts = self.games if isinstance(self.games, GamesBeside) else self._search
        self.log = SelfplayLog(recipe, counts, self.imitation)
        self._saved = self.state
        self._shards: GameShards | None = None

    def __enter__(self) -> SelfplayRun:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    # Playing and learning

    def run(self, stop: StopSignal) -> None:
        """Play and learn until the length is reached or `stop` is raised; save in both cases."""
        cpu, wall = time.process_time(), time.monotonic()
        cpu, wall = cpu - self.state.cpu_seconds, wall - self.state.wall_seconds
        self._saved = replace(self.state)
        folder = self.recipe.output_dir
        with ExitStack() as stack:
            stack.enter_context(self.log).begin(self.state)
            record = stack.enter_context((folder / RECORD).open("ab"))
            self._cut(folder / RECORD)
            if self.recipe.keep_games:
                begins = not self.state.games
                shards = GameShards(folder / DATA, self.parts, self.recipe, begins=begins)
                self._shards = stack.enter_context(shards)
            while self._done() < 1 and not stop.raised:
                self.round(record.write)
                if self._match_is_due():
                    self._play_anchor()
                self.state.cpu_seconds = time.process_time() - cpu
                if isinstance(self.games, GamesBeside):
                    self.state.cpu_seconds += self.games.cpu_seconds
                self.state.wall_seconds = time.monotonic() - wall
                self.log.flush_if_due(self.state, self._done())
                if self._save_is_due():
                    record.flush()
                    self.save()
            record.flush()
            self.save()
        self._shards = None
        if self._done() < 1:
            raise TrainingInterrupted(
                f"Stopped after {self.state.games:,} games; everything is saved in "
                f"{folder / CHECKPOINTS}. The same command continues from there."
            )

    def _cut(self, record: Path) -> None:
        """Cut the record of games behind those that this run has played."""
        if record.stat().st_size < self.state.record_bytes:
            self.state.record_bytes = record.read_bytes().rfind(b"\n") + 1
            self.log.say(
                f"{record} lacks games that were played before: it was cut or deleted. Those that "
                "follow are added; the checkpoint lacks none."
            )
        os.truncate(record, self.state.record_bytes)

    def round(self, write: Callable[[bytes], int]) -> None:
        """Some moves in every game, and the optimizer steps that are owed.

        Args:
            write: takes a line of the record of games; returns its bytes.
        """
        if isinstance(self.games, GamesBeside):
            self.games.begin(self.learner.parameters)
            self._learn()
            for ended in self.games.finish():
                self._take(ended, write)
        else:
            for _ in range(self.recipe.moves_per_round):
                for ended in self.games.play():
                    self._take(ended, write)
            self._learn()
        self._search.forget()
        self.state.simulations, self.state.plies = self.games.simulations, self.games.plies

    def _done(self) -> float:
        """Progress in [0, 1], by games or by CPU time, whichever is larger."""
        length, shares = self.recipe.length, [0.0]
        if length.games is not None:
            shares.append(self.state.games / length.games)
        if length.cpu_minutes is not None:
            shares.append(self.state.cpu_seconds / 60 / length.cpu_minutes)
        return min(1.0, max(shares))

    def _take(self, ended: Ended, write: Callable[[bytes], int]) -> None:
        """Remember a finished game."""
        self.replay.add(ended.played)
        if self._shards is not None:
            self._shards.add(self.state.games, ended)
        count = len(ended.played.game)
        self.state.games += 1
        self.state.positions += count
        self.state.owed += count * self.recipe.learning.reuse / self.recipe.learning.batch
        name = self.recipe.boards[ended.game]
        line = {"board": name, "winner": ended.winner, "actions": ended.actions}
        self.state.record_bytes += write((json.dumps(line) + "\n").encode())
        self.log.ended(name, ended.winner, count)

    def _learn(self) -> None:
        recipe, state = self.recipe.learning, self.state
        if self.replay.seen < recipe.first_positions:
            state.owed = 0.0
        began = time.process_time()
        window = max(recipe.window_positions, int(recipe.window_share * self.replay.seen))
        while state.owed >= 1:
            drawn = self.replay.draw(recipe.batch, window, self._random)
            self.log.learned(self.learner.learn(drawn, self._done()))
            state.owed -= 1
        state.steps = self.learner.step
        self.log.learning_seconds += time.process_time() - began

    # Games against the anchor

    def _match_is_due(self) -> bool:
        anchors = self.recipe.anchors
        return anchors.games > 0 and self.state.steps // anchors.every_steps > self.state.matches

    def _play_anchor(self) -> None:
        """Play against the anchor on every board, and weigh the boards by the scores."""
        anchors, boards = self.recipe.anchors, self.parts.boards
        for number, (name, view) in enumerate(zip(self.recipe.boards, boards.views, strict=True)):
            own = SearchPolicy(
                self._search, number=number, view=view, simulations=anchors.simulations
            )
            first = _ANCHOR_SEED + anchors.games * self.state.matches
            pairings = [
                Pairing(first + game, (game % 2, 1 - game % 2)) for game in range(anchors.games)
            ]
            players: list[Policy] = [own, rules_policy(anchors.opponent)]
            self.state.scores[name] = score(list(play_matches(view, players, pairings)), 0)
            self.state.weights[name] = max(anchors.least_weight, 1 - self.state.scores[name])
        self.state.matches = self.state.steps // anchors.every_steps
        self._weigh()
        self._search.forget()
        self.log.scores(self.state)

    def _weigh(self) -> None:
        weights = [self.state.weights.get(name, 1.0) for name in self.recipe.boards]
        self.games.weights = np.array(weights)

    # Starting and ending

    def _save_is_due(self) -> bool:
        cadence, state = self.recipe.checkpoint, self.state
        steps = state.steps - self._saved.steps
        minutes = (state.wall_seconds - self._saved.wall_seconds) / 60
        return bool(
            (cadence.every_steps and steps >= cadence.every_steps)
            or (cadence.every_minutes and minutes >= cadence.every_minutes)
        )

    def save(self) -> None:
        """Save a checkpoint to resume from, then remove older ones.

        The games are kept before, so a checkpoint never knows of a game that is lost.
        """
        if self._shards is not None:
            self._shards.flush()

        def write(folder: Path) -> None:
            save_file(_plain(self.learner.parameters), folder / MODEL)
            save_file(_plain(self.learner.moments()), folder / OPTIMIZER)
            for name, part in ((REPLAY, self.replay), (GAMES, self.games)):
                arrays = {key: torch.from_numpy(value) for key, value in part.state().items()}
                save_file(arrays, folder / name)
            random = [*self.games.random_states(), self._random.bit_generator.state]
            state = {**asdict(self.state), "random": random, "replay_seen": self.replay.seen}
            (folder / STATE).write_text(json.dumps(state, indent=1) + "\n")
            (folder / RECIPE).write_text(dump_selfplay_recipe(self.recipe))

        root = self.recipe.output_dir / CHECKPOINTS
        write_folder(root / f"step-{self.state.steps:08d}", write)
        remove_older(root, self.recipe.checkpoint.keep)
        self._saved = replace(self.state)

    def resume(self, *, allow_changes: bool = False) -> None:
        """Continue from the newest valid checkpoint, if there is one.

        Raises GeneralistError where it is of another recipe.
        """
        folder = newest_checkpoint(self.recipe.output_dir / CHECKPOINTS)
        if folder is None:
            return
        changed = changes((folder / RECIPE).read_text(), self.recipe)
        fixed = [key for key in changed if key in _FIXED]
        if fixed or (changed and not allow_changes):
            way = "" if fixed else ", or --allow-changes to continue it anyway"
            raise GeneralistError(
                f"{folder} was saved by another recipe (other {', '.join(changed)}). Give another "
                f"output_dir{way}."
            )
        stored = json.loads((folder / STATE).read_text())
        *playing, self._random.bit_generator.state = stored.pop("random")
        seen = stored.pop("replay_seen")
        self.state = SelfplayState(**stored)
        with torch.no_grad():
            for name, value in load_file(folder / MODEL).items():
                self.learner.parameters[name].copy_(value)
        self.learner.restore(load_file(folder / OPTIMIZER), self.state.steps)
        self.replay.restore(_arrays(folder / REPLAY), seen)
        self.games.restore(_arrays(folder / GAMES), playing)
        self.games.simulations, self.games.plies = self.state.simulations, self.state.plies
        self._weigh()
        self.log.say(f"Continuing from {folder}.")

    def export(self) -> Path:
        """Write the final checkpoint, which `Agent` loads; its folder."""
        state, folder = self.state, self.recipe.output_dir / FINAL
        self.parts.network.store()
        facts = {
            **self.parts.checkpoint.facts,
            "steps": state.steps,
            "minutes": round(state.cpu_seconds / 60, 2),
            "games": state.games,
            "positions": state.positions,
            "simulations": state.simulations,
        }
        checkpoint = replace(
            self.parts.checkpoint, facts=facts, recipe=dump_selfplay_recipe(self.recipe)
        )
        replace(checkpoint, card=_card(checkpoint.all_facts, folder)).write(folder)
        return folder


def _plain(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: each.detach().contiguous() for name, each in tensors.items()}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    return {name: each.numpy() for name, each in load_file(path).items()}


def _card(facts: dict[str, Any], folder: Path) -> str:
    boards = "\n".join(f"- `{task}`" for task in facts["selfplay"])
    first = facts["selfplay"][0]
    return f"""---
library_name: transformers
tags: [generalist, self-play, board-games]
---

# {folder.parent.name}

One causal language model ({facts["architecture"]}, {facts["parameters"]["total"]:,} parameters,
{facts["parameters"]["body"]:,} in the body) that learned these boards by self-play:

{boards}

It played {facts["games"]:,} games and {facts["simulations"]:,} simulations, and took
{facts["steps"]:,} optimizer steps, in {facts["minutes"]:.1f} minutes of CPU time.

## Use

```console
$ generalist rollout {first.replace("/", " ")} --checkpoint PATH --plan tree:simulations=100
$ generalist arena PATH+tree@100 mcts@100 --board {first.partition("/")[2]}
```
"""
