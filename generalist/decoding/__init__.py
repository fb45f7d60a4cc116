"""The engine: token ids in, token ids out, with caches; it knows no task and no space."""
