"""BabyAI's bot, which solves missions with a stack of subgoals, made to label any state.

The bot remembers which cells it has seen. It is told what was really executed; the environment
of `generalist.envs.babyai` keeps that.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

_MOST_CHANGES = 50  # of a plan, for one action; far more than a plan that ends ever needs


class _Plan(list):
    """The bot's stack of subgoals, which some states make it change back and forth without end."""

    changes_left = _MOST_CHANGES

    def append(self, subgoal: Any) -> None:
        """Add a subgoal; raises RuntimeError where the bot turns in circles."""
        self.changes_left -= 1
        if self.changes_left < 0:
            raise RuntimeError("the bot's plan does not end")
        super().append(subgoal)


class BabyAIExpert:
    """minigrid's BabyAIBot, memoryless where it can be.

    For a mission with one goal to go to, the bot is built anew at every state and only its map of
    seen cells is kept, so that the label follows from what was seen, and not from a plan to undo
    a disturbed action. Longer missions need the bot's own plan; it is rebuilt where it fails.
    """

    name = "bot"

    def reset(self, env: gymnasium.Env, seed: int) -> None:
        """Forget the last mission."""
        self._bot: Any = None
        self._failed_in = ""  # the state in which it knew nothing to do
        self._labelled_at = -1
        self._label = 0

    def label(self, observation: Any, env: gymnasium.Env) -> np.int64:
        """The bot's action at the current state of `env`."""
        from minigrid.envs.babyai.core.verifier import GoToInstr

        base = env.unwrapped
        if base.step_count == self._labelled_at:  # asked twice about one state
            return np.int64(self._label)
        if self._failed_in and self._failed_in == base.hash():  # it would think long, in vain
            return np.int64(self._label)
        memoryless = isinstance(base.instrs, GoToInstr)
        follows = self._bot is not None and base.step_count == self._labelled_at + 1
        if memoryless or self._failed_in or not follows:
            self._rebuild(env)
            action_taken = None
        else:
            action_taken = env.get_wrapper_attr("last_action")
        self._labelled_at = base.step_count
        self._label = int(self._replan(env, action_taken))
        return np.int64(self._label)

    def _rebuild(self, env: gymnasium.Env) -> None:
        """A fresh plan from the current state, with the map of cells seen so far."""
        from minigrid.utils.baby_ai_bot import BabyAIBot

        seen = None if self._bot is None else self._bot.vis_mask
        self._bot = BabyAIBot(env)
        self._bot.stack = _Plan(self._bot.stack)
        self._failed_in = ""
        if seen is not None:
            self._bot.vis_mask = seen

    def _replan(self, env: gymnasium.Env, action_taken: int | None) -> int:
        actions = env.unwrapped.actions
        self._bot.stack.changes_left = _MOST_CHANGES
        try:
            return self._bot.replan(action_taken)
        except Exception:  # the bot's plan met a state its author did not foresee
            self._rebuild(env)
            self._bot.stack.changes_left = _MOST_CHANGES
        try:
            return self._bot.replan(None)
        except Exception:
            base = env.unwrapped
            self._failed_in = base.hash()
        if base.carrying:
            # It looks for what it holds, as where a level begins with full hands: it puts that
            # down, if there is room, and will pick it up again.
            room = base.grid.get(*base.front_pos) is None
            return actions.drop if room else actions.right
        # A mission that a disturbed action made unsolvable (an opened box, for one); there is no
        # right action any more, so the label is the one that leaves things as they are.
        return actions.done
