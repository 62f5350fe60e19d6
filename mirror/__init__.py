"""A pull-through container registry mirror."""

__version__ = "0.1.0"
