"""Why something on the page or of the API is not done, in one form for both."""

from __future__ import annotations


class Refused(Exception):
    """`status` is HTTP's, `code` is for programs, the message for people. `retry_after`: seconds
    after which it may be tried again, where that helps."""

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


def read_only() -> Refused:
    return Refused(
        403,
        "READ_ONLY",
        "this admin port is read-only: write `admin: {write: true}` in mirror.yaml, then reload",
    )
