"""Acting: the Agent on top of a decoder, rollouts, prompts, videos."""
