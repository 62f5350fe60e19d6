"""The page of hosted names, for people, and its API for programs."""
