"""Content on the disk: files, the index of them, and their room."""
