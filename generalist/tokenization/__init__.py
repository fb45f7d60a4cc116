"""Values to token ids and back: one codec a file, the layout of a timestep, and the processor."""

PARTS_FOLDER = "generalist"
"""Of a checkpoint: the processor, and what else acting needs beside the weights."""
