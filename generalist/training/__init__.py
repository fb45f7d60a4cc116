"""From windows of tokens to a checkpoint: recipe, objective, loop, checkpoints, export."""
