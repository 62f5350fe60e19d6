"""Text that is shown nowhere."""

from __future__ import annotations


class SecretStr:
    """A secret, which no log, message or traceback shows. Equal to another of the same text,
    whatever is known of where that stands."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __str__(self) -> str:
        return "**********" if self._value else ""

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({str(self)!r})"
