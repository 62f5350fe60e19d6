"""TLS as Python 3.13 has it, on any Python."""

from __future__ import annotations

import ssl
from typing import Any

import pytest


def be_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts are as Python makes them from 3.13 on."""
    make = ssl.create_default_context

    def make_strict(*arguments: Any, **options: Any) -> ssl.SSLContext:
        context = make(*arguments, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    monkeypatch.setattr(ssl, "create_default_context", make_strict)
