"""A game that a page plays: sessions of one task, watched or taken over by a person.

All methods of a game are called in one thread, because renderers belong to the thread that made
them. `generalist.viewer.server` gives each page a thread of its own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import gymnasium
import numpy as np

from generalist import envs
from generalist.acting.agent import Agent
from generalist.acting.boards import FAMILY, tree_policy, unknown_board_layout
from generalist.acting.environment import options_for
from generalist.acting.trees import TreePlan
from generalist.acting.video import Picture
from generalist.envs.speaking import is_speaking_task
from generalist.episode import tree_map
from generalist.errors import GeneralistError, UsageError, needing
from generalist.experts import RandomPolicy
from generalist.policy import Policy
from generalist.session import Session, advance
from generalist.viewer.film import shrunk
from generalist.viewer.keep import episode_of, keep_episode
from generalist.viewer.person import Controls
from generalist.viewer.reader import Reader
from generalist.viewer.watched import Beliefs, Watched

PLAY_SEEDS = 800_000
"""Seeds of games begin here: below those of evaluation, so that a person's episodes are data."""
_SIDES = {1: 480, 9: 240}  # pixels of a picture's longer side, by the number of agents
_JPEG_QUALITY = 82


@dataclass
class Model:
    """A checkpoint, loaded once for all games.

    Attributes:
        name: what the user calls it.
        agent: of any of its tasks.
        beliefs: hears it and all agents made from it.
        plan: how it searches as a person's opponent on a board; None where it plays at once.
        lock: is held while it decides, or while an environment is made.
    """

    name: str
    agent: Agent
    beliefs: Beliefs
    plan: TreePlan | None = None
    lock: Lock = field(default_factory=Lock)

    @property
    def tasks(self) -> list[str]:
        """The environments it was trained in that go on for more than one picture."""
        known = sorted(self.agent.layouts)
        return [
            each for each in known if not (envs.is_document_task(each) or is_speaking_task(each))
        ]

    def watched(self, task: str) -> Watched:
        """A policy of its own for a game."""
        return Watched(self.agent.for_task(task), self.beliefs, self.lock)

    def opponent(self, task: str) -> Policy | None:
        """A person's opponent on a board; None where the model does not play there.

        A model that learned boards by self-play plays sizes that it was not trained on too.
        """
        if not task.startswith(FAMILY):
            return None
        layout = self.agent.layouts.get(task)
        layout = layout or unknown_board_layout(task, self.agent.layouts, self.agent.processor)
        if layout is None:
            return None
        agent = self.agent.for_task(task, layout)
        if self.plan is not None:
            return tree_policy(agent, self.plan)
        return Watched(agent, self.beliefs, self.lock)


