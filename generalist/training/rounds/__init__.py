"""Rounds between steps: corrections by experts, and scores during a run."""
