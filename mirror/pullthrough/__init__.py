"""The heart: pull-through, fills, tag freshness."""
