"""Filling the shards: experts play the tasks of a dataset spec, side by side."""