class Game:
    """One task, played by one agent or by nine side by side.

    Args:
        model: who acts.
        task: a task of the model, or any other that a person plays alone.
        agents: 1 or 9.
        seed: of the first episode; each later one takes the next.

    Attributes:
        control: whether a person acts in place of the agent, in the first session.
        look: which session is looked into.

    Raises:
        UsageError: there is no such task, or neither the model nor a person can act in it.
    """

    def __init__(self, model: Model, task: str, *, agents: int, seed: int) -> None:
        envs.get_task(task)
        self.model, self.task = model, task
        self.known = task in model.tasks
        self.options = options_for(model.agent, task, {})
        self._next_seed = seed
        self._environments: list[gymnasium.Env] = []
        self.sessions: list[Session] = []
        self.control = False
        self.look = 0
        self._against: str | None = None  # who plays on a board in place of the task's opponent
        self._wanted: str | None = None  # the return that episodes are asked for, as it is written
        self._beyond: str | None = None  # what is asked for in its place, in words
        self._person_steps = 0
        self._saved = -1, 0  # seed of the episode that was saved last, and its steps
        self._moment: dict[str, Any] | None = None
        self._pictures = [Picture() for _ in range(agents)]
        try:
            with model.lock:
                for _ in range(agents):
                    self._environments.append(self._make())
            self._open()
        except BaseException:
            self.close()
            raise

    def _make(self) -> gymnasium.Env:
        against: dict[str, Any] = {}
        opponent = self.model.opponent(self.task)
        if opponent is not None:
            against = {"opponent": lambda env: opponent}
            self._against = getattr(opponent, "name", self.model.name)
        return envs.make(self.task, render_mode="rgb_array", **{**self.options, **against})

    def _open(self) -> None:
        """What follows from the environment, and the first episodes."""
        first = self._environments[0]
        self.controls = Controls(self.task, first)
        if not self.known and not self.controls.possible:
            raise UsageError(
                f"{self.model.name} was not trained on {self.task}, and a person cannot act in its "
                "action space."
            )
        self.policy: Policy = RandomPolicy(first.action_space)
        self.reader: Reader | None = None
        if self.known:
            watched = self.model.watched(self.task)
            self.policy, self.reader = watched, Reader(watched.agent, first)
        else:
            self.control = True
        self.control = self.control or self.task.startswith(FAMILY)
        for slot in range(len(self._environments)):
            self._begin(slot)

    def _begin(self, slot: int) -> None:
        """The next episode of a slot."""
        if slot < len(self.sessions):
            self.sessions[slot].end()
        session = Session(
            self._environments[slot],
            self.policy,
            task=self.task,
            seed=self._next_seed,
            slot=slot,
            keep_steps=slot == 0,
            wanted_return=self._wanted,
        )
        self.sessions[slot:] = [session, *self.sessions[slot + 1 :]]
        self._next_seed += 1
        if slot == 0:
            self._person_steps = 0
            self.controls.let_go()
        if slot == self.look:
            self._moment = None

    # What the page asks for

    def step(self) -> None:
        """One step in every session that goes on; those that have ended begin anew.

        The first session waits at its end while a person is in control.
        """
        for slot, session in enumerate(self.sessions):
            if session.done and not (slot == 0 and self.control):
                self._begin(slot)
        going_on = [each for each in self.sessions if not each.done]
        if not going_on:
            return
        first = self.sessions[0]
        if self.control and not first.done:
            first.override(self._as_tokens_say(self.controls.held))
            self._person_steps += 1
            self.controls.stepped()
        advance(going_on)
        self._read()

    def _as_tokens_say(self, action: Any) -> Any:
        """The action rounded to what tokens can say, so that kept episodes replay exactly."""
        if not self.known:
            return action
        agent = self.model.agent
        layout = agent.layouts[self.task]
        batch = tree_map(lambda leaf: np.asarray(leaf)[None], action)
        ids = layout.encode("action", batch, agent.processor.toolbox, task=self.task)
        decoded = agent.processor.decode_actions(ids, layout)
        return tree_map(lambda leaf: leaf[0], decoded)

    def _read(self) -> None:
        """Keep what the session that is looked into saw and chose."""
        session = self.sessions[self.look]
        if self.reader is None or session.decision is None:
            return
        assert isinstance(self.policy, Watched)
        slot = session.slot
        self._moment = self.reader.moment(
            self.policy.seen[slot],
            session.decision,
            self.policy.believed[slot],
            session.trace.action,
        )

    def again(self) -> None:
        """Begin a new episode in every session."""
        for slot in range(len(self.sessions)):
            self._begin(slot)

    def act(self, action: int | list[float]) -> None:
        """Take the person's action for the next step.

        Raises:
            UsageError: nobody has taken over, or the action is not legal.
        """
        if not self.control:
            raise UsageError("Take over before you act.")
        self.controls.hold(action, self.sessions[0].trace.mask)

    def take_over(self, on: bool) -> None:
        """Give control of the first session to the person, or back to the agent.

        Raises:
            UsageError: there is no agent for the task, or no way for a person to act.
        """
        if on and not self.controls.possible:
            raise UsageError(f"A person cannot act in the action space of {self.task}.")
        if not on and not self.known:
            raise UsageError(f"{self.model.name} was not trained on {self.task}: you play alone.")
        self.control = on
        self.controls.let_go()

    def instruct(self, text: str) -> None:
        """Tell the agents what to do from the next step on."""
        for session in self.sessions:
            session.instruct(text)

    def ask(self, wanted: str) -> None:
        """Begin new episodes that are asked for a return; nothing asks for none.

        Args:
            wanted: `expert`, a number, or a percentage such as `80%`; "" for nothing.

        Raises:
            UsageError: it is written otherwise, or the checkpoint learned no returns of the task.
        """
        if not isinstance(self.policy, Watched):
            raise UsageError(f"{self.model.name} was not trained on {self.task}: you play alone.")
        beyond = self.policy.agent.checked_return(wanted)[1] if wanted.strip() else None
        self._wanted, self._beyond = wanted.strip() or None, beyond
        self.again()

    def set_temperature(self, temperature: float | None) -> None:
        """Sample at this temperature from the next step on; None as the checkpoint says."""
        if isinstance(self.policy, Watched):
            self.policy.agent.set_temperature(temperature)

    def look_into(self, slot: int) -> None:
        """Look into another session."""
        if slot < len(self.sessions):
            self.look = slot
            self._moment = None

    def save(self, root: Path) -> Path:
        """Keep the first session's episode so far as data below `root`; return its folder.

        One that went on since it was saved is kept as another, longer one.

        Raises:
            UsageError: nothing was played yet, or nothing since it was saved.
        """
        trace, env = self.sessions[0].trace, self._environments[0]
        if not trace.steps:
            raise UsageError("There is no step to save yet.")
        if self._saved == (trace.seed, trace.steps):
            raise UsageError(f"This episode is already saved, with all its {trace.steps} steps.")
        agent = self.model.agent
        play = functools.partial(envs.make, self.task, **self.options)
        layout = agent.layouts.get(self.task) or agent.processor.layout(
            env.observation_space, env.action_space, task=self.task, play=play
        )
        kept = episode_of(trace, person_steps=self._person_steps)
        folder = keep_episode(
            kept, root, env=env, processor=agent.processor, layout=layout, options=self.options
        )
        self._saved = trace.seed, trace.steps
        return folder

    # What the page shows

    @property
    def waiting(self) -> bool:
        """Whether the game goes on only when the person does something."""
        if not self.control:
            return False
        return self.sessions[0].done or (self.controls.turns and not self.controls.is_held)

    @property
    def ended(self) -> bool:
        """Whether the only episode has just ended."""
        return len(self.sessions) == 1 and self.sessions[0].done

    @property
    def steps_a_second(self) -> float:
        """The environment's own speed."""
        return float(self._environments[0].metadata.get("render_fps") or 30)

    def started(self) -> dict[str, Any]:
        """What stays the same while the task is played."""
        known = envs.get_task(self.task)
        description = known.description
        if self._against is not None:
            description = f"{description.partition('; against ')[0]}; against {self._against}"
        return {
            "type": "started",
            "task": self.task,
            "description": description,
            "agents": len(self.sessions),
            "known": self.known,
            "asks": self.known and self.task in self.model.agent.returns,
            "limit": known.max_steps,
            "legend": None if self.reader is None else self.reader.legend(),
            "controls": self.controls.to_dict(),
            "random": known.random_score and known.random_score.mean,
            "expert": known.expert_score and known.expert_score.mean,
        }

    def state(self) -> dict[str, Any]:
        """What changes from step to step."""
        told = self.sessions[self.look].trace.instruction
        mask = self.sessions[0].trace.mask if self.control and not self.sessions[0].done else None
        return {
            "type": "state",
            "slots": [
                {
                    "step": session.trace.steps,
                    "return": session.trace.return_,
                    "done": session.done,
                    "success": session.trace.success,
                    "seed": session.trace.seed,
                }
                for session in self.sessions
            ],
            "look": self.look,
            "control": self.control,
            "waiting": self.waiting,
            "legal": None if mask is None else np.asarray(mask).tolist(),
            "instruction": told,
            "wanted": self._wanted,
            "beyond": self._beyond,
            "header": [] if self.reader is None else self.reader.header(told),
            "moment": self._moment,
        }

    def pictures(self) -> list[bytes]:
        """A JPEG of each session."""
        with needing("Pictures"):
            import cv2

        longest, found = _SIDES[len(self.sessions)], []
        for env, picture in zip(self._environments, self._pictures, strict=True):
            frame = shrunk(picture(env.render()), longest)
            quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
            done, encoded = cv2.imencode(".jpg", np.ascontiguousarray(frame[..., ::-1]), quality)
            if not done:
                raise GeneralistError(f"{self.task}: a frame cannot be encoded.")
            found.append(encoded.tobytes())
        return found

    def close(self) -> None:
        """End the sessions and close the environments."""
        for session in self.sessions:
            session.end()
        for env in self._environments:
            env.close()
        self.sessions, self._environments = [], []
