"""A mirror whose object store takes its time to remove: what is pushed meanwhile meets that.

python -m tests.hosted.slow_removal serve …
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection

from mirror import cli
from mirror.storage.second_tier.s3_content import S3Content

_remove = S3Content.remove


async def _slowly(content: S3Content, names: Collection[str]) -> int:
    if random.random() < 0.2:
        await asyncio.sleep(random.uniform(0.0, 1.0))
    return await _remove(content, names)


# Also in workers, which import this module anew under another name.
if __name__ in ("__main__", "__mp_main__"):
    S3Content.remove = _slowly  # type: ignore[method-assign]

if __name__ == "__main__":
    cli.main()
