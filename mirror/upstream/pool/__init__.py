"""Several endpoints of one registry as one upstream."""
