"""What is wrong with a mirror, and what to do: for the command doctor, and once at the start."""

from .examining import at_start, commands, examined
from .findings import Diagnosis, Mark

__all__ = ["Diagnosis", "Mark", "at_start", "commands", "examined"]
