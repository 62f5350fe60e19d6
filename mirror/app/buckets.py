"""The section storage.s3 → the bucket that is meant. Imported only where there is one."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ..config.logins import Secret
from ..config.problems import Mistake
from ..config.s3 import S3Config
from ..storage.second_tier.bucket import Bucket

log = structlog.get_logger()


def bucket_in(config: S3Config) -> Bucket:
    secret = config.secret_access_key
    return Bucket(
        config.bucket,
        config.endpoint,
        config.region,
        config.prefix,
        config.is_virtual,
        config.ca_file.text.get_secret_value() if config.ca_file else None,
        _key(config.access_key_id, secret) if config.access_key_id and secret else None,
    )


def _key(name: str, secret: Secret) -> Callable[[], tuple[str, str]]:
    """A key whose secret is read again: a file may have another by now. What cannot be read leaves
    the one before."""
    known = secret.get_secret_value()

    def key() -> tuple[str, str]:
        nonlocal known
        try:
            known = secret.read().get_secret_value()
        except Mistake as mistake:
            log.warning("secret_unreadable", key="storage.s3", reason=mistake.found)
        return name, known

    return key
