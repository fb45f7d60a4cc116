"""The version of this package, which no import of ours is needed to know."""

__version__ = "0.2.0"
