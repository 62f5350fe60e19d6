"""Why something on a page or of its API is not done, in one form for both."""

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
