"""Rollouts: scores of whoever acts in a task over episodes with fixed seeds; corrections."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from tqdm import tqdm

from generalist import envs
from generalist.acting import prompts
from generalist.acting.environment import difference_note, options_for
from generalist.acting.stage import Stage
from generalist.envs.options import changed_options
from generalist.episode import Episode
from generalist.errors import UsageError
from generalist.experts import ExpertPolicy, RandomPolicy, policy_named
from generalist.policy import Policy
from generalist.seeds import EVALUATION_SEED
from generalist.session import Trace, play

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

MAX_ENVS = 20  # side by side by default: more gain little and need memory


@dataclass
class RolloutResult:
    """The outcome of a rollout; its fields are the keys of the JSON file.

    policy: who acted: `agent`, `random`, or an expert's name.
    checkpoint: the agent's, None for others.
    returns, scores, lengths: raw return, the task's metric (the return itself, or success as 1.0
        or 0.0) and steps of each episode, in the order of `seeds`.
    mean, stderr: of the scores, and the standard error of the mean (None for a single episode).
    random, expert: means of the same metric; None where they were not measured, and where options
        make another environment than they were measured in.
    normalized: (mean - random) / (expert - random); None where these are not fit for it, as
        `Task.not_normalized` says.
    prompted: True where demonstrations were given; an episode whose instruction none of them has
        begins without.
    instruction: told the agent in place of the episodes' own ones; None for those.
    options: what the environment was made with.
    note: how the environment differs from what the checkpoint was trained in; None where it does
        not, or where that is not known.
    steps_per_second: environment steps of all episodes by wall-clock time.
    video, videos: the film of the first episode, and all of them.
    no_video: why a film that was asked for is missing.
    interrupted: True where the user stopped before all episodes had ended.
    """

    task: str
    policy: str
    checkpoint: str | None
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
    temperature: float | None = None
    instruction: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    video: str | None = None
    videos: list[str] = field(default_factory=list)
    no_video: str | None = None
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)


def rollout(
    who: Agent | str,
    task: str | None = None,
    *,
    episodes: int = 20,
    seed: int = EVALUATION_SEED,
    num_envs: int | None = None,
    prompt_episodes: int = 0,
    instruction: str | None = None,
    video_dir: str | Path | None = None,
    video_episodes: int = 1,
    render: str | None = None,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
    **env_options: Any,
) -> RolloutResult:
    """Act episodes with the seeds `seed`, `seed + 1`, ... and score them.

    The environment is made as the agent was trained in it, but for `env_options`.

    Args:
        who: the agent; or `random`, `expert` for the task's own expert, or the name of another.
        task: default the agent's own. A task that the checkpoint was not trained on is acted in
            with the layout of its spaces.
        episodes: how many.
        seed: of the first episode.
        num_envs: episodes side by side; changes nothing but the speed.
        prompt_episodes: demonstrations by the task's expert, dealt out to the episodes in turn; of
            each instruction so many, where episodes are told what to do.
        instruction: told the agent in place of what the environment says.
        video_dir: folder for mp4 files of the first `video_episodes` episodes.
        render: `human` shows every episode in a window, one after the other.
        progress: show a bar on stderr.
        say: told in one line, before the first episode, what is to be known of the environment.
        env_options: of the environment, as `generalist.make` takes them.

    Raises:
        UsageError: there is no such task, expert, option or display.
        DemonstrationTooLong: no timestep of a demonstration fits into the prompt.
        KeyboardInterrupt: Ctrl-C before any episode has ended. Later it ends the rollout early:
            what has ended is scored, and `interrupted` is set.
    """
    agent = None if isinstance(who, str) else who
    _check_counts(episodes=episodes, num_envs=num_envs, video_episodes=video_episodes)
    _check_agents_own(agent, prompt_episodes=prompt_episodes, instruction=instruction)
    name = task or (None if agent is None else agent.task)
    if name is None:
        raise UsageError("Say which task to act in.")
    options = env_options if agent is None else options_for(agent, name, env_options)
    # Only an agent gains from acting in many at a time.
    count = 1 if render or agent is None else min(episodes, num_envs or MAX_ENVS)
    seeds = range(seed, seed + episodes)
    filmed = seeds[:video_episodes] if video_dir is not None else ()
    stage = Stage(name, options, count, filmed=filmed, folder=video_dir, render=render)
    note = None
    ended: list[Trace] = []
    interrupted = False
    bar = tqdm(total=episodes, desc=name, unit="episode", disable=not progress, leave=False)
    try:
        if agent is None:
            policy: Policy = _named(str(who), name, stage)
        else:
            note = difference_note(agent, name, options, stage.environments[0])
            if note and say is not None:
                say(note)
            policy = agent = agent_for(agent, name, stage.environments[0])
            if prompt_episodes:
                policy = agent = agent.for_task(name)  # the caller's own keeps its prompts
                _demonstrate(agent, prompt_episodes, env_options, seeds, instruction)
        began = time.perf_counter()
        for trace in play(
            policy,
            stage.environments,
            seeds,
            task=name,
            instruction=instruction,
            watch=stage.watch,
        ):
            ended.append(trace)
            bar.update()
            bar.set_postfix_str(f"mean return {np.mean([t.return_ for t in ended]):.4g}")
    except KeyboardInterrupt:
        if not ended:
            raise
        interrupted = True
    finally:
        bar.close()
        stage.close()
    films, no_film = stage.films()
    return RolloutResult(
        **_scores(name, options, ended, time.perf_counter() - began),
        policy="agent" if agent is not None else getattr(policy, "name", str(who)),
        checkpoint=None if agent is None else agent.name,
        prompted=agent is not None and agent.prompted,
        temperature=None if agent is None else agent.sampling.temperature,
        instruction=instruction,
        options=options,
        note=note,
        video=films[0] if films else None,
        videos=films,
        no_video=no_film,
        interrupted=interrupted,
    )


def _named(who: str, task: str, stage: Stage) -> ExpertPolicy | RandomPolicy:
    """`random`, `expert` for the task's own, or another by its name."""
    return policy_named(task, None if who == "expert" else who, stage.environments)


