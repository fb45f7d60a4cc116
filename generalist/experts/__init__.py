"""Experts: who demonstrates. Each can label any state of its task; none is downloaded."""

from generalist.experts.collect import collect_episode, random_episode
from generalist.experts.registry import Expert, expert_names, get_expert

__all__ = ["Expert", "collect_episode", "expert_names", "get_expert", "random_episode"]
