"""Self-play: one network on many boards, which learns from its own searches."""
