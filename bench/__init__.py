"""Measures the mirror against real peers, side by side in one run. See README.md here."""
