"""Scores, suites and reports: what an agent is worth, with how much certainty."""
