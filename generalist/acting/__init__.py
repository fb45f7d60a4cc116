"""Acting: a cached decoder that knows token ids only, the Agent on top of it, rollouts, prompts."""
