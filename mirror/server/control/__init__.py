"""The control socket: by it commands ask the mirror that runs.

A Unix socket in the store's folder, for the user who runs the mirror and for root alone (mode
0600), on which HTTP is spoken. `POST /<command>`: the body is the command's parameters, a JSON
object of `Parameters-Length` bytes, and then the bytes that the command is given, if it takes any.
The answer is one JSON object a line, of which empty lines say that the command is still at work;
or, of a command that gives bytes, these. A command that fails ends with the line `{"error":
{"message": …, "status": …}}`, where `status` is what the program is to exit with.
"""

from .client import NotAnswered, ask, ask_bytes, ask_lines
from .serving import (
    Command,
    CommandFailed,
    GivesBytes,
    Parameters,
    TakesBytes,
    Tells,
    one,
    taking_commands,
)

__all__ = [
    "Command",
    "CommandFailed",
    "GivesBytes",
    "NotAnswered",
    "Parameters",
    "TakesBytes",
    "Tells",
    "ask",
    "ask_bytes",
    "ask_lines",
    "one",
    "taking_commands",
]
