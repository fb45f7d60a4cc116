"""Episodes of a checkpoint, recorded for a page: films, and what the model saw and chose."""

from __future__ import annotations

import gymnasium
import numpy as np

from generalist import envs
from generalist.acting.agent import Agent
from generalist.acting.environment import options_for
from generalist.errors import GeneralistError, in_words
from generalist.session import Session
from generalist.viewer.film import Frames, mp4
from generalist.viewer.reader import Reader
from generalist.viewer.recording import Recording
from generalist.viewer.watched import Beliefs, Watched

MOST_FRAMES_A_SECOND = 25  # a faster task has every so many of its steps in the film
_SEEN_SIDE = 168  # pixels of the decoded frames, twice their 84


def record(agent: Agent, beliefs: Beliefs, task: str, *, seed: int, max_steps: int) -> Recording:
    """Play one episode, in the environment that the agent was trained in, and record it.

    Args:
        agent: of any task of the checkpoint, made with `on_logits=beliefs`.
        beliefs: hears the agent.
        task: what to play; the checkpoint knows it.
        seed: of the environment and the agent.
        max_steps: the recording ends there.
    """
    env, no_film = _environment(agent, task)
    try:
        return _record(agent.for_task(task), beliefs, env, no_film, seed=seed, max_steps=max_steps)
    finally:
        env.close()


def _environment(agent: Agent, task: str) -> tuple[gymnasium.Env, str | None]:
    """The environment of a task, and why it shows no pictures, where it shows none."""
    options = options_for(agent, task, {})
    try:
        return envs.make(task, render_mode="rgb_array", **options), None
    except GeneralistError as error:
        return envs.make(task, **options), str(error)  # raises if rendering is not the reason


def _record(
    agent: Agent,
    beliefs: Beliefs,
    env: gymnasium.Env,
    no_film: str | None,
    *,
    seed: int,
    max_steps: int,
) -> Recording:
    task, known = agent.task, envs.get_task(agent.task)
    watched, reader = Watched(agent, beliefs), Reader(agent, env)
    session = Session(env, watched, task=task, seed=seed)
    trace = session.trace
    rendered = float(env.metadata.get("render_fps") or MOST_FRAMES_A_SECOND)
    stride = max(1, round(rendered / MOST_FRAMES_A_SECOND))
    shown, seen, moments = Frames(), [], []
    while not trace.done and trace.steps < max_steps:
        if trace.steps % stride == 0 and no_film is None:
            no_film = _add_frame(shown, env)
        session.step()
        decision = session.decision
        assert decision is not None
        ids = watched.seen[session.slot]
        if (trace.steps - 1) % stride == 0 and (picture := reader.picture(ids)) is not None:
            seen.append(_enlarged(picture))
        moment = reader.moment(ids, decision, watched.believed[session.slot], trace.action)
        moments.append({**moment, "reward": trace.rewards[-1]})
    session.end()
    fps = max(1.0, rendered / stride)
    ended = "terminated" if trace.terminated else "truncated" if trace.truncated else "cut"
    return Recording(
        task=task,
        description=known.description,
        metric=known.metric,
        seed=seed,
        instruction=trace.instruction,
        limit=known.max_steps,
        ended=ended,
        success=trace.success,
        fps=fps,
        stride=stride,
        film=mp4(shown.frames, fps) if shown.frames and no_film is None else None,
        no_film=no_film,
        seen=mp4(seen, fps) if seen else None,
        header=reader.header(trace.instruction),
        legend=reader.legend(),
        moments=moments,
        temperature=agent.sampling.temperature,
        bins_temperature=_bins_temperature(agent),
    )


def _bins_temperature(agent: Agent) -> float | None:
    """The temperature of actions that are bins of a real number; None where there are none."""
    positions, sampling = agent.layout.positions, agent.sampling
    if not (positions.bins[positions.chosen] >= 0).any():
        return None
    return round(sampling.temperature * sampling.ordinal_factor, 3)


def _add_frame(frames: Frames, env: gymnasium.Env) -> str | None:
    """Keep a frame; say why there is none, where the renderer fails."""
    try:
        frames.add(env.render())
    except Exception as error:  # each renderer has errors of its own
        return str(error) if isinstance(error, GeneralistError) else f"{in_words(error)}."
    return None


def _enlarged(picture: np.ndarray) -> np.ndarray:
    """Pixels repeated, so that codes stay sharp in the film."""
    times = max(1, _SEEN_SIDE // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)
