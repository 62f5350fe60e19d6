"""The commands about repositories of one's own."""
