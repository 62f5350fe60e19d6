"""Spans to a collector, by OpenTelemetry: an extra, `pip install 'registry-mirror[otel]'`, that is
imported only where `tracing` is configured."""
