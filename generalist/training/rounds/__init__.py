"""Rounds between steps: corrections by experts, self-improvement, and scores during a run."""
