"""What tags point to: embedded (SQLite), or in Redis."""
