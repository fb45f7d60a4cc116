"""Sessions: one environment, one policy, one seed; and the loop that plays many in step.

At every timestep the policy decides for all running sessions in one call. Then the loop steps each
environment in turn, in this process. Environments do not reset themselves (no autoreset): one whose
episode has ended takes the next seed, and the batch shrinks when no seed is left. An episode
depends on its seed alone, so it is the same however many run in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium

from generalist.episode import Tree, tree_map, tree_stack
from generalist.policy import Decision, Policy, SlotError
from generalist.session.trace import Trace

Disturb = Callable[[Any, Any], Any]
"""Maps a policy's action and the state's action mask (or None) to the action to execute."""
Watch = Callable[[Trace], None]
"""Is called with an episode after its reset and after each of its steps."""

_NOTHING = object()  # None may be an action


class Session:
    """An episode that a policy plays in an environment, step by step.

    Args:
        env: the environment; the session resets it.
        policy: who acts. It begins the episode at the first step.
        task: name of the environment's task.
        seed: seed of the environment and of the policy.
        slot: the policy's number for this session, among those that it plays at a time.
        keep_steps: keep observations and actions, for `Trace.to_episode`.
        max_steps: cut (truncate) the episode there, below the task's own limit.
        instruction: instruction for the policy, in place of the environment's own.
        wanted_return: what the policy is asked to return in the episode, as it takes it.
        teacher: labels every state before the policy's action is executed.
        disturb: replaces the policy's actions before their execution. The policy's own actions
            become the labels.

    Attributes:
        trace: the episode so far.
        paused: whether `advance` leaves the session as it is.

    Raises:
        EpisodeError: the environment or an expert does something wrong.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        policy: Policy,
        *,
        task: str,
        seed: int,
        slot: int = 0,
        keep_steps: bool = False,
        max_steps: int | None = None,
        instruction: str | None = None,
        wanted_return: Any = None,
        teacher: Policy | None = None,
        disturb: Disturb | None = None,
    ) -> None:
        self.trace = Trace(env, task, seed, keep_steps=keep_steps, max_steps=max_steps)
        if instruction is not None:
            self.trace.instruction = instruction
        self.policy = policy
        self.wanted_return = wanted_return
        self.teacher = teacher
        self.slot = slot
        self.paused = False
        self._disturb = disturb
        self._begun = False
        self._decided: tuple[Decision, int] | None = None  # and the row of this session
        self._override: Any = _NOTHING
        self._told: dict[str, Any] = {}  # news for the policy's next decision
        # What the policies learn of the present state besides the observation.
        self._info: Mapping[str, Any] = {}

    @property
    def done(self) -> bool:
        """True once the episode has ended or was cut."""
        return self.trace.done

    @property
    def decision(self) -> Decision | None:
        """The policy's latest decision, with a leading axis of 1; None before the first."""
        return None if self._decided is None else self._decided[0].row(self._decided[1])

    def step(self) -> None:
        """Take one step, whether the session is paused or not."""
        _advance([self])

    def override(self, action: Any) -> None:
        """Execute this action at the next step; the policy learns of it at the step after that."""
        self._override = action

    def instruct(self, instruction: str) -> None:
        """Tell the policy from its next decision on what to do."""
        self.trace.instruction = instruction
        if self._begun:
            self._told["new_instruction"] = instruction

    def end(self) -> None:
        """Let the policy forget the episode; another session may take the slot."""
        if self._begun:
            self.policy.end([self.slot])
            if self.teacher is not None:
                self.teacher.end([self.slot])
        self._begun = False

    def _look(self) -> None:
        """Collect what the policies learn of the present state."""
        mask, rewards = self.trace.mask, self.trace.rewards
        self._info = {
            **self.trace.info,
            **self._told,
            **({} if mask is None else {"action_mask": mask}),
            **({"reward": rewards[-1]} if rewards else {}),
        }

    def _execute(self, decision: Decision, row: int) -> None:
        """Execute the decided action, or its replacement."""
        self._decided, self._told = (decision, row), {}
        executed = _row(decision.actions, row)
        if self._disturb is not None:
            self.trace.labels.append(executed)
            executed = self._disturb(executed, self._info.get("action_mask"))
        if self._override is not _NOTHING:
            executed, self._override = self._override, _NOTHING
            self._told["executed_action"] = executed
        self.trace.step(executed)


def advance(sessions: Iterable[Session]) -> None:
    """Take one step in every session that is neither paused nor done, in the given order.

    Raises:
        EpisodeError: an environment or an expert does something wrong.
    """
    _advance([session for session in sessions if not (session.paused or session.done)])


