"""How weights and gradients are spread over processes: one, DDP, FSDP2, ZeRO."""
