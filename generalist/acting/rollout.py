"""Rollouts: an agent's score in a task over episodes with fixed seeds; corrections for DAgger."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from tqdm import tqdm

from generalist import envs, experts
from generalist.acting import prompts
from generalist.acting.episodes import act_episodes
from generalist.acting.video import VideoWriter
from generalist.episode import Episode
from generalist.errors import UsageError
from generalist.session import Trace

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

EVALUATION_SEED = 1_000_000
"""First environment seed of evaluation; data are collected with smaller ones."""

MAX_ENVS = 20  # side by side by default: more gain little and need memory


@dataclass
class RolloutResult:
    """The outcome of a rollout; its fields are the keys of the JSON file.

    returns, scores, lengths: raw return, the task's metric (the return itself, or success as 1.0
        or 0.0) and steps of each episode, in the order of `seeds`.
    mean, stderr: of the scores, and the standard error of the mean (None for a single episode).
    random, expert: means of the same metric; None where they were not measured, and where options
        change the task they were measured in.
    normalized: (mean - random) / (expert - random); None without these, and where the expert is
        not better than random.
    prompted: True where episodes began with a demonstration.
    steps_per_second: environment steps of all episodes by wall-clock time.
    interrupted: True where the user stopped before all episodes had ended.
    """

    task: str
    checkpoint: str
    episodes: int
    seeds: list[int]
    returns: list[float]
    scores: list[float]
    mean: float
    stderr: float | None
    lengths: list[int]
    random: float | None
    expert: float | None
    normalized: float | None
    prompted: bool
    steps_per_second: float
    metric: str = "return"
    temperature: float = 0.0
    video: str | None = None
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)


def rollout(
    agent: Agent,
    task: str | None = None,
    episodes: int = 20,
    seed: int = EVALUATION_SEED,
    num_envs: int | None = None,
    prompt_episodes: int = 0,
    video_dir: str | Path | None = None,
    progress: bool = True,
    **env_options: Any,
) -> RolloutResult:
    """Act episodes with the seeds `seed`, `seed + 1`, ... and score them.

    task: default the agent's own. A task the checkpoint was not trained on is acted in with the
        layout of its spaces. num_envs: episodes side by side; changes nothing but the speed.
    prompt_episodes: demonstrations by the task's expert, dealt out to the episodes in turn;
        raises DemonstrationTooLong where no timestep of them fits into the prompt.
    video_dir: folder for an mp4 of the first episode. env_options: passed to the environment.
    Ctrl-C ends it early: what has ended by then is scored and `interrupted` is set; only where
    nothing has ended does KeyboardInterrupt go on.
    """
    _check_counts(episodes, num_envs)
    name = task or agent.task
    record = envs.get_task(name)
    environments = _make(name, min(episodes, num_envs or MAX_ENVS), video_dir, env_options)
    seeds = list(range(seed, seed + episodes))
    video = None
    ended: list[Trace] = []
    interrupted = False
    bar = tqdm(total=episodes, desc=name, unit="episode", disable=not progress, leave=False)
    try:
        agent = agent_for(agent, name, environments[0])
        if prompt_episodes:
            agent = agent.for_task(name)  # the caller's own agent keeps its prompts
            # Said before the expert plays, which may take minutes.
            prompts.prompt_steps(name, agent.layout, agent.window_tokens)
            agent.set_prompts(prompts.demonstrations(name, prompt_episodes))
        if video_dir is not None:
            path = Path(video_dir) / f"{name.replace('/', '-')}-{seed}.mp4"
            video = VideoWriter(path, environments[0], record.max_steps)
        began = time.perf_counter()
        for trace in act_episodes(agent, environments, seeds, watch=video):
            ended.append(trace)
            bar.update()
            bar.set_postfix_str(f"mean return {np.mean([t.return_ for t in ended]):.4g}")
    except KeyboardInterrupt:
        if not ended:
            raise
        interrupted = True
    finally:
        bar.close()
        if video is not None:
            video.close()
        for env in environments:
            env.close()
    if env_options:
        record = dataclasses.replace(record, random_score=None, expert_score=None)
    result = _score(agent, record, ended, time.perf_counter() - began)
    result.interrupted = interrupted
    result.video = None if video is None else str(video.path)
    return result


def dagger_episodes(
    agent: Agent,
    task: str | None = None,
    episodes: int = 20,
    seed: int = 0,
    num_envs: int | None = None,
    expert: str | None = None,
    max_steps: int | None = None,
    progress: bool = True,
    **env_options: Any,
) -> list[Episode]:
    """Episodes in which the agent acts and the expert says at every step what it would have done.

    actions are the agent's, labels the expert's (Ross, Gordon and Bagnell 2011, DAgger); info says
    "source": "dagger". In the order of the seeds `seed`, `seed + 1`, ...; cut after max_steps. On
    Ctrl-C the episodes that have ended are returned, or where there is none KeyboardInterrupt goes
    on.
    """
    _check_counts(episodes, num_envs)
    name = task or agent.task
    count = min(episodes, num_envs or MAX_ENVS)
    teachers = [experts.get_expert(name, expert) for _ in range(count)]
    environments = _make(name, count, None, env_options)
    seeds = list(range(seed, seed + episodes))
    teacher = getattr(teachers[0], "name", type(teachers[0]).__name__)
    info = {"source": "dagger", "expert": teacher, "checkpoint": agent.name}
    ended: list[Episode] = []
    bar = tqdm(total=episodes, desc=f"dagger {name}", unit="episode", disable=not progress)
    try:
        agent = agent_for(agent, name, environments[0])
        for trace in act_episodes(
            agent, environments, seeds, teachers, keep_steps=True, max_steps=max_steps
        ):
            ended.append(trace.to_episode(info))
            bar.update()
    except KeyboardInterrupt:
        if not ended:
            raise
    finally:
        bar.close()
        for env in environments:
            env.close()
    return sorted(ended, key=lambda episode: episode.info["seed"])


def agent_for(agent: Agent, task: str, env: gymnasium.Env) -> Agent:
    """The agent for `task`: a new one over the same weights unless it already acts in it.

    Where the checkpoint does not know the task, its layout is made from the spaces of `env`.
    """
    if agent.task == task:
        return agent
    layout = None
    if task not in agent.layouts:
        layout = agent.processor.layout(env.observation_space, env.action_space)
    return agent.for_task(task, layout)


def _check_counts(episodes: int, num_envs: int | None) -> None:
    for what, number in (("episodes", episodes), ("num_envs", num_envs)):
        if number is not None and number < 1:
            raise UsageError(f"{what} must be at least 1, got {number}.")


def _make(
    task: str, count: int, video_dir: str | Path | None, options: dict[str, Any]
) -> list[gymnasium.Env]:
    """`count` environments; with a video the first, where the first seed is acted, renders."""
    modes = ["rgb_array" if video_dir is not None else None, *[None] * (count - 1)]
    return [envs.make(task, render_mode=mode, **options) for mode in modes]


def _score(
    agent: Agent, record: envs.Task, traces: Sequence[Trace], seconds: float
) -> RolloutResult:
    traces = sorted(traces, key=lambda trace: trace.seed)
    scores = np.array([record.score_of(trace.return_, trace.success) for trace in traces])
    lengths = [len(trace.rewards) for trace in traces]
    mean = float(scores.mean())
    random = record.random_score.mean if record.random_score else None
    expert = record.expert_score.mean if record.expert_score else None
    normalized = None
    if random is not None and expert is not None and expert > random:
        normalized = (mean - random) / (expert - random)
    several = len(scores) > 1
    return RolloutResult(
        task=record.name,
        checkpoint=agent.name,
        episodes=len(traces),
        seeds=[trace.seed for trace in traces],
        returns=[trace.return_ for trace in traces],
        scores=scores.tolist(),
        mean=mean,
        stderr=float(scores.std(ddof=1) / np.sqrt(len(scores))) if several else None,
        lengths=lengths,
        random=random,
        expert=expert,
        normalized=normalized,
        prompted=agent.prompted,
        steps_per_second=sum(lengths) / seconds,
        metric=record.metric,
        temperature=agent.sampling.temperature,
    )
