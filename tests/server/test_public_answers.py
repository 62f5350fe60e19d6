"""Only what anybody may have is given again to whoever asks the same."""

from __future__ import annotations

import pytest
from aiohttp import hdrs

from mirror.contracts.context import Principal, RequestContext
from mirror.events import Events
from mirror.server.http.public_answers import Asked, PublicAnswer, public_answer
from mirror.server.http.response_cache import ResponseCache
from mirror.server.v2.access_log import AccessLog
from mirror.server.v2.target import TargetKind

ASKED = Asked("/v2/a/manifests/7", "mirror", TargetKind.TAG)
HEADERS = {hdrs.ETAG: '"7"'}
NOBODY = RequestContext("1", "10.0.0.1")
SOMEBODY = RequestContext("2", "10.0.0.1", Principal("ann"))


def test_an_answer_to_a_principal_cannot_be_made_public() -> None:
    with pytest.raises(ValueError, match="principal"):
        PublicAnswer(SOMEBODY, ASKED, HEADERS, b"{}")
    assert public_answer(SOMEBODY, ASKED, HEADERS, b"{}") is None


async def test_what_was_answered_to_nobody_in_particular_is_answered_again() -> None:
    response_cache = ResponseCache(AccessLog(lambda line: None, Events()))
    answer = public_answer(NOBODY, ASKED, HEADERS, b"{}")
    assert answer is not None
    response_cache.put(answer)
    head = b"GET /v2/a/manifests/7 HTTP/1.1\r\nHost: mirror\r\n"
    found = response_cache.answer(head + b"\r\n", "10.0.0.2")
    assert found is not None
    assert found.data.endswith(b"\r\n\r\n{}")
    assert response_cache.answer(head + b"Authorization: Bearer x\r\n\r\n", "10.0.0.2") is None
