"""A Registry around a Registry: routed, observed."""
