"""Whether a bucket says that it removes what interrupted uploads leave."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mirror.storage.second_tier.bucket import Bucket
from mirror.storage.second_tier.lifecycle import aborts_uploads

RULE = b"""<?xml version="1.0" encoding="UTF-8"?><LifecycleConfiguration><Rule><ID>parts</ID>
<Status>Enabled</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation>
</AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>"""
OTHER = b"<LifecycleConfiguration><Rule><Expiration><Days>9</Days></Expiration></Rule>"
NONE = b"<Error><Code>NoSuchLifecycleConfiguration</Code></Error>"
NO_BUCKET = b"<Error><Code>NoSuchBucket</Code></Error>"


class _Answers(BaseHTTPRequestHandler):
    status, body = 200, b""
    asked: tuple[str, str] = "", ""

    drips = False

    def do_GET(self) -> None:
        type(self).asked = self.path, self.headers["Authorization"]
        with contextlib.suppress(ConnectionError):
            while self.drips:
                self.wfile.write(b"H")
                time.sleep(0.02)
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store() -> Iterator[Bucket]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Bucket("b", f"http://127.0.0.1:{server.server_port}", key=lambda: ("me", "secret"))
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, RULE, True),
        (200, OTHER, False),
        (404, NONE, False),
        (404, NO_BUCKET, None),
        (403, b"<Error><Code>AccessDenied</Code></Error>", None),
        (501, b"", None),
    ],
    ids=["a rule", "another rule", "none", "no bucket", "forbidden", "not known there"],
)
async def test_what_it_says(store: Bucket, status: int, body: bytes, says: bool | None) -> None:
    _Answers.status, _Answers.body = status, body
    assert await aborts_uploads(store, 1_700_000_000.0) is says
    path, login = _Answers.asked
    assert path == "/b?lifecycle="
    assert "Credential=me/20231114/us-east-1/s3/aws4_request" in login
    assert "secret" not in login


async def test_one_that_is_not_there_and_one_whose_login_is_not_known_say_nothing() -> None:
    assert (
        await aborts_uploads(Bucket("b", "http://127.0.0.1:1", key=lambda: ("a", "b")), 0.0) is None
    )
    assert await aborts_uploads(Bucket("b", "http://127.0.0.1:1"), 0.0) is None


async def test_one_that_never_comes_to_an_end_is_not_waited_for(
    store: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(_Answers, "drips", True)
        assert await aborts_uploads(store, 0.0, within=0.2) is None
