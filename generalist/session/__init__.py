"""Sessions: episodes that any policy plays, one at a time or many in step."""

from generalist.session.play import Session, advance, play
from generalist.session.trace import EpisodeError, Trace

__all__ = ["EpisodeError", "Session", "Trace", "advance", "play"]
