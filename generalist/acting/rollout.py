"""Rollouts: score a policy in episodes with fixed seeds; DAgger episodes with expert labels."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from generalist import envs
from generalist.acting import prompts
from generalist.acting.environment import difference_note, options_for
from generalist.acting.plans import parse_plan, planned
from generalist.acting.retrieval import (
    RETRIEVAL,
    Retrieval,
    check_alone,
    demonstrated_elsewhere,
    play_nearest,
    retrieving,
)
from generalist.acting.stage import Stage
from generalist.acting.zero_shot import agent_for
from generalist.envs.instructions import SHOWN, SHOWN_SHUFFLED
from generalist.envs.options import changed_options
from generalist.episode import Episode
from generalist.errors import UsageError
from generalist.experts import ExpertPolicy, RandomPolicy, policy_named
from generalist.policy import Policy
from generalist.seeds import EVALUATION_SEED
from generalist.session import Trace, play

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

MAX_ENVS = 20  # in parallel by default; more add little speed and take memory


@dataclass
class RolloutResult:
    """The outcome of a rollout; its fields are the keys of the JSON file.

    Attributes:
        task: name of the task.
        policy: who acted: `agent`, `random`, or the name of an expert.
        checkpoint: the agent's checkpoint; None for other policies.
        episodes: number of episodes that ended.
        seeds: the seeds of these episodes, in ascending order.
        returns: raw return of each episode, in the order of `seeds`.
        scores: the task's metric of each episode: its return, or its success as 1.0 or 0.0.
        named_first: of each episode, whether the first thing that was reached is the one that the
            instruction names; None where the environment does not say so.
        statements: of each episode in which something is said of a picture, what was `asked`, the
            `truth`, what was `said`, and the `form` of the statement; empty elsewhere.
        mean: mean of `scores`.
        stderr: standard error of the mean; None for a single episode.
        lengths: steps of each episode.
        random: mean of the same metric for random play; None where it was not measured, or where
            `options` make another environment.
        expert: the same for the task's expert.
        normalized: (mean - random) / (expert - random); None where `Task.not_normalized` gives a
            reason against it.
        prompted: whether the agent was given demonstrations. An episode begins without one if none
            has its instruction.
        steps_per_second: environment steps of all episodes per second of wall-clock time.
        metric: `return` or `success`.
        temperature: sampling temperature of the agent; None for other policies.
        instruction: instruction in place of the episodes' own; None for their own.
        plan: how the agent planned; None where it acted at once.
        wanted_return: the return that it was asked for; None for none.
        retrieval: what was retrieved at each step, `data`, `steps` and `weight`; None for nothing.
        options: the options of the environment.
        note: how the environment differs from the one in training, or from that of retrieved
            demonstrations; None where it does not, or where nobody says.
        video: file of the first episode's video, if any.
        videos: the files of all videos.
        no_video: why a requested video is missing or cut; None where none is.
        interrupted: whether the user stopped the rollout before all episodes had ended.
    """

    task: str
    policy: str
    checkpoint: str | None
    episodes: int
    seeds: list[int]
    returns: list[float]
    scores: list[float]
    named_first: list[bool | None]
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
    plan: str | None = None
    wanted_return: str | None = None
    retrieval: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    statements: list[dict[str, str | None]] = field(default_factory=list)
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
    plan: str | None = None,
    wanted_return: str | float | None = None,
    retrieval: Retrieval | None = None,
    video_dir: str | Path | None = None,
    video_episodes: int = 1,
    render: str | None = None,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
    **env_options: Any,
) -> RolloutResult:
    """Play episodes with the seeds `seed`, `seed + 1`, ... and score them.

    The environment has the options that the agent was trained with, except for `env_options`.

    Args:
        who: the agent; or `random`, `retrieval`, `expert` for the task's own expert, or the name of
            another.
        task: name of the task; None for the agent's own. In a task that the checkpoint does not
            know, the agent acts with the layout of the environment's spaces.
        episodes: number of episodes.
        seed: seed of the first episode.
        num_envs: episodes in parallel; changes only the speed.
        prompt_episodes: number of demonstrations by the task's expert, or of each instruction
            where episodes have instructions. The episodes use them in turn.
        instruction: instruction for the agent, in place of the environment's own.
        plan: how the agent plans, `tree:simulations=16` in board games and in simulators that can
            be restored, `beam:width=32,horizon=10` with a world model; None: it acts at once.
        wanted_return: what the episodes are asked to return: `expert`, a number, or a percentage of
            the way from the worst to the best of the data; None for what the agent is set to.
        retrieval: demonstrations, of which the timesteps nearest to each observation stand in the
            prompt, or are played by the policy `retrieval`.
        video_dir: folder for mp4 files of the first episodes.
        video_episodes: number of episodes to record.
        render: `human` shows every episode in a window, one after the other.
        progress: show a bar on stderr.
        say: is called before the first episode with a line on how the environment differs, as in
            `RolloutResult.note`, on a return beyond the data, and on a background that was fitted.
        env_options: options of the environment, as `generalist.make` takes them.

    Returns:
        The scores. After Ctrl-C, those of the episodes that have ended, with `interrupted` set.

    Raises:
        UsageError: there is no such task, expert, option, plan or display.
        DemonstrationTooLong: no timestep of a demonstration fits into the prompt.
        KeyboardInterrupt: Ctrl-C before any episode has ended.
    """
    agent = None if isinstance(who, str) else who
    _check_counts(episodes=episodes, num_envs=num_envs, video_episodes=video_episodes)
    _check_agents_own(
        agent, prompt_episodes=prompt_episodes, instruction=instruction, plan=plan,
        wanted_return=wanted_return, retrieval=None if who == RETRIEVAL else retrieval,
    )  # fmt: skip
    if retrieval is not None:
        check_alone(prompt_episodes=prompt_episodes, plan=plan)
    ahead = None if plan is None else parse_plan(plan)
    name = task or (None if agent is None else agent.task)
    if name is None:
        raise UsageError("Say which task to act in.")
    options = env_options if agent is None else options_for(agent, name, env_options)
    # Only an agent gains speed from many environments.
    count = 1 if render or agent is None else min(episodes, num_envs or MAX_ENVS)
    seeds = range(seed, seed + episodes)
    filmed = seeds[:video_episodes] if video_dir is not None else ()
    stage = Stage(name, options, count, filmed=filmed, folder=video_dir, render=render)
    note = wanted = beyond = None
    ended: list[Trace] = []
    interrupted = False
    bar = tqdm(total=episodes, desc=name, unit="episode", disable=not progress, leave=False)
    try:
        if agent is None:
            if who == RETRIEVAL:
                policy: Policy = play_nearest(retrieval, name, without=seeds)
            else:
                policy = _named(str(who), name, stage)
        else:
            note = difference_note(agent, name, options=options, env=stage.environments[0])
            env = stage.environments[0]
            policy = agent = agent_for(agent, name, env, options, say=say)
            if prompt_episodes:
                policy = agent = agent.for_task(name)  # the caller's own keeps its prompts
                _demonstrate(
                    agent, prompt_episodes, given=env_options, seeds=seeds, instruction=instruction
                )
            wanted, beyond = agent.checked_return(wanted_return)
            if ahead is not None:
                policy = planned(agent, ahead, stage.environments)
            if retrieval is not None:
                policy = retrieving(agent, retrieval, without=seeds)
        elsewhere = demonstrated_elsewhere(policy, name, options)
        for line in (note, elsewhere, beyond):
            if line and say is not None:
                say(line)
        began = time.perf_counter()
        for trace in play(
            policy,
            stage.environments,
            seeds,
            task=name,
            instruction=instruction,
            wanted_return=wanted,
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
        **_scores(name, options, ended, seconds=time.perf_counter() - began),
        policy="agent" if agent is not None else getattr(policy, "name", str(who)),
        checkpoint=None if agent is None else agent.name,
        prompted=agent is not None and (agent.prompted or retrieval is not None),
        temperature=None if agent is None else agent.sampling.temperature,
        instruction=instruction,
        plan=None if ahead is None else str(ahead),
        wanted_return=None if wanted is None else str(wanted),
        retrieval=None if retrieval is None else retrieval.to_dict(),
        options=options,
        note=" ".join(filter(None, (note, elsewhere))) or None,
        video=films[0] if films else None,
        videos=films,
        no_video=no_film,
        interrupted=interrupted,
    )


def _named(who: str, task: str, stage: Stage) -> ExpertPolicy | RandomPolicy:
    """The policy `random`, `expert` (the task's own) or of another expert's name."""
    return policy_named(task, None if who == "expert" else who, stage.environments)


def _demonstrate(
    agent: Agent,
    episodes: int,
    *,
    given: Mapping[str, Any],
    seeds: Sequence[int],
    instruction: str | None,
) -> None:
    """Give the agent demonstrations in the rollout's environment, as prompts.

    Where episodes have instructions, there are `episodes` demonstrations of each.
    """
    task = agent.task
    if agent.layout.is_written:
        raise UsageError(f"{task} is text, which has no demonstrations; leave them out.")
    # Fail before the expert plays, which may take minutes.
    prompts.prompt_steps(task, agent.form.demonstration_positions, agent.window_tokens)
    whole = {name: value for name, value in given.items() if name != "max_steps"}
    options = options_for(agent, task, whole)
    told = prompts.instructions_of(task, seeds, options)
    if options.get("instructions") in (SHOWN, SHOWN_SHUFFLED):
        del options["instructions"]  # the expert is told, so that demonstrations are known by it
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
    """Play episodes in which the agent acts and the expert labels every state.

    This is one iteration of DAgger (Ross, Gordon and Bagnell 2011). The environment has the options
    that the agent was trained with, except for `env_options`.

    Args:
        agent: the agent that acts.
        task: name of the task; None for the agent's own.
        episodes: number of episodes.
        seed: seed of the first episode.
        num_envs: episodes in parallel; changes only the speed.
        expert: name of the expert that labels; None for the task's own.
        max_steps: cut (truncate) episodes there.
        progress: show a bar on stderr.
        env_options: options of the environment, as `generalist.make` takes them.

    Returns:
        The episodes in the order of the seeds `seed`, `seed + 1`, ... Actions are the agent's,
        labels the expert's, and `info["source"]` is "dagger". After Ctrl-C, those that have ended.

    Raises:
        UsageError: there is no such task, expert or option.
        KeyboardInterrupt: Ctrl-C before any episode has ended.
    """
    _check_counts(episodes=episodes, num_envs=num_envs)
    name = task or agent.task
    options = options_for(agent, name, env_options)
    stage = Stage(name, options, min(episodes, num_envs or MAX_ENVS))
    ended: list[Episode] = []
    bar = tqdm(total=episodes, desc=f"dagger {name}", unit="episode", disable=not progress)
    try:
        teacher = policy_named(name, expert, stage.environments)
        info = {"source": "dagger", "expert": teacher.name, "checkpoint": agent.name}
        for trace in play(
            agent_for(agent, name, stage.environments[0], options),
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


def _check_counts(**counts: int | None) -> None:
    for what, number in counts.items():
        if number is not None and number < 1:
            raise UsageError(f"{what} must be at least 1, got {number}.")


def _check_agents_own(agent: Agent | None, **given: Any) -> None:
    """Raise UsageError where other policies than an agent are given what only an agent uses."""
    for what, value in given.items():
        if agent is None and value:
            raise UsageError(f"{what} is for an agent; random play and experts do not use it.")


def _scores(
    task: str, options: Mapping[str, Any], traces: Sequence[Trace], *, seconds: float
) -> dict[str, Any]:
    """The part of a result that follows from the episodes, in the order of their seeds."""
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
        "named_first": [trace.named_first for trace in traces],
        "statements": [trace.statement for trace in traces if trace.statement is not None],
        "lengths": [trace.steps for trace in traces],
        "mean": float(scores.mean()),
        "stderr": float(scores.std(ddof=1) / np.sqrt(len(scores))) if several else None,
        "random": record.random_score.mean if record.random_score else None,
        "expert": record.expert_score.mean if record.expert_score else None,
        "normalized": record.normalized(float(scores.mean())),
        "steps_per_second": sum(trace.steps for trace in traces) / seconds,
    }
