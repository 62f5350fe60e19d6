"""Whether a bucket has a rule that removes what is left of interrupted uploads: obstore has no word
for that question, so that it is signed here (AWS Signature Version 4)."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import re
import ssl
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from ...threads import MayHang
from ...times import STORES
from .bucket import Bucket

_ABORTS = re.compile(rb"<AbortIncompleteMultipartUpload>", re.IGNORECASE)
_NONE = re.compile(rb"<Code>NoSuchLifecycleConfiguration</Code>")
_QUERY = "lifecycle="
_MOST = 1 << 20  # bytes


async def aborts_uploads(
    bucket: Bucket, now: float, within: float = STORES.far_answer
) -> bool | None:
    """None: it cannot be seen, since the store does not say so `within` seconds, or the login is
    not the configuration's."""
    if bucket.key is None:
        return None
    try:
        return await MayHang(within).run(partial(_asked, bucket, bucket.key, now))
    except OSError:  # a TimeoutError, too
        return None


def _asked(bucket: Bucket, own: Callable[[], tuple[str, str]], now: float) -> bool | None:
    """Blocking: whoever sends a byte now and then is waited for as long as he likes."""
    url = urlsplit(bucket.url)
    path = (url.path.rstrip("/") + ("" if bucket.is_virtual else f"/{bucket.name}")) or "/"
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    nothing = hashlib.sha256(b"").hexdigest()
    headers = {"host": url.netloc, "x-amz-content-sha256": nothing, "x-amz-date": stamp}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    asked = "\n".join(("GET", path, _QUERY, lines, names, nothing))
    scope = f"{stamp[:8]}/{bucket.known_region}/s3/aws4_request"
    digest = hashlib.sha256(asked.encode()).hexdigest()
    name, secret = own()
    key = f"AWS4{secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signed = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    signature = hmac.digest(key, signed.encode(), "sha256").hex()
    login = f"Credential={name}/{scope}, SignedHeaders={names}, Signature={signature}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 {login}"
    try:
        status, body = _got(bucket, url.scheme, url.netloc, f"{path}?{_QUERY}", headers)
    except (OSError, http.client.HTTPException):
        return None
    if status == 200:
        return _ABORTS.search(body) is not None
    return False if status == 404 and _NONE.search(body) else None


def _got(
    bucket: Bucket, scheme: str, netloc: str, target: str, headers: dict[str, str]
) -> tuple[int, bytes]:
    wait = STORES.far_answer / 2
    if scheme == "http":
        connection = http.client.HTTPConnection(netloc, timeout=wait)
    else:
        trusted = ssl.create_default_context()
        if bucket.authorities:
            trusted.load_verify_locations(cadata=bucket.authorities)
        connection = http.client.HTTPSConnection(netloc, timeout=wait, context=trusted)
    try:
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST)
    finally:
        connection.close()
