"""Planners: they search in simulators whose state can be saved and restored."""
