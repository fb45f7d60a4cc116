"""Strategies that spread weights and gradients over processes: one process, DDP, FSDP2, ZeRO."""
