"""The bucket behind the disk: what may be done with it, its clock, and its rule for what
interrupted uploads leave."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator

from ...clock import Clock
from ...config.s3 import S3Config
from ...storage.second_tier.bucket_probe import bucket_facts
from ...storage.second_tier.lifecycle import aborts_uploads
from ..buckets import bucket_in
from .findings import Diagnosis, bad, good, warn

_WORTH_TELLING = 5.0  # seconds
_REFUSED = 300.0  # seconds: S3 refuses what was signed longer ago, or later

_RIGHTS = (
    "let the key write, read, list and remove objects (Amazon: s3:PutObject, s3:GetObject, "
    "s3:ListBucket, s3:DeleteObject, s3:AbortMultipartUpload)"
)
_MENDS = (  # by how the reason begins
    ("NoSuchBucket", "make the bucket, or correct storage.s3.bucket"),
    ("InvalidAccessKeyId", "correct storage.s3.access_key_id"),
    ("SignatureDoesNotMatch", "correct the secret of storage.s3, or its region"),
    ("RequestTimeTooSkewed", "set the clock of this host: NTP"),
    ("AuthorizationHeaderMalformed", "correct storage.s3.region"),
    ("PermanentRedirect", "correct storage.s3.region, or endpoint"),
    ("AccessDenied", _RIGHTS),
    ("status 403", _RIGHTS),
    ("its certificate", "correct storage.s3.ca_file: it names who is trusted"),
    ("it does not speak TLS", "http:// in storage.s3.endpoint, or another port"),
    ("", "start it, or correct storage.s3.endpoint; pulls go on without it"),
)


async def bucket(config: S3Config) -> AsyncGenerator[Diagnosis, None]:
    """Writes an object of no meaning, reads, lists and removes it."""
    asked, clock = bucket_in(config), Clock()
    where = f"{config.bucket} at {config.endpoint or 'Amazon'}"
    facts = await bucket_facts(asked, clock.wall)
    for what, reason in facts.faults.items():
        mend = next(mend for sign, mend in _MENDS if reason.startswith(sign))
        yield bad("bucket", f"{where}: cannot {what}: {reason}", mend)
    if not facts.faults:
        yield good("bucket", f"{where}: objects can be written, read, listed and removed")
    if facts.replaces:
        yield warn(
            "bucket",
            f"{where} replaces an object though it is told not to (If-None-Match: *)",
            "a server that knows this condition: else two nodes may write the same at once",
        )
    if facts.ahead is not None and abs(facts.ahead) > _WORTH_TELLING:
        found = bad if abs(facts.ahead) > _REFUSED else warn
        words = f"its clock is {abs(facts.ahead):.0f} s {'ahead' if facts.ahead > 0 else 'behind'}"
        yield found("bucket", f"{words}; beyond 5 minutes it refuses all", "NTP, here and there")
    if "write" in facts.faults:
        return
    aborts = await aborts_uploads(asked, clock.wall())
    if aborts is False:
        yield warn(
            "bucket",
            f"{where} has no rule that removes what interrupted uploads leave",
            "a lifecycle rule with AbortIncompleteMultipartUpload after 1 day",
        )
    if config.redirect is not None and config.redirect.endpoint is not None:
        for_clients = dataclasses.replace(asked, endpoint=config.redirect.endpoint)
        seen = await bucket_facts(for_clients, clock.wall)
        if seen.faults:
            reason = next(iter(seen.faults.values()))
            yield warn(
                "bucket",
                f"{config.redirect.endpoint}, where clients are sent, from here: {reason}",
                "nothing, if only clients reach it; else correct storage.s3.redirect.endpoint",
            )
        else:
            yield good("bucket", f"{config.redirect.endpoint}, where clients are sent, answers")
