"""Where bytes and records rest: content on disk; tags in an embedded database or in Redis."""
