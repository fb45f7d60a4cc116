"""Laws that figures of runs obey, with their intervals."""
