"""Experts: who demonstrates. Each can label any state of its task; none is downloaded."""

from generalist.experts.collect import collect_episode, demonstrate, random_episode
from generalist.experts.policies import ExpertPolicy, RandomPolicy, policy_named
from generalist.experts.registry import Expert, expert_names, get_expert

__all__ = [
    "Expert",
    "ExpertPolicy",
    "RandomPolicy",
    "collect_episode",
    "demonstrate",
    "expert_names",
    "get_expert",
    "policy_named",
    "random_episode",
]
