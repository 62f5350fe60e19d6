"""The registry protocol's words: pure, no I/O, standard library only."""
