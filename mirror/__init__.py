"""A pull-through container registry mirror."""

__version__ = "0.2.0"
