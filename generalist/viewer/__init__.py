"""Pages on which a person watches an agent, and plays."""