def _demonstrate(
    agent: Agent,
    episodes: int,
    given: Mapping[str, Any],
    seeds: Sequence[int],
    instruction: str | None,
) -> None:
    """Give the agent demonstrations in the environment that is acted in, as prompts.

    Where episodes are told what to do, there are `episodes` of each instruction.
    """
    task = agent.task
    # Said before the expert plays, which may take minutes.
    prompts.prompt_steps(task, agent.layout, agent.window_tokens)
    whole = {name: value for name, value in given.items() if name != "max_steps"}
    options = options_for(agent, task, whole)
    told = prompts.instructions_of(task, seeds, options)
    if instruction is not None:
        told = {instruction} if told else set()
    agent.set_prompts(prompts.demonstrations(task, episodes, options=options, instructions=told))


def dagger_episodes(
    agent: Agent,
    task: str | None = None,
    *,
    episodes: int = 20,
    seed: int = 0,
    num_envs: int | None = None,
    expert: str | None = None,
    max_steps: int | None = None,
    progress: bool = True,
    **env_options: Any,
) -> list[Episode]:
    """Episodes in which the agent acts and the expert says at every step what it would have done.

    Ross, Gordon and Bagnell 2011, DAgger. The environment is made as the agent was trained in it,
    but for `env_options`.

    Args:
        agent: who acts.
        task: default the agent's own.
        episodes: how many.
        seed: of the first episode.
        num_envs: episodes side by side; changes nothing but the speed.
        expert: who labels, by name; default the task's own.
        max_steps: cut (truncate) episodes there.
        progress: show a bar on stderr.
        env_options: of the environment, as `generalist.make` takes them.

    Returns:
        The episodes in the order of the seeds `seed`, `seed + 1`, ...; actions are the agent's,
        labels the expert's, and info says "source": "dagger". On Ctrl-C those that have ended.

    Raises:
        UsageError: there is no such task, expert or option.
        KeyboardInterrupt: Ctrl-C before any episode has ended.
    """
    _check_counts(episodes=episodes, num_envs=num_envs)
    name = task or agent.task
    stage = Stage(name, options_for(agent, name, env_options), min(episodes, num_envs or MAX_ENVS))
    ended: list[Episode] = []
    bar = tqdm(total=episodes, desc=f"dagger {name}", unit="episode", disable=not progress)
    try:
        teacher = policy_named(name, expert, stage.environments)
        info = {"source": "dagger", "expert": teacher.name, "checkpoint": agent.name}
        for trace in play(
            agent_for(agent, name, stage.environments[0]),
            stage.environments,
            range(seed, seed + episodes),
            task=name,
            keep_steps=True,
            max_steps=max_steps,
            teacher=teacher,
        ):
            ended.append(trace.to_episode(info))
            bar.update()
    except KeyboardInterrupt:
        if not ended:
            raise
    finally:
        bar.close()
        stage.close()
    return sorted(ended, key=lambda episode: episode.info["seed"])


def agent_for(agent: Agent, task: str, env: gymnasium.Env) -> Agent:
    """The agent for `task`: a new one over the same weights unless it already acts in it.

    Where the checkpoint does not know the task, its layout is made from the spaces of `env`.
    """
    if agent.task == task:
        return agent
    layout = None
    if task not in agent.layouts:
        layout = agent.processor.layout(env.observation_space, env.action_space, task=task)
    return agent.for_task(task, layout)


def _check_counts(**counts: int | None) -> None:
    for what, number in counts.items():
        if number is not None and number < 1:
            raise UsageError(f"{what} must be at least 1, got {number}.")


def _check_agents_own(agent: Agent | None, **given: Any) -> None:
    """Refuse what only an agent has a use for."""
    for what, value in given.items():
        if agent is None and value:
            raise UsageError(f"{what} is for an agent; others neither read nor are shown anything.")


def _scores(
    task: str, options: Mapping[str, Any], traces: Sequence[Trace], seconds: float
) -> dict[str, Any]:
    """The part of a result that the episodes say, in the order of their seeds."""
    record = envs.get_task(task)
    if changed_options(task, options):
        record = dataclasses.replace(record, random_score=None, expert_score=None)
    traces = sorted(traces, key=lambda trace: trace.seed)
    scores = np.array([record.score_of(trace.return_, trace.success) for trace in traces])
    several = len(scores) > 1
    return {
        "task": task,
        "metric": record.metric,
        "episodes": len(traces),
        "seeds": [trace.seed for trace in traces],
        "returns": [trace.return_ for trace in traces],
        "scores": scores.tolist(),
        "lengths": [trace.steps for trace in traces],
        "mean": float(scores.mean()),
        "stderr": float(scores.std(ddof=1) / np.sqrt(len(scores))) if several else None,
        "random": record.random_score.mean if record.random_score else None,
        "expert": record.expert_score.mean if record.expert_score else None,
        "normalized": record.normalized(float(scores.mean())),
        "steps_per_second": sum(trace.steps for trace in traces) / seconds,
    }
