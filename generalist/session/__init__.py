"""Sessions: episodes as they are played, by any policy, one by one or many in step."""

from generalist.session.play import Session, advance, play
from generalist.session.trace import EpisodeError, Trace

__all__ = ["EpisodeError", "Session", "Trace", "advance", "play"]
