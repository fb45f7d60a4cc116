"""Learning by reinforcement: one network, many tasks, online (IMPALA and PopArt)."""
