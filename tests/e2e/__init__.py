"""Real clients against the mirror as a process, before an upstream that behaves like Docker Hub."""
