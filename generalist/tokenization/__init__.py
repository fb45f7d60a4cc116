"""Values to token ids and back: one codec a file, the layout of a timestep, and the processor."""