def _advance(sessions: Sequence[Session]) -> None:
    fresh = [session for session in sessions if not session._begun]
    for policy, group in _by_policy(fresh, "policy"):
        _begin(policy, group)
    for teacher, group in _by_policy(fresh, "teacher"):
        _begin(teacher, group)
    for session in fresh:
        session._begun = True
    for session in sessions:
        session._look()
    decided: dict[int, tuple[Decision, int]] = {}
    for policy, group in _by_policy(sessions, "policy"):
        decision = _decide(policy, group)
        decided |= {id(session): (decision, row) for row, session in enumerate(group)}
    for teacher, group in _by_policy(sessions, "teacher"):
        labels = _decide(teacher, group).actions
        for row, session in enumerate(group):
            session.trace.labels.append(_row(labels, row))
    for session in sessions:
        session._execute(*decided[id(session)])


def _by_policy(sessions: Sequence[Session], role: str) -> Iterator[tuple[Policy, list[Session]]]:
    """Group the sessions by their policy in this role; leave out sessions without one."""
    groups: dict[int, tuple[Policy, list[Session]]] = {}
    for session in sessions:
        policy = getattr(session, role)
        if policy is not None:
            groups.setdefault(id(policy), (policy, []))[1].append(session)
    yield from groups.values()


def _begin(policy: Policy, sessions: Sequence[Session]) -> None:
    traces = [session.trace for session in sessions]
    infos = [
        {**trace.info, "instruction": trace.instruction, "wanted_return": session.wanted_return}
        for trace, session in zip(traces, sessions, strict=True)
    ]
    slots = [session.slot for session in sessions]
    try:
        policy.begin(slots, [trace.seed for trace in traces], infos)
    except SlotError as error:
        traces[slots.index(error.slot)].blame(error.who, error.reason)


def _decide(policy: Policy, sessions: Sequence[Session]) -> Decision:
    """The policy's decision for all sessions, in one call."""
    observations = tree_stack([session.trace.observation for session in sessions])
    slots = [session.slot for session in sessions]
    try:
        return policy.decide(observations, [session._info for session in sessions], slots)
    except SlotError as error:
        sessions[slots.index(error.slot)].trace.blame(error.who, error.reason)


def _row(batch: Tree, number: int) -> Any:
    return tree_map(lambda leaf: leaf[number], batch)


def play(
    policy: Policy,
    environments: Sequence[gymnasium.Env],
    seeds: Iterable[int],
    *,
    task: str,
    keep_steps: bool = False,
    max_steps: int | None = None,
    instruction: str | None = None,
    wanted_return: Any = None,
    teacher: Policy | None = None,
    disturb: Callable[[gymnasium.Env, int], Disturb] | None = None,
    watch: Watch | None = None,
) -> Iterator[Trace]:
    """Play an episode for each seed; yield each episode when it ends.

    Args:
        policy: who acts. Environment i is its slot i.
        environments: environments of the task, one for each episode that runs at a time.
        seeds: the seeds of the episodes.
        task: name of the environments' task.
        keep_steps: keep observations and actions, for `Trace.to_episode`.
        max_steps: cut (truncate) episodes there, below the task's own limit.
        instruction: instruction for the policy, in place of the environments' own.
        wanted_return: what the policy is asked to return in each episode, as it takes it.
        teacher: labels every state before the policy's action is executed.
        disturb: makes the `Disturb` of an episode, from its environment and seed. The policy's own
            actions become the labels.
        watch: is called after the reset and after every step of every episode.

    Yields:
        The episodes in the order of their ends, which need not be that of the seeds.

    Raises:
        EpisodeError: an environment or an expert does something wrong.
    """
    waiting = iter(seeds)
    sessions: dict[int, Session] = {}

    def begin(slot: int) -> None:
        seed = next(waiting, None)
        if seed is None:
            sessions.pop(slot, None)
            return
        env = environments[slot]
        sessions[slot] = Session(
            env,
            policy,
            task=task,
            seed=seed,
            slot=slot,
            keep_steps=keep_steps,
            max_steps=max_steps,
            instruction=instruction,
            wanted_return=wanted_return,
            teacher=teacher,
            disturb=None if disturb is None else disturb(env, seed),
        )
        if watch is not None:
            watch(sessions[slot].trace)

    try:
        for slot in range(len(environments)):
            begin(slot)
        while sessions:
            try:
                advance(sessions.values())
            except KeyboardInterrupt:  # keep the episodes that have just ended
                yield from (each.trace for each in sessions.values() if each.done)
                raise
            for slot, session in list(sessions.items()):
                if watch is not None:
                    watch(session.trace)
                if session.done:
                    session.end()
                    yield session.trace
                    begin(slot)
    finally:
        for session in sessions.values():  # cut short
            session.end()
